"""Word dropout and weight dropout: what is dropped, that it is one draw for a pass, and that inference has neither."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import EncoderDecoder, build_seq2seq
from keras_attention.recurrent.stack import RecurrentStack, word_dropout
from tests.recurrent.test_lstm import draw, numpy_lstm

BATCH, STEPS, DEPTH, UNITS = 3, 5, 4, 6
CONFIG = {
    "source_vocabulary": 11,
    "target_vocabulary": 13,
    "embedding_size": 5,
    "encoder_units": 3,
    "decoder_units": 7,
}
SOURCE = np.array([[4, 5, 6, 7, 2], [8, 9, 2, 0, 0]], "int32")
TARGET = np.array([[1, 4, 5, 6], [1, 7, 0, 0]], "int32")


def numpy(tensor) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def test_a_word_is_dropped_as_a_whole_and_the_rest_is_scaled_up() -> None:
    layer = word_dropout(0.25, "float32")
    words = np.ones((40, 50, 3), "float32")
    dropped = numpy(layer(words, training=True))
    assert set(np.unique(dropped)) == {np.float32(0.0), np.float32(1 / 0.75)}
    np.testing.assert_array_equal(dropped[..., 0], dropped[..., 1])
    np.testing.assert_array_equal(dropped[..., 0], dropped[..., 2])
    # 2,000 draws: four standard deviations of their mean are 0.039.
    assert np.mean(dropped == 0) == pytest.approx(0.25, abs=0.039)
    np.testing.assert_array_equal(numpy(layer(words, training=False)), words)


def test_weight_dropout_is_an_lstm_with_a_recurrent_kernel_of_fewer_weights() -> None:
    """One mask, drawn once, explains all steps."""
    stack = RecurrentStack("lstm", UNITS, weight_dropout=0.5)
    drawn = []

    class Spy(keras.layers.Layer):
        def call(self, weights, training=None):
            mask = np.random.default_rng(3).random(weights.shape) < 0.5
            drawn.append(mask)
            return weights * ops.convert_to_tensor(mask * 2.0, "float32")

    stack._weight_dropout = Spy()
    x = draw(BATCH, STEPS, DEPTH)
    stack.build(x.shape)
    cell = stack.layers[0][0].cell
    kernel, recurrent, bias = (numpy(w) for w in (cell.kernel, cell.recurrent_kernel, cell.bias))
    outputs, _ = stack(x, training=True)
    assert len(drawn) == 1, "one draw for all steps"
    zeros = np.zeros((BATCH, UNITS))
    expected = numpy_lstm(x, zeros, zeros, kernel, recurrent * drawn[0] * 2, bias)[0]
    # Five steps of sums of ten float32 products of size 1.
    np.testing.assert_allclose(numpy(outputs), expected, rtol=1e-5, atol=1e-5)


def test_weight_dropout_draws_anew_and_rests_in_inference() -> None:
    stack = RecurrentStack("lstm", UNITS, bidirectional=True, weight_dropout=0.5)
    plain = RecurrentStack("lstm", UNITS, bidirectional=True)
    x, lengths = draw(BATCH, STEPS, DEPTH), np.array([5, 2, 4], "int32")
    stack.build(x.shape)
    plain.build(x.shape)
    plain.set_weights([numpy(w) for w in stack.trainable_variables])
    first, second = (numpy(stack(x, lengths, training=True)[0]) for _ in range(2))
    assert np.abs(first - second)[0].max() > 1e-3  # far above what float32 rounds, 1e-6
    np.testing.assert_array_equal(numpy(stack(x, lengths)[0]), numpy(plain(x, lengths)[0]))


@pytest.mark.slow
def test_a_model_with_both_trains_and_keeps_its_config() -> None:
    config = Seq2SeqConfig(**CONFIG, word_dropout=0.2, weight_dropout=0.3)
    model = build_seq2seq(config)
    assert EncoderDecoder(model).config == config
    batch = {"source": SOURCE, "target": TARGET}
    np.testing.assert_array_equal(numpy(model(batch)), numpy(model(batch)))
    # Far above what float32 rounds, 1e-6.
    assert np.abs(numpy(model(batch, training=True)) - numpy(model(batch))).max() > 1e-3
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [numpy(w) for w in model.trainable_variables]
    model.fit(batch, np.roll(TARGET, -1, 1), epochs=1, verbose=0)
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert np.isfinite(numpy(new)).all()
        assert np.abs(numpy(new) - old).max() > 0, new.path
    copy = keras.models.model_from_json(model.to_json())
    assert EncoderDecoder(copy).config == config


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"word_dropout": 1.0}, "Expected: 0 <= word_dropout < 1. Received: word_dropout=1.0"),
        ({"weight_dropout": -0.1}, "Expected: 0 <= weight_dropout < 1. Received: weight_dropout=-0.1"),
        ({"weight_dropout": 0.1, "cell": "gru"}, "Expected: cell='lstm', .*Received: cell='gru'"),
        ({"weight_dropout": 0.1, "input_feeding": True}, "Received: .*input_feeding=True"),
        ({"weight_dropout": 0.1, "bridge": "copy", "decoder_units": 6}, "Received: .*bridge='copy'"),
        ({"weight_dropout": 0.1, "style": "bahdanau"}, "Received: .*style='bahdanau'"),
    ],
)
def test_choices_that_do_not_fit(choices, message) -> None:
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(**{**CONFIG, **choices})


def test_stacks_that_cannot_drop_weights() -> None:
    with pytest.raises(ValueError, match="Expected: cell='lstm' with weight_dropout"):
        RecurrentStack("gru", UNITS, weight_dropout=0.1)
    stack = RecurrentStack("lstm", UNITS, return_cell_state=True, weight_dropout=0.1)
    with pytest.raises(ValueError, match="where cell states are returned at each row's length"):
        stack(draw(BATCH, STEPS, DEPTH), np.array([1, 2, 3], "int32"), training=True)
