"""Dropout, place by place: with a share next to 1 nothing is left, and the rest has a closed form."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_attention import (
    AttentionCell,
    AttentionDecoder,
    AttentionEncoder,
    AttentionRNN,
    BahdanauAttention,
    Decoder,
    Encoder,
    LuongAttention,
    MultiHeadLuongAttention,
    RecurrentStack,
)
from keras_attention.models.gnmt_layers import UpperLayers
from keras_attention.models.transformer_layer import AttentionBlock
from tests.support import reference
from tests.support.cell_reference import normal, numpy, source_mask

ALL = 1.0 - 1e-6
BATCH, STEPS, POSITIONS, UNITS, DEPTH, VALUES = 2, 3, 5, 7, 11, 13
MEMORY_MASK = source_mask(3, 5)
# float32 through a few steps of saturating functions, on numbers below 1.
FLOAT32 = {"rtol": 1e-4, "atol": 2e-6}


def randomised(layer: Any, *shapes: Any) -> Any:
    """The layer, built, with biases that are not zero: words of zeros leave something to see."""
    layer.build(*shapes)
    for number, weight in enumerate(layer.trainable_weights):
        weight.assign(0.5 * normal(*weight.shape, seed=number))
    return layer


def lstm(rows: np.ndarray, layer: Any, h: Any = None, c: Any = None) -> np.ndarray:
    """NumPy's outputs for the weights of a Keras LSTM."""
    weights = [numpy(weight).astype("float64") for weight in layer.weights]
    zeros = np.zeros((len(rows), len(weights[1])))
    first = zip(rows.astype("float64"), zeros if h is None else h, zeros if c is None else c, strict=True)
    return np.stack([reference.lstm(row, *weights, *states)[0] for row, *states in first])


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_a_stack_drops_the_inputs_of_its_upper_layers(residual: bool, variational: bool) -> None:
    stack = RecurrentStack("lstm", UNITS, 2, dropout=ALL, residual=residual, variational_dropout=variational)
    inputs = normal(BATCH, STEPS, DEPTH)
    randomised(stack, inputs.shape)
    below = lstm(inputs, stack.layers[0][0])
    expected = lstm(np.zeros_like(below), stack.layers[1][0]) + (below if residual else 0.0)
    np.testing.assert_allclose(numpy(stack(inputs, training=True)[0]), expected, **FLOAT32)


WAYS = {"fed": {}, "bahdanau": {"style": "bahdanau"}, "masked": {"input_feeding": False}}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("residual", [False, True])
def test_a_stepped_stack_drops_the_inputs_of_its_upper_layers(residual: bool, way: str) -> None:
    """The second layer reads zeros at every step, in a run and stepped: nothing that is fed reaches it."""
    stack = RecurrentStack("lstm", UNITS, 2, dropout=ALL, residual=residual, return_cell_state=True)
    rnn = AttentionRNN(AttentionCell(stack, LuongAttention(), **WAYS[way]), return_state=True)
    inputs, values = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, VALUES)
    mask = np.ones((BATCH, STEPS), bool) if way == "masked" else None
    randomised(rnn, inputs.shape, values.shape)
    found = rnn(inputs, values, mask=mask, training=True)[1]
    expected = lstm(np.zeros((BATCH, STEPS, UNITS)), stack.layers[1][0])[:, -1]
    np.testing.assert_allclose(numpy(found["h_1"]), expected, **FLOAT32)
    kept = numpy(rnn(inputs, values, mask=mask)[1]["h_1"])
    assert (np.abs(kept - expected) > 1e-2).any()  # far above what float32 rounds
    memory = rnn.cell.prepare_memory(values)
    for training in (True, False):
        state = rnn.cell.initial_state(memory)
        for t in range(STEPS):
            state = rnn.cell(inputs[:, t], state, memory, training=training)[1]
        np.testing.assert_allclose(numpy(state["h_1"]), expected if training else kept, **FLOAT32)


@pytest.mark.parametrize("variational", [False, True])
def test_what_a_stepped_stack_drops(variational: bool) -> None:
    stack = RecurrentStack("gru", 101, 3, dropout=0.75, variational_dropout=variational)
    noise = {name: numpy(factors) for name, factors in stack.draw_noise(normal(BATCH, STEPS, DEPTH)).items()}
    assert sorted(noise) == ["dropout_1", "dropout_2"]
    for factors in noise.values():
        assert factors.shape == (BATCH, STEPS, 101)
        assert set(np.unique(factors)) == {0.0, 4.0}
        # At least 202 draws of 1/4: five standard deviations of their mean are 0.153.
        assert (factors > 0).mean() == pytest.approx(0.25, abs=0.153)
        assert (factors == factors[:, :1]).all() == variational
        assert (factors[0] != factors[1]).any()
    assert (noise["dropout_1"] != noise["dropout_2"]).any()
    assert not RecurrentStack("gru", 101, 3).draw_noise(normal(BATCH, STEPS, DEPTH))


def test_a_stepped_stack_has_no_weight_dropout() -> None:
    stack = RecurrentStack("lstm", UNITS, weight_dropout=0.5, return_cell_state=True)
    rnn = AttentionRNN(AttentionCell(stack, LuongAttention()))
    inputs, values = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, VALUES)
    assert np.isfinite(numpy(rnn(inputs, values))).all()
    with pytest.raises(ValueError, match=r"Expected: weight_dropout=0 in a stack that is stepped.*Received: .*=0.5"):
        rnn(inputs, values, training=True)


@pytest.mark.parametrize("kind", ["dropout", "word_dropout"])
def test_an_encoder_drops_its_words_and_its_memory(kind: str) -> None:
    words = [normal(BATCH, POSITIONS, DEPTH, seed=seed) for seed in (1, 2)]
    encoder = randomised(Encoder("lstm", UNITS, **{kind: ALL}), words[0].shape)
    one, other = (encoder(embedded, MEMORY_MASK, training=True) for embedded in words)
    for found, expected in ((one["values"], other["values"]), (one["state"]["h_0"], other["state"]["h_0"])):
        np.testing.assert_array_equal(numpy(found), numpy(expected))
    assert numpy(one["state"]["h_0"]).all()
    assert numpy(one["values"]).any() == (kind == "word_dropout")


@pytest.mark.parametrize("variational", [False, True])
def test_steps_of_a_memory_share_what_is_dropped(variational: bool) -> None:
    encoder = Encoder("gru", 101, dropout=0.5, variational_dropout=variational)
    words, mask = normal(BATCH, POSITIONS, DEPTH), np.ones((BATCH, POSITIONS), bool)
    dropped = numpy(encoder(words, mask, training=True)["values"]) == 0.0
    assert (dropped == dropped[:, :1]).all() == variational
    assert (dropped[0] != dropped[1]).any()


def decoder_of(**choices: Any) -> tuple[Decoder, dict[str, Any]]:
    decoder = Decoder("lstm", UNITS, **{"attention": {"score": "general"}, **choices})
    values = normal(BATCH, POSITIONS, VALUES) * MEMORY_MASK[:, :, None]
    shape = {"values": values.shape, "mask": MEMORY_MASK.shape, "state": {"h_0": (BATCH, VALUES)}}
    randomised(decoder, (BATCH, STEPS, DEPTH), shape)
    return decoder, {"values": values, "mask": MEMORY_MASK, "state": {"h_0": values[:, 0]}}


@pytest.mark.parametrize(
    "choices",
    [{}, {"attention": None}, {"input_feeding": True}, {"style": "bahdanau"}, {"style": "gnmt", "num_layers": 2}],
    ids=str,
)
def test_a_decoder_drops_its_outputs(choices: dict[str, Any]) -> None:
    decoder, encoded = decoder_of(dropout=ALL, **choices)
    words = normal(BATCH, STEPS, DEPTH)
    assert not numpy(decoder(words, encoded, training=True)).any()
    assert numpy(decoder(words, encoded)).all()


@pytest.mark.parametrize("kind", ["dropout", "word_dropout"])
def test_a_decoder_drops_its_words(kind: str) -> None:
    decoder, encoded = decoder_of(input_feeding=True, **{kind: ALL})
    words = [normal(BATCH, STEPS, DEPTH, seed=seed) for seed in (1, 2)]
    for training in (True, False):
        one, other = (
            numpy(decoder(each, encoded, return_attention_scores=True, training=training)[1]) for each in words
        )
        assert np.array_equal(one, other) == training


def test_outputs_of_the_layer_that_attends_are_dropped_once() -> None:
    """Layers above of zeros, with a residual connection: the outputs are those of the bottom layer, half of them."""
    units = 401
    decoder = Decoder(
        "lstm", units, 2, attention={"score": "general"}, style="gnmt", residual=True, dropout=0.5, name="decoder"
    )
    values = normal(BATCH, POSITIONS, VALUES)
    encoded = {"values": values, "mask": np.ones((BATCH, POSITIONS), bool), "state": {"h_0": values[:, 0]}}
    words = normal(BATCH, STEPS, DEPTH)
    decoder(words, encoded)
    for weight in [*decoder.upper.weights, *decoder.bridge.weights]:
        weight.assign(np.zeros(weight.shape))
    dropped = numpy(decoder(words, encoded, training=True)) == 0.0
    # 2,406 draws: five standard deviations of their mean are 0.051; twice dropped, 0.75 would be.
    assert dropped.mean() == pytest.approx(0.5, abs=0.051)


@pytest.mark.parametrize("stacked", [False, True])
def test_attention_after_the_recurrence_asks_with_what_is_left(stacked: bool) -> None:
    """A query of zeros finds all real positions alike."""
    cell = RecurrentStack("gru", UNITS) if stacked else keras.layers.GRUCell(UNITS)
    rnn = AttentionRNN(AttentionCell(cell, LuongAttention(), input_feeding=False), dropout=ALL)
    inputs, memory = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, VALUES)
    outputs, weights = rnn(inputs, memory, MEMORY_MASK, return_attention_scores=True, training=True)
    uniform = MEMORY_MASK / MEMORY_MASK.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(numpy(weights), np.broadcast_to(uniform[:, None], weights.shape), rtol=1e-6)  # float32
    assert not numpy(outputs).any()


@pytest.mark.parametrize("feeding", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: LuongAttention(dropout=ALL),
        lambda: LuongAttention(dropout=ALL, window="local_m", half_width=1),
        lambda: BahdanauAttention(dropout=ALL, use_coverage=True),
        lambda: MultiHeadLuongAttention(3, 2, dropout=ALL),
    ],
    ids=["general", "window", "coverage", "heads"],
)
def test_contexts_are_zero_without_weights(make: Any, feeding: bool) -> None:
    """Over all steps, and in a single step."""
    cell = AttentionCell(keras.layers.GRUCell(UNITS), make(), input_feeding=feeding)
    rnn = AttentionRNN(cell, return_sequences=True)
    inputs, values = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, VALUES)
    contexts, weights = rnn(inputs, values, MEMORY_MASK, return_attention_scores=True, training=True)
    assert not numpy(contexts).any()
    assert numpy(weights).any()
    memory = cell.prepare_memory(values, MEMORY_MASK)
    state = cell.initial_state(memory)
    assert not numpy(cell(inputs[:, 0], state, memory, training=True)[0]).any()
    assert numpy(cell(inputs[:, 0], state, memory)[0]).all()


@pytest.mark.parametrize("residual", [False, True])
def test_layers_above_attention_read_the_context_alone(residual: bool) -> None:
    layer = UpperLayers("lstm", UNITS, 2, dropout=ALL, residual=residual)
    hidden, contexts = normal(BATCH, STEPS, UNITS), normal(BATCH, STEPS, VALUES, seed=6)
    randomised(layer, hidden.shape, contexts.shape)
    state = {name: normal(BATCH, UNITS, seed=len(name) + place) for place, name in enumerate(layer.state_names)}
    rows = np.concatenate([np.zeros_like(hidden), contexts], axis=-1)
    expected = lstm(rows, layer.layers[0].layers[0][0], state["h_1"], state["c_1"]) + (hidden if residual else 0.0)
    np.testing.assert_allclose(numpy(layer(hidden, contexts, state, training=True)), expected, **FLOAT32)


@pytest.mark.parametrize("reads_memory", [False, True])
def test_a_block_without_recurrence_drops_what_each_part_adds(reads_memory: bool) -> None:
    block = AttentionBlock(6, 13, {"num_heads": 3}, reads_memory, dropout=ALL)
    x, values = normal(BATCH, STEPS, 6), normal(BATCH, POSITIONS, 6)
    randomised(block, x.shape)
    memory = (values, block.project_memory(values), MEMORY_MASK) if reads_memory else None
    np.testing.assert_array_equal(numpy(block(x, memory=memory, training=True)[0]), x)
    assert (numpy(block(x, memory=memory)[0]) != x).all()


def test_a_block_without_recurrence_drops_its_hidden_layer() -> None:
    """One hidden number: where it is dropped, all that it would add to a position is."""
    steps, units = 401, 12
    block = AttentionBlock(units, 1, {"num_heads": 3}, dropout=0.5)
    x = normal(1, steps, units)
    block.build(x.shape)
    block.self_attention.output_kernel.assign(np.zeros((units, units)))
    block.hidden.bias.assign([9.0])  # positive, so that relu lets it pass
    added = numpy(block(x, training=True)[0]) != x
    # 401 draws: five standard deviations of their mean are 0.125. All 12 numbers are dropped once in 4,096 otherwise.
    assert added.any(axis=-1).mean() == pytest.approx(0.5, abs=0.125)


@pytest.mark.parametrize("kind", ["dropout", "word_dropout"])
def test_without_recurrence_and_words_there_are_positions(kind: str) -> None:
    words = [normal(BATCH, POSITIONS, DEPTH, seed=seed) for seed in (1, 2)]
    encoder = AttentionEncoder(6, 1, {"num_heads": 2}, **{kind: ALL})
    found = [numpy(encoder(embedded, MEMORY_MASK, training=True)["values"]) for embedded in words]
    np.testing.assert_array_equal(*found)
    if kind == "dropout":  # blocks add nothing: a normalisation of Vaswani's sines and cosines, with Keras' epsilon
        angles = np.arange(POSITIONS)[:, None] / 10000.0 ** (np.arange(3) / 3)
        rows = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
        rows = rows - rows.mean(axis=-1, keepdims=True)
        rows = rows / np.sqrt((rows**2).mean(axis=-1, keepdims=True) + 1e-3)
        np.testing.assert_allclose(found[0], rows * MEMORY_MASK[:, :, None], **FLOAT32)
    decoder = AttentionDecoder(6, 1, {"num_heads": 2}, **{kind: ALL})
    encoded = {"values": normal(BATCH, POSITIONS, 6), "mask": MEMORY_MASK, "state": {}}
    found = [numpy(decoder(embedded, encoded, training=True)) for embedded in words]
    np.testing.assert_array_equal(*found)
    assert found[0].any() == (kind == "word_dropout")
