"""Masks that ride on tensors, as from `Embedding(mask_zero=True)`: what layers make of them, and pass on."""

import keras
import numpy as np
import pytest

from keras_attention import (
    AttentionCell,
    AttentionDecoder,
    AttentionEncoder,
    AttentionRNN,
    Decoder,
    Encoder,
    LuongAttention,
    MultiHeadLuongAttention,
    PointerGenerator,
    RecurrentStack,
)
from tests.support.cell_reference import normal, numpy

# A row without padding and one with two positions of it; the depth is that of every layer's output below.
WORDS, DEPTH = np.array([[5, 3, 4, 8], [7, 2, 0, 0]], "int32"), 6
MASK = WORDS != 0
# Keras' layers run with a mask and without it, in float32 both.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-7}
MEMORY = normal(2, 5, DEPTH, seed=4)
ENCODED = {"values": MEMORY, "mask": np.ones((2, 5), bool), "state": {"h_0": MEMORY[:, 0]}}


def rnn(**kwargs):
    cell = AttentionCell(keras.layers.GRUCell(DEPTH), LuongAttention("general"))
    return AttentionRNN(cell, return_sequences=True, **kwargs)


def point(embedded):
    logits = keras.layers.Dense(DEPTH)(embedded)
    alignment = np.full((2, 4, 3), 1 / 3, "float32")
    return PointerGenerator(2)(logits, embedded, alignment, np.array([[1, 2, 3]] * 2, "int32"))


LAYERS = {
    "keras.layers.LSTM": lambda x: keras.layers.LSTM(DEPTH, return_sequences=True)(x),
    "AttentionRNN": lambda x: rnn()(x, MEMORY),
    "AttentionRNN, results": lambda x: rnn(return_state=True)(x, MEMORY, return_attention_scores=True)[0],
    "LuongAttention": lambda x: LuongAttention("dot")(x, MEMORY),
    "MultiHeadLuongAttention": lambda x: MultiHeadLuongAttention(2)(x, MEMORY),
    "RecurrentStack": lambda x: RecurrentStack("lstm", DEPTH)(x)[0],
    "RecurrentStack, both ways": lambda x: RecurrentStack("gru", 3, bidirectional=True)(x)[0],
    "Encoder": lambda x: Encoder("gru", 3)(x)["values"],
    "Decoder": lambda x: Decoder("gru", DEPTH, attention={"score": "dot"})(x, ENCODED),
    "Decoder, plain": lambda x: Decoder("gru", DEPTH, bridge_input="final")(x, ENCODED),
    "AttentionEncoder": lambda x: AttentionEncoder(DEPTH, 1, {"num_heads": 2})(x)["values"],
    "AttentionDecoder": lambda x: AttentionDecoder(DEPTH, 1, {"num_heads": 2})(x, ENCODED),
    "PointerGenerator": point,
}


@pytest.mark.filterwarnings("error:.*destroy the mask")
@pytest.mark.parametrize("name", LAYERS)
def test_a_loss_counts_real_positions_alone(name):
    """Keras weighs the loss by the mask that rides on the outputs: it is the mean over the real positions."""
    embedded = keras.layers.Embedding(9, DEPTH, mask_zero=True)(WORDS)
    outputs = LAYERS[name](embedded)
    targets = np.broadcast_to(np.arange(4.0)[None, :, None], outputs.shape).astype("float32")
    loss = keras.losses.MeanSquaredError()(targets, outputs)
    squares = np.square(numpy(outputs) - targets).mean(axis=-1)
    assert abs(squares.mean() - squares[MASK].mean()) > 1e-3 * squares.mean()  # the two can be told apart
    np.testing.assert_allclose(numpy(loss), squares[MASK].mean(), rtol=1e-5)  # a float32 mean of 36 numbers


def test_a_masked_model_is_evaluated_like_an_lstm():
    words = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(9, DEPTH, mask_zero=True)(words)
    model = keras.Model(words, rnn()(embedded, keras.ops.tile(embedded[:, :1], (1, 3, 1))))
    model.compile(loss="mse", run_eagerly=True)
    outputs = numpy(model(WORDS))
    targets = np.ones(outputs.shape, "float32")
    expected = np.square(outputs - targets).mean(axis=-1)[MASK].mean()
    found = model.evaluate(WORDS, targets, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # a float32 mean of 36 numbers


def test_the_last_output_has_no_mask():
    embedded = keras.layers.Embedding(9, DEPTH, mask_zero=True)(WORDS)
    layer = rnn()
    layer.return_sequences = False
    outputs = layer(embedded, MEMORY)
    loss = keras.losses.MeanSquaredError()(np.zeros(outputs.shape), outputs)
    np.testing.assert_allclose(numpy(loss), np.square(numpy(outputs)).mean(), rtol=1e-5)  # a float32 mean


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_mask_stands_for_lengths(bidirectional):
    stack = RecurrentStack("lstm", 3, bidirectional=bidirectional)
    embedded = keras.layers.Embedding(9, DEPTH, mask_zero=True)(WORDS)
    plain = numpy(embedded)
    expected, state = stack(plain, np.array([4, 2], "int32"))
    for found, last in (stack(embedded), stack(plain, mask=MASK)):
        np.testing.assert_allclose(numpy(found)[MASK], numpy(expected)[MASK], **FLOAT32)
        np.testing.assert_allclose(numpy(last["h_0"]), numpy(state["h_0"]), **FLOAT32)
    whole = stack(plain)[1]["h_0"]
    assert (numpy(state["h_0"])[1] != numpy(whole)[1]).any()
    if not bidirectional:
        zeros = {"h_0": np.zeros((2, 3), "float32"), "c_0": np.zeros((2, 3), "float32")}
        found = stack(embedded, initial_state=zeros)[1]["h_0"]
        np.testing.assert_allclose(numpy(found), numpy(state["h_0"]), **FLOAT32)


@pytest.mark.parametrize("make", [lambda: Encoder("lstm", 3), lambda: AttentionEncoder(DEPTH, 1, {"num_heads": 2})])
def test_an_encoder_finds_its_mask(make):
    embedded = keras.layers.Embedding(9, DEPTH, mask_zero=True)(WORDS)
    layer, plain = make(), numpy(embedded)
    expected = layer(plain, MASK)
    found = layer(embedded)
    np.testing.assert_array_equal(numpy(found["mask"]), MASK)
    np.testing.assert_allclose(numpy(found["values"]), numpy(expected["values"]), **FLOAT32)
    assert numpy(layer(plain)["mask"]).all()
