"""Input feeding with a gradient of its own: numbers of a NumPy loop, numeric gradients, and who takes that path."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention.attention.luong import LuongAttention
from keras_attention.recurrent import attention_rnn
from keras_attention.recurrent.attention_cell import AttentionCell
from keras_attention.recurrent.attention_rnn import AttentionRNN
from keras_attention.recurrent.fed_lstm_kernel import is_fed_lstm, run_fed_lstm
from keras_attention.recurrent.stack import RecurrentStack
from tests.recurrent.test_lstm import draw, numpy_lstm, sigmoid
from tests.support.gradients import gradients

BATCH, STEPS, SOURCE, DEPTH, UNITS, VALUES, FED = 3, 5, 7, 2, 4, 6, 3
MASK = np.arange(SOURCE) < np.asarray([[7], [1], [4]])
NAMES = ("inputs", "h", "c", "fed", "keys", "values", "kernel", "recurrent", "bias", "combining")
SHAPES = [
    (BATCH, STEPS, DEPTH),
    (BATCH, UNITS),
    (BATCH, UNITS),
    (BATCH, FED),
    (BATCH, SOURCE, UNITS),
    (BATCH, SOURCE, VALUES),
    (DEPTH + FED, 4 * UNITS),
    (UNITS, 4 * UNITS),
    (4 * UNITS,),
    (VALUES + UNITS, FED),
]
TENSORS = [draw(*shape, seed=number) for number, shape in enumerate(SHAPES)]
FACTORS = np.where(draw(BATCH, STEPS, FED, seed=11) > -0.5, 1.25, 0.0).astype("float32")
"""Of a dropout that keeps four fifths."""


def numpy_fed_lstm(x, h, c, fed, keys, values, kernel, recurrent, bias, combining):
    """One step after the other, in float64."""
    tensors = (x, h, c, fed, keys, values, kernel, recurrent, bias, combining)
    x, h, c, fed, keys, values, kernel, recurrent, bias, combining = (np.asarray(one, "float64") for one in tensors)
    vectors, alignments = [], []
    for step in range(x.shape[1]):
        z = np.concatenate([x[:, step], fed], 1) @ kernel + h @ recurrent + bias
        i, f, g, o = np.split(z, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        weights = np.exp(np.einsum("bsu,bu->bs", keys, h)) * MASK
        weights = weights / weights.sum(1, keepdims=True)
        context = np.einsum("bs,bsd->bd", weights, values)
        fed = np.tanh(np.concatenate([context, h], 1) @ combining) * FACTORS[:, step]
        vectors.append(fed)
        alignments.append(weights)
    return np.stack(vectors, 1), np.stack(alignments, 1), h, c, fed


def run(*tensors: Any, products: tuple[str, str] = ("float32", "float32")) -> Any:
    return run_fed_lstm(*tensors, mask=MASK.astype("float32"), factors=FACTORS, products=products)


def test_the_numbers_are_those_of_the_formulas() -> None:
    for got, expected in zip(run(*TENSORS), numpy_fed_lstm(*TENSORS), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), expected, rtol=1e-5, atol=1e-6)  # float32, 5 steps


@pytest.mark.parametrize("parts", [(1, 0, 0), (0, 1, 0), (0.3, 0.5, 1)], ids=["vectors", "alignments", "all"])
def test_the_gradients_are_numeric_ones(parts: tuple[float, float, float]) -> None:
    to_vectors, to_alignments = draw(BATCH, STEPS, FED, seed=20), draw(BATCH, STEPS, SOURCE, seed=21)

    def loss(*tensors: Any, sums: Any = np.sum, function: Any = numpy_fed_lstm) -> Any:
        vectors, alignments, h, c, fed = function(*tensors)
        factors = [to_vectors, to_alignments]
        if sums is ops.sum:
            factors = [ops.convert_to_tensor(factor) for factor in factors]
        total = parts[0] * sums(vectors * factors[0]) + parts[1] * sums(alignments * factors[1])
        return total + parts[2] * (sums(h * h) - 2 * sums(c * c * c) + sums(fed))

    found = gradients(lambda *tensors: loss(*tensors, sums=ops.sum, function=run), TENSORS)
    for place, gradient in enumerate(found):
        assert gradient.shape == SHAPES[place]
        direction = draw(*SHAPES[place], seed=30 + place).astype("float64")
        sides = []
        for sign in (1, -1):
            values = [np.asarray(one, "float64") for one in TENSORS]
            values[place] = values[place] + sign * 1e-5 * direction
            sides.append(loss(*values))
        slope = (sides[0] - sides[1]) / 2e-5
        # A float64 central difference is exact to about 1e-9; the gradient is float32.
        assert np.sum(gradient * direction) == pytest.approx(slope, rel=2e-4, abs=2e-4), NAMES[place]


def test_bfloat16_products_are_close_and_not_the_same() -> None:
    exact = ops.convert_to_numpy(run(*TENSORS)[0])
    for products in (("bfloat16", "float32"), ("float32", "bfloat16")):
        difference = np.abs(exact - ops.convert_to_numpy(run(*TENSORS, products=products)[0])).max()
        assert 0 < difference < 0.1  # 8 bits of mantissa, gates of size 1, five steps


def make(stack: Any = None, attention: Any = None, dropout: float = 0.0, **changes: Any) -> AttentionRNN:
    stack = stack or RecurrentStack("lstm", UNITS, return_cell_state=True)
    attention = attention or LuongAttention("general")
    cell = AttentionCell(stack, attention, **{"attentional_size": FED, **changes})
    return AttentionRNN(cell, return_sequences=True, return_state=True, dropout=dropout)


class OwnCell(AttentionCell):
    """May compute something else."""


def make_own() -> AttentionRNN:
    stack = RecurrentStack("lstm", UNITS, return_cell_state=True)
    return AttentionRNN(OwnCell(stack, LuongAttention("general"), attentional_size=FED))


@pytest.mark.parametrize(
    ("layer", "taken"),
    [
        (make(), True),
        (make(attention=LuongAttention("dot")), True),
        (make(attention=LuongAttention("scaled_dot", use_scale=True)), True),
        (make(attention=LuongAttention("cosine")), False),
        (make(attention=LuongAttention("additive")), False),
        (make(attention=LuongAttention(alignment="sparsemax")), False),
        (make(attention=LuongAttention(window="local_m", half_width=2)), False),
        (make(attention=LuongAttention(dropout=0.5)), False),
        (make(attention=[LuongAttention(), LuongAttention("dot")]), False),
        (make(input_feeding=lambda inputs, fed: inputs), False),
        (make(input_feeding=False), False),
        (make(style="bahdanau"), False),
        (make(attentional_size=None), False),
        (make(activation="relu"), False),
        (make(RecurrentStack("gru", UNITS)), False),
        (make(RecurrentStack("lstm", UNITS, 2, return_cell_state=True)), False),
        (make(keras.layers.LSTMCell(UNITS)), False),
        (make(attention=LuongAttention(dtype="float16")), False),
        (make_own(), False),
    ],
)
def test_what_it_computes_is_known_by_its_parts(layer: AttentionRNN, taken: bool) -> None:
    assert is_fed_lstm(layer.cell) == taken


@pytest.mark.parametrize("attention", [("general", {}), ("dot", {}), ("scaled_dot", {"use_scale": True})], ids=str)
def test_training_takes_it_and_learns_what_the_loop_learns(attention: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, alignments, state, and the gradient of every weight and input, against the step-by-step loop."""
    score, options = attention
    depth = VALUES if score == "general" else UNITS
    layer = make(attention=LuongAttention(score, **options))
    inputs, memory = draw(BATCH, STEPS, DEPTH), draw(BATCH, SOURCE, depth)
    state = {"h_0": draw(BATCH, UNITS), "c_0": draw(BATCH, UNITS, seed=1), "attentional": draw(BATCH, FED)}
    layer.build(inputs.shape, memory.shape)
    for number, weight in enumerate(layer.trainable_weights):
        weight.assign(draw(*weight.shape, seed=40 + number))
    upstream = draw(BATCH, STEPS, FED, seed=50)

    def answers(own: bool, products: str = "float32") -> tuple[list[np.ndarray], list[np.ndarray]]:
        monkeypatch.setattr(attention_rnn, "best_by_own_gradient", lambda dtype: own)
        layer.cell.products = layer.cell.cell.products = products

        def results(inputs: Any, memory: Any, *weights: Any) -> Any:
            values = list(weights) or [weight.value for weight in layer.trainable_weights]
            return layer.stateless_call(
                values,
                [weight.value for weight in layer.non_trainable_variables],
                inputs,
                memory,
                memory_mask=MASK,
                initial_state={name: ops.convert_to_tensor(one) for name, one in state.items()},
                return_attention_scores=True,
                training=True,
            )[0]

        def loss(*tensors: Any) -> Any:
            outputs, alignments, after = results(*tensors)
            return (
                ops.sum(outputs * ops.convert_to_tensor(upstream))
                + ops.sum(ops.square(alignments))
                + ops.sum(after["c_0"])
            )

        outputs, alignments, after = results(inputs, memory)
        plain = [outputs, alignments, *(after[name] for name in sorted(after))]
        weights = [ops.convert_to_numpy(weight) for weight in layer.trainable_weights]
        return [ops.convert_to_numpy(one) for one in plain], gradients(loss, [inputs, memory, *weights])

    ours, loop = answers(True), answers(False)
    for got, expected in zip([*ours[0], *ours[1]], [*loop[0], *loop[1]], strict=True):
        # The same float32 sums in another order; gradients are up to some tens.
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    assert np.abs(answers(True, "bfloat16")[0][0] - ours[0][0]).max() > 1e-4  # above what float32 rounds


def fed_layer(monkeypatch: pytest.MonkeyPatch, own: bool, dropout: float = 0.0) -> AttentionRNN:
    monkeypatch.setattr(attention_rnn, "best_by_own_gradient", lambda dtype: own)
    layer = make(dropout=dropout)
    layer.build((BATCH, STEPS, DEPTH), (BATCH, SOURCE, VALUES))
    for number, weight in enumerate(layer.trainable_weights):
        weight.assign(draw(*weight.shape, seed=60 + number))
    return layer


@pytest.mark.parametrize("own", [True, False])
def test_dropout_takes_the_outputs_and_what_is_fed_back(own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a share next to 1 the recurrence reads its inputs alone."""
    layer = fed_layer(monkeypatch, own, dropout=1.0 - 1e-6)
    inputs, memory = draw(BATCH, STEPS, DEPTH), draw(BATCH, SOURCE, VALUES, seed=1)
    outputs, state = layer(inputs, memory, MASK, training=True)
    assert not ops.convert_to_numpy(outputs).any()
    assert not ops.convert_to_numpy(state["attentional"]).any()
    lstm = layer.cell.cell.layers[0][0].cell
    kernel, recurrent, bias = (ops.convert_to_numpy(one) for one in (lstm.kernel, lstm.recurrent_kernel, lstm.bias))
    zeros = np.zeros((BATCH, UNITS))
    _, h, c = numpy_lstm(inputs, zeros, zeros, kernel[:DEPTH], recurrent, bias)
    for name, expected in (("h_0", h), ("c_0", c)):
        np.testing.assert_allclose(ops.convert_to_numpy(state[name]), expected, rtol=1e-5, atol=1e-6)  # float32


def test_a_masked_step_is_left_out_in_training_too(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = fed_layer(monkeypatch, True)
    inputs, memory = draw(BATCH, STEPS, DEPTH), draw(BATCH, SOURCE, VALUES, seed=1)
    mask = np.ones((BATCH, STEPS), bool)
    mask[:, [1, 4]] = False
    outputs, state = layer(inputs, memory, MASK, mask=mask, training=True)
    expected, last = layer(inputs[:, [0, 2, 3]], memory, MASK, training=True)
    found = ops.convert_to_numpy(outputs)
    assert not found[~mask].any()
    # The loop of steps against the one with its own gradient: float32 sums in another order.
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found[:, [0, 2, 3]], ops.convert_to_numpy(expected), **close)
    for name, tensor in last.items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(state[name]), ops.convert_to_numpy(tensor), err_msg=name, **close
        )
