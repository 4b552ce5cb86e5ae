"""The LSTM with layer normalisation against NumPy, residual stacks, and variational dropout."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import AttentionCell, AttentionRNN, Encoder, LuongAttention, RecurrentStack
from keras_attention.recurrent.layer_norm_lstm import LayerNormLSTMCell
from keras_attention.recurrent.stack import sequence_dropout
from tests.support.reference import sigmoid

FLOAT32 = {"rtol": 1e-5, "atol": 2e-6}  # float32 sums, divided by a deviation: 5 steps, 2e-7 seen


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def normalise(z):
    return (z - z.mean()) / np.sqrt(z.var() + 1e-5)


def test_the_cell_is_that_of_the_paper():
    cell = LayerNormLSTMCell(5)
    cell.build((None, 3))
    rng = np.random.default_rng(2)
    np.testing.assert_array_equal(numpy(cell.bias), [0] * 5 + [1] * 5 + [0] * 10)
    for weight in cell.weights:
        weight.assign(rng.normal(size=weight.shape))
    kernel, recurrent, bias, input_gain, recurrent_gain, cell_gain, cell_shift = (
        numpy(getattr(cell, name)).astype("float64")
        for name in ("kernel", "recurrent_kernel", "bias", "input_gain", "recurrent_gain", "cell_gain", "cell_shift")
    )
    inputs = rng.normal(size=(2, 7, 3)).astype("float32")
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True)
    outputs, h, c = (numpy(tensor) for tensor in layer(inputs))
    for b in range(2):
        hidden, memory = np.zeros(5), np.zeros(5)
        for t in range(7):
            gates = (
                normalise(inputs[b, t] @ kernel) * input_gain + normalise(hidden @ recurrent) * recurrent_gain + bias
            )
            i, f, g, o = np.split(gates, 4)
            memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(normalise(memory) * cell_gain + cell_shift)
            np.testing.assert_allclose(outputs[b, t], hidden, **FLOAT32)
        np.testing.assert_allclose(h[b], hidden, **FLOAT32)
        np.testing.assert_allclose(c[b], memory, **FLOAT32)


def test_sums_whose_squares_pass_the_range_of_float16():
    """Sums of 1000 and -1000 become 1 and -1."""
    cell = LayerNormLSTMCell(2, dtype="mixed_float16")
    cell.build((None, 1))
    cell.kernel.assign([[1000.0, -1000.0] * 4])
    cell.bias.assign(np.zeros(8))
    hidden, memory = (
        numpy(state)[0] for state in cell(np.ones((1, 1), "float16"), [np.zeros((1, 2), "float16")] * 2)[1]
    )
    expected = sigmoid(np.array([1.0, -1.0])) * np.tanh([1.0, -1.0])
    outputs = sigmoid(np.array([1.0, -1.0])) * np.tanh(normalise(expected))
    np.testing.assert_allclose(memory, expected, rtol=3e-3)  # float16 keeps 11 bits
    np.testing.assert_allclose(hidden, outputs, rtol=3e-3)  # as above


def test_small_sums_are_normalised_with_the_epsilon_of_the_paper():
    """A variance of 1e-5 counts as twice that: sums of +-sqrt(1e-5) become +-sqrt(1 / 2)."""
    cell = LayerNormLSTMCell(2)
    cell.build((None, 1))
    cell.kernel.assign(np.sqrt(1e-5) * np.array([[1.0, -1.0] * 4]))
    cell.bias.assign(np.zeros(8))
    zeros = [np.zeros((1, 2), "float32")] * 2
    hidden, memory = (numpy(state)[0] for state in cell(np.ones((1, 1), "float32"), zeros)[1])
    gates = np.sqrt(0.5) * np.array([1.0, -1.0])
    expected = sigmoid(gates) * np.tanh(gates)
    np.testing.assert_allclose(memory, expected, rtol=1e-5)  # float32
    np.testing.assert_allclose(hidden, sigmoid(gates) * np.tanh(normalise(expected)), rtol=1e-5)  # float32


@pytest.mark.parametrize("cell", ["lstm", "gru", "layer_norm_lstm"])
def test_a_residual_stack_adds_the_inputs_of_its_upper_layers(cell):
    inputs, lengths = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32"), np.array([5, 3], "int32")
    stack = RecurrentStack(cell, 4, 3, bidirectional=True, residual=True)
    outputs, state = stack(inputs, lengths)
    below = inputs
    for index in range(3):
        single = RecurrentStack(cell, 4, bidirectional=True)
        single.build((None, None, below.shape[-1]))
        for mine, other in zip(single.layers[0], stack.layers[index], strict=True):
            mine.set_weights(other.get_weights())
        above, final = single(below, lengths)
        np.testing.assert_allclose(numpy(state[f"h_{index}"]), numpy(final["h_0"]), **FLOAT32)
        below = numpy(above) + (below if index else 0.0)
    real = np.arange(5)[None, :, None] < lengths[:, None, None]
    np.testing.assert_allclose(numpy(outputs) * real, below * real, **FLOAT32)


def test_variational_dropout_takes_the_same_from_all_steps():
    ones = np.ones((3, 7, 50), "float32")
    for variational in (True, False):
        dropped = numpy(sequence_dropout(0.5, variational, "float32")(ones, training=True))
        same = (dropped == dropped[:, :1]).all()
        assert same == variational
        assert 0.3 < (dropped == 0).mean() < 0.7  # of 150 numbers for all steps: five standard deviations
        assert (dropped[0] != dropped[1]).any()


def test_layers_keep_these_choices():
    encoder = Encoder("layer_norm_lstm", 4, 2, residual=True, variational_dropout=True, dropout=0.1)
    again = Encoder.from_config(encoder.get_config())
    assert (again.stack.residual, again.stack.variational_dropout) == (True, True)
    assert again.get_config() == encoder.get_config()
    rnn = AttentionRNN(AttentionCell(keras.layers.LSTMCell(4), LuongAttention()), dropout=0.1, variational_dropout=True)
    assert AttentionRNN.from_config(rnn.get_config()).variational_dropout
