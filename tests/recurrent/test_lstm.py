"""The LSTM with a gradient of its own: numbers of a NumPy loop, gradients of Keras' layer, rounding of products."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention.attention.luong import LuongAttention
from keras_attention.recurrent import stack as recurrent
from keras_attention.recurrent.attention_cell import AttentionCell
from keras_attention.recurrent.lstm_kernel import product, run_lstm, run_lstms
from keras_attention.recurrent.stack import RecurrentStack
from tests.support.gradients import gradients

BATCH, STEPS, DEPTH, UNITS = 3, 5, 4, 6


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


SHAPES = [(BATCH, STEPS, DEPTH), (BATCH, UNITS), (BATCH, UNITS), (DEPTH, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)]


@pytest.fixture
def tensors() -> list[np.ndarray]:
    return [draw(*shape, seed=index) for index, shape in enumerate(SHAPES)]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x, h, c, kernel, recurrent, bias):
    """One step after the other, in float64."""
    x, h, c, kernel, recurrent, bias = (np.asarray(value, "float64") for value in (x, h, c, kernel, recurrent, bias))
    outputs = []
    for step in range(x.shape[1]):
        i, f, g, o = np.split(x[:, step] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1), h, c


def test_the_numbers_are_those_of_the_formulas(tensors) -> None:
    for got, expected in zip(run_lstm(*tensors), numpy_lstm(*tensors), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(got), expected, rtol=1e-5, atol=1e-6)  # float32, 5 steps


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.3, 1.0, -2.0)], ids=["outputs", "outputs and last states"])
def test_the_gradients_are_numeric_ones(tensors, weights) -> None:
    upstream = draw(BATCH, STEPS, UNITS, seed=9)

    def loss(*values) -> float:
        outputs, h, c = numpy_lstm(*values)
        return float(
            weights[0] * np.sum(outputs * upstream) + weights[1] * np.sum(h**2) + weights[2] * np.sum(np.sin(c))
        )

    def loss_of_tensors(*values):
        outputs, h, c = run_lstm(*values)
        total = weights[0] * ops.sum(outputs * ops.convert_to_tensor(upstream)) + weights[1] * ops.sum(ops.square(h))
        return total + weights[2] * ops.sum(ops.sin(c))

    found = gradients(loss_of_tensors, tensors)
    for place, gradient in enumerate(found):
        assert gradient.shape == tensors[place].shape
        direction = draw(*tensors[place].shape, seed=20 + place).astype("float64")
        sides = []
        for sign in (1, -1):
            values = [np.asarray(value, "float64") for value in tensors]
            values[place] = values[place] + sign * 1e-5 * direction
            sides.append(loss(*values))
        # A float64 central difference is exact to about 1e-9; the gradient is float32.
        assert np.sum(gradient * direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=2e-4, abs=1e-4)


def test_bfloat16_products_are_close_and_not_the_same(tensors) -> None:
    exact, rounded = run_lstm(*tensors)[0], run_lstm(*tensors, "bfloat16")[0]
    difference = np.abs(ops.convert_to_numpy(exact) - ops.convert_to_numpy(rounded)).max()
    assert 0 < difference < 0.1  # 8 bits of mantissa, gates of size 1, five steps
    assert keras.backend.standardize_dtype(rounded.dtype) == "float32"


def test_a_product_rounds_its_operands() -> None:
    one = np.asarray([[1.0 + 2.0**-12]], "float32")
    assert float(ops.convert_to_numpy(product(one, one))[0, 0]) > 1
    assert float(ops.convert_to_numpy(product(one, one, "bfloat16"))[0, 0]) == 1


def test_an_unknown_dtype_of_products_is_refused(tensors) -> None:
    with pytest.raises(ValueError, match=r"Expected: products in .*bfloat16.*Received: products='int8'"):
        run_lstm(*tensors, "int8")


def test_several_in_one_loop_are_each_one_alone() -> None:
    """Outputs, states and gradients; a float32 product of a batch of matrices may add up in another order."""
    groups = [[draw(*shape, seed=10 * group + place) for place, shape in enumerate(SHAPES)] for group in range(3)]
    upstream = draw(3, BATCH, STEPS, UNITS, seed=8)

    def total(run: Callable[[list[list[Any]]], list[Any]]) -> Callable[..., Any]:
        def loss(*tensors: Any) -> Any:
            found = run([list(tensors[6 * group : 6 * group + 6]) for group in range(3)])
            parts = [
                ops.sum(outputs * ops.convert_to_tensor(up)) + ops.sum(h * c)
                for (outputs, h, c), up in zip(found, upstream, strict=True)
            ]
            return parts[0] + 2.0 * parts[1] - parts[2]

        return loss

    together = total(
        lambda all_: run_lstms([x for x, *_ in all_], [(h, c) for _, h, c, *_ in all_], [w[3:] for w in all_])
    )
    alone = total(lambda all_: [run_lstm(*one) for one in all_])
    flat = [tensor for group in groups for tensor in group]
    tensors = [ops.convert_to_tensor(array) for array in flat]
    assert float(together(*tensors)) == pytest.approx(float(alone(*tensors)), rel=2e-6)  # float32 sums in another order
    for got, expected in zip(gradients(together, flat), gradients(alone, flat), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)  # likewise; gradients are up to 14


@pytest.mark.parametrize("given", [False, True], ids=["zeros", "initial state"])
def test_training_takes_it_and_gives_what_inference_gives(given, monkeypatch) -> None:
    monkeypatch.setattr(recurrent, "best_by_own_gradient", lambda dtype: True)  # as on the devices where it is
    stack = RecurrentStack("lstm", UNITS, 2, bidirectional=not given)
    x, lengths = draw(BATCH, STEPS, DEPTH), np.asarray([5, 2, 4], "int32")
    state = None
    if given:
        state = {name: draw(BATCH, UNITS, seed=index) for index, name in enumerate(stack.state_names)}

    def run(training: bool) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        outputs, final = stack(x, lengths, initial_state=state, training=training)
        return ops.convert_to_numpy(outputs), {name: ops.convert_to_numpy(tensor) for name, tensor in final.items()}

    results = [run(training) for training in (True, False)]
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-6)  # float32 sums in another order
    for name in results[0][1]:
        np.testing.assert_allclose(results[0][1][name], results[1][1][name], rtol=1e-5, atol=1e-6)  # likewise
    stack.products = "bfloat16"
    rounded = run(True)[0]
    assert np.abs(rounded - results[0][0]).max() > 0, "the training pass goes through run_lstm"
    np.testing.assert_array_equal(run(False)[0], results[1][0])


def test_attentional_vectors_round_their_operands_in_training_alone() -> None:
    cell = AttentionCell(keras.layers.LSTMCell(UNITS), LuongAttention("general"), attentional_size=7)
    inputs, values = draw(BATCH, DEPTH), draw(BATCH, STEPS, 5)
    cell.build(inputs.shape, values.shape)
    memory = cell.prepare_memory(values)

    def vectors(training: bool) -> np.ndarray:
        return ops.convert_to_numpy(cell(inputs, cell.initial_state(memory), memory, training=training)[0])

    plain = vectors(True)
    cell.products = "bfloat16"
    np.testing.assert_array_equal(vectors(False), plain)
    # Eleven products of numbers near 1 and their sum, each rounded to 8 bits.
    np.testing.assert_allclose(vectors(True), plain, atol=0.01)
    assert np.abs(vectors(True) - plain).max() > 1e-5  # above what float32 rounds


def test_tensorflow_packs_and_splits_nothing_that_it_need_not(tensors) -> None:
    """One split in the forward loop, of z into gates; one concatenation in the backward loop, of their gradients."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("what a loop is made of is TensorFlow's graph")
    import tensorflow as tf

    def slopes(*values: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(values)
            total = ops.sum(run_lstm(*values)[0])
        return tape.gradient(total, values)

    specs = [tf.TensorSpec((None, None, DEPTH)), *[tf.TensorSpec((None, UNITS))] * 2, *map(tf.TensorSpec, SHAPES[3:])]
    library = tf.function(slopes).get_concrete_function(*specs).graph.as_graph_def().library
    bodies = [function for function in library.function if re.search("while.*_body", function.signature.name)]
    kinds = [[node.op for node in body.node_def] for body in bodies]
    assert sorted((found.count("Split"), found.count("ConcatV2"), found.count("MatMul")) for found in kinds) == [
        (0, 1, 1),
        (1, 0, 1),
    ]


def test_pytorch_is_not_asked_for_devices_that_keras_does_not_know_there(monkeypatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.delattr(keras.distribution, "list_devices")
    assert not recurrent.best_by_own_gradient("float32")
