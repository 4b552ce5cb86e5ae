"""Google's wiring: the layers above attention against NumPy, and the decoder that they are a part of."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import Decoder, EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.models.gnmt_layers import UpperLayers
from tests.support import reference

# float32 through a few steps of saturating functions, on numbers below 1.
FLOAT32 = {"rtol": 1e-4, "atol": 2e-6}


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def make(residual, num_layers=3):
    rng = np.random.default_rng(3)
    layer = UpperLayers("lstm", 5, num_layers, residual=residual)
    hidden, contexts = (rng.normal(size=(2, 4, depth)).astype("float32") for depth in (5, 3))
    state = {name: rng.normal(size=(2, 5)).astype("float32") for name in layer.state_names}
    layer.build(hidden.shape, contexts.shape)
    for weight in layer.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape))
    return layer, ops.convert_to_tensor(hidden), ops.convert_to_tensor(contexts), state


@pytest.mark.parametrize("residual", [False, True])
def test_each_layer_reads_the_one_below_and_the_context(residual):
    layer, hidden, contexts, state = make(residual)
    assert layer.state_names == ["h_1", "c_1", "h_2", "c_2"]
    expected = numpy(hidden).astype("float64")
    for index, stack in enumerate(layer.layers, 1):
        weights = [numpy(weight) for weight in stack.weights]
        rows = np.concatenate([expected, numpy(contexts)], axis=-1)
        first = state[f"h_{index}"], state[f"c_{index}"]
        outputs = [reference.lstm(rows[b], *weights, first[0][b], first[1][b])[0] for b in range(2)]
        expected = np.stack(outputs) + (expected if residual else 0.0)
    np.testing.assert_allclose(numpy(layer(hidden, contexts, state)), expected, **FLOAT32)
    stepped = []
    for t in range(4):
        output, state = layer.step(hidden[:, t], contexts[:, t], state)
        stepped.append(numpy(output))
    np.testing.assert_allclose(np.stack(stepped, axis=1), expected, **FLOAT32)


def test_a_config_makes_it_again():
    layer = UpperLayers("gru", 5, 4, dropout=0.2, residual=True, variational_dropout=True)
    again = UpperLayers.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.state_names == ["h_1", "h_2", "h_3"]


def test_the_top_layer_hears_of_the_source_by_the_context():
    config = Seq2SeqConfig(9, 9, style="gnmt", decoder_layers=2, encoder_units=3, decoder_units=5, embedding_size=4)
    model = build_seq2seq(config)
    net = EncoderDecoder(model)
    assert net.config == config
    source, target = np.array([[4, 5, 2]], "int32"), np.array([[1, 6, 7]], "int32")
    before = numpy(model({"source": source, "target": target}))
    kernel = net.decoder.upper.layers[0].layers[0][0].cell.kernel
    cut = numpy(kernel).copy()
    cut[5:] = 0.0  # what reads the context; the bottom layer still does
    kernel.assign(cut)
    # Above what float32 rounds, 1e-6.
    assert np.abs(numpy(model({"source": source, "target": target})) - before).max() > 1e-4
    state, _ = net.encode(source)
    np.testing.assert_array_equal(numpy(net.representation(state)), numpy(state["h_1"]))


def test_dropout_is_drawn_in_training_alone():
    decoder = Decoder(units=5, num_layers=2, attention={"score": "general"}, style="gnmt", dropout=0.5)
    embedded = np.ones((2, 3, 4), "float32")
    encoded = {"values": np.ones((2, 3, 6), "float32"), "mask": np.ones((2, 3), bool), "state": {}}
    quiet = [numpy(decoder(embedded, encoded, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*quiet)
    loud = [numpy(decoder(embedded, encoded, training=True)) for _ in range(2)]
    assert np.abs(loud[0] - loud[1]).max() > 1e-3  # far above what float32 rounds, 1e-6
    assert (loud[0] == 0).any()  # of the outputs too


def test_every_weight_is_taught():
    model = build_seq2seq(
        Seq2SeqConfig(9, 9, style="gnmt", decoder_layers=3, residual=True, encoder_units=3, decoder_units=5)
    )
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [numpy(weight).copy() for weight in model.trainable_variables]
    source = np.array([[4, 5, 6, 2]] * 3, "int32")
    model.fit({"source": source, "target": source}, source, verbose=0)
    for weight, old in zip(model.trainable_variables, before, strict=True):
        assert (numpy(weight) != old).any(), weight.path


@pytest.mark.parametrize(
    "choices",
    [
        {"decoder_layers": 1},
        {"attention_heads": 2},
        {"attention_dropout": 0.1},
        {"attentional_size": 3},
        {"input_feeding": True},
        {"attention": "none"},
        {"weight_dropout": 0.1},
    ],
)
def test_what_does_not_go_with_it(choices):
    with pytest.raises(ValueError, match="Expected: "):
        Seq2SeqConfig(9, 9, **{"style": "gnmt", "decoder_layers": 2, **choices})


def test_a_decoder_and_its_layers_say_what_they_need():
    with pytest.raises(ValueError, match=r"Expected: num_layers >= 2, attention of one head"):
        Decoder(num_layers=1, attention={"score": "dot"}, style="gnmt")
    with pytest.raises(ValueError, match=r"Expected: num_layers >= 2, of which the lowest attends"):
        UpperLayers("lstm", 5, 1)
