"""`run_steps`: both recurrences against a loop in NumPy, their gradients, lengths that the graph does not know."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention.loops import RECURRENCES, join, run_steps, split
from tests.support.gradients import gradient
from tests.support.mechanisms import numpy

BATCH, STEPS = 2, 5


def step(inputs, state):
    """Two outputs of different depths, and states of different shapes and types."""
    x, y = inputs
    total, count = state
    total = 0.5 * total + ops.expand_dims(x, 1)
    return [ops.tanh(total[:, 0]), y * ops.cast(ops.expand_dims(count, 1), "float32")], [total, count + 1]


def start():
    return [ops.ones((BATCH, 2, 3), dtype="float32"), ops.zeros((BATCH,), dtype="int32")]


def inputs(steps=STEPS):
    rng = np.random.default_rng(3)
    return [rng.normal(size=(BATCH, steps, depth)).astype("float32") for depth in (3, 7)]


def loop(x, y):
    total, outputs = np.ones((BATCH, 2, 3)), ([], [])
    for t in range(x.shape[1]):
        total = 0.5 * total + x[:, t, None]
        outputs[0].append(np.tanh(total[:, 0]))
        outputs[1].append(y[:, t] * t)
    return [np.stack(part, axis=1) for part in outputs], [total, np.full(BATCH, x.shape[1])]


def check(found, expected):
    for one, other in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        # float32 against float64, after at most 11 steps that each round once or twice
        np.testing.assert_allclose(ops.convert_to_numpy(one), other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_steps_are_a_loop(recurrence, steps):
    arrays = inputs(steps)
    tensors = [ops.convert_to_tensor(array) for array in arrays]
    check(run_steps(step, tensors, start(), [3, 7], recurrence), loop(*arrays))


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_a_length_and_depths_that_the_graph_does_not_know(recurrence):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow traces a graph of unknown lengths")
    import tensorflow as tf

    signature = [tf.TensorSpec([BATCH, None, 3], "float32"), tf.TensorSpec([BATCH, None, None], "float32")]

    @tf.function(input_signature=signature)
    def run(x, y):
        return run_steps(step, [x, y], start(), [3, ops.shape(y)[2]], recurrence)

    for steps in (1, 2, 11):
        arrays = inputs(steps)
        check(run(*arrays), loop(*arrays))


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_the_gradient_goes_through_every_step(recurrence):
    if recurrence == "loop" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no reverse-mode gradient of a while loop")
    x, y = inputs()

    def loss(x):
        (first, _), _ = run_steps(step, [x, ops.convert_to_tensor(y)], start(), [3, 7], recurrence)
        return ops.sum(first[:, -1])

    slopes = gradient(loss, x)
    last = loop(x.astype("float64"), y)[0][0][:, -1]
    expected = (1 - last**2)[:, None] * 0.5 ** np.arange(STEPS)[::-1, None]
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-6)  # a float32 tanh near 1 loses some digits


def test_join_and_split_are_inverse():
    tensors = [ops.convert_to_tensor(array) for array in inputs()]
    for one, other in zip(split(join(tensors), [3, 7]), tensors, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    assert join(tensors[:1]) is tensors[0]


def test_an_unknown_recurrence():
    with pytest.raises(ValueError, match=r"Expected: recurrence in \('layer', 'loop'\)\. Received: recurrence='scan'"):
        run_steps(step, [], [], [], "scan")
