"""The pure functions from scores to weights: normalisers, recurrences, windows."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

from keras_attention import masked_softmax
from keras_attention.attention import alignments as alignment
from keras_attention.attention import windows
from tests.support import reference
from tests.support.gradients import gradient
from tests.support.mechanisms import numpy

# float32 sums of at most 8 numbers up to 8; the reference runs in float64.
CLOSE = {"rtol": 2e-6, "atol": 2e-6}
# Multiples of 1 / 8 are exact in float32, and so are their sums: ties are ties in the reference too.
SCORES = st.integers(1, 8).flatmap(
    lambda size: arrays.arrays(np.int64, (2, size), elements=st.integers(-64, 64)).map(
        lambda values: (values / 8).astype("float32")
    )
)
quick = settings(max_examples=40, deadline=None)


@quick
@given(scores=SCORES, data=st.data())
@pytest.mark.parametrize("name", alignment.NORMALISERS)
def test_normalisers_equal_the_reference(name, scores, data):
    mask = data.draw(arrays.arrays(bool, scores.shape))
    weights = numpy(alignment.NORMALISERS[name](ops.convert_to_tensor(scores), ops.convert_to_tensor(mask)))
    for row, real, found in zip(scores.astype("float64"), mask, weights, strict=True):
        expected = np.zeros(len(row))
        if real.any():
            expected[real] = reference.NORMALISERS[name](row[real])
        np.testing.assert_allclose(found, expected, **CLOSE)
        assert not found[~real].any()


@quick
@given(scores=SCORES, shift=st.integers(-50, 50))
@pytest.mark.parametrize("name", alignment.NORMALISERS)
def test_normalisers_land_on_the_simplex_and_ignore_a_shift(name, scores, shift):
    weights = numpy(alignment.NORMALISERS[name](ops.convert_to_tensor(scores)))
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, **CLOSE)
    moved = numpy(alignment.NORMALISERS[name](ops.convert_to_tensor(scores + np.float32(shift))))
    np.testing.assert_allclose(moved, weights, **CLOSE)


def test_sparsemax_closed_forms():
    scores = np.array([[0.1, 0.0, 0.0, -2.0], [3.0, 1.0, 0.0, 0.0], [0.5, 0.0, -5.0, 0.25]], "float32")
    expected = [[0.4, 0.3, 0.3, 0.0], [1.0, 0.0, 0.0, 0.0], [7 / 12, 1 / 12, 0.0, 1 / 3]]
    weights = numpy(alignment.sparsemax(ops.convert_to_tensor(scores)))
    np.testing.assert_allclose(weights, expected, **CLOSE)
    assert (weights[np.array(expected) == 0] == 0).all()  # exactly, not nearly


def test_the_gradient_of_sparsemax():
    rng = np.random.default_rng(3)
    scores, direction, readout = rng.normal(size=(3, 2, 7)).astype("float32")
    scores = np.float32(0.3) * scores  # near enough to each other that several are in the support

    def loss(scores):
        return ops.sum(alignment.sparsemax(scores) * ops.convert_to_tensor(readout))

    slopes = gradient(loss, scores)
    step = 1e-2
    rise = float(loss(ops.convert_to_tensor(scores + step * direction))) - float(
        loss(ops.convert_to_tensor(scores - step * direction))
    )
    # Piecewise linear: exact but for float32 noise of 1e-7 over the step, unless a kink lies within it.
    assert rise / (2 * step) == pytest.approx(float((slopes * direction).sum()), abs=1e-4)
    weights = reference.sparsemax(scores[0].astype("float64"))
    support = weights > 0
    assert support.sum() == 3
    # The Jacobian is diag(support) - support support^T / |support| (Martins and Astudillo 2016, proposition 2).
    expected = support * (readout[0] - readout[0][support].mean())
    np.testing.assert_allclose(slopes[0], expected, **CLOSE)


def test_hardmax_takes_the_first_of_equals():
    scores = ops.convert_to_tensor(np.array([[1.0, 3.0, 3.0], [-9.0, -9.0, -9.0]], "float32"))
    np.testing.assert_array_equal(numpy(alignment.hardmax(scores)), [[0, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("function", [masked_softmax, alignment.sparsemax, alignment.hardmax])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_extreme_scores(function, dtype):
    scores = np.array([[1e4, -1e4, 1e4 - 64], [-1e4, -1e4, -1e4], [-1e4, 1e4, 5.0]], "float32")
    mask = np.array([[True] * 3, [True] * 3, [False] * 3])
    weights = function(ops.cast(scores, dtype), ops.convert_to_tensor(mask))
    assert keras.backend.standardize_dtype(weights.dtype) == dtype
    first = [1, 0, 0] if function is alignment.hardmax else [1 / 3] * 3
    # A third has 11 bits in float16 and 8 in bfloat16; exp(-64) is 2e-28.
    np.testing.assert_allclose(numpy(weights), [[1, 0, 0], first, [0, 0, 0]], rtol=4e-3, atol=1e-20)


@quick
@given(
    chosen=arrays.arrays(np.int64, (2, 7), elements=st.integers(0, 16)),
    before=arrays.arrays(np.int64, (2, 7), elements=st.integers(0, 4)),
)
def test_monotonic_alignment_is_the_recursion(chosen, before):
    chosen, before = (chosen / 16).astype("float32"), (before / 28).astype("float32")
    found = numpy(alignment.monotonic_alignment(ops.convert_to_tensor(chosen), ops.convert_to_tensor(before)))
    expected = [
        reference.monotonic(*row) for row in zip(chosen.astype("float64"), before.astype("float64"), strict=True)
    ]
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert (found.sum(axis=-1) <= before.sum(axis=-1) + 1e-6).all()  # float32 sums


@quick
@given(chosen=arrays.arrays(bool, (5, 7)))
def test_certain_probabilities_give_the_hard_alignment(chosen):
    soft = walked = np.eye(7, dtype="float32")[:1]
    for row in chosen.astype("float32"):
        soft = numpy(alignment.monotonic_alignment(ops.convert_to_tensor(row[None]), ops.convert_to_tensor(soft)))
        walked = reference.hard_monotonic(row, walked[0])[None]
        np.testing.assert_array_equal(soft, walked)
        if not walked.any():
            break  # the soft alignment has no mass left


def test_monotonic_alignment_keeps_the_mass_of_a_long_row():
    start = np.eye(400, dtype="float32")[:1]
    p = np.full((1, 400), 0.1, "float32")
    weights = numpy(alignment.monotonic_alignment(ops.convert_to_tensor(p), ops.convert_to_tensor(start)))
    # Products of up to 400 factors, each off by 6e-8.
    np.testing.assert_allclose(weights[0], 0.1 * 0.9 ** np.arange(400), rtol=1e-4, atol=1e-12)
    assert weights.sum() == pytest.approx(1 - 0.9**400, abs=1e-5)  # as above: 400 terms, 4e-7 seen


def test_monotonic_alignment_is_exact_where_the_closed_form_is_not():
    before, p = np.full(7, 1 / 7), np.full(7, 0.1)
    p[0] = 1.0
    passed = np.cumprod([1.0, *(1 - p[:-1])])
    # The closed form in use elsewhere divides by a product that is zero here, and by its clip loses the mass behind it.
    assert (p * passed * np.cumsum(before / np.clip(passed, 1e-10, 1.0))).sum() == pytest.approx(1 / 7)
    found = alignment.monotonic_alignment(ops.cast(p[None], "float32"), ops.cast(before[None], "float32"))
    expected = reference.monotonic(p, before)
    assert expected.sum() > 2 / 7
    np.testing.assert_allclose(numpy(found)[0], expected, **CLOSE)


def test_a_certain_first_position_is_chosen():
    start = np.eye(7, dtype="float32")[:1]
    p = np.full((1, 7), 0.3, "float32")
    p[0, 0] = 1.0
    found = numpy(alignment.monotonic_alignment(ops.convert_to_tensor(p), ops.convert_to_tensor(start)))
    np.testing.assert_array_equal(found, start)
    slopes = gradient(lambda p: alignment.monotonic_alignment(p, ops.convert_to_tensor(start))[0, 3], p)
    assert slopes[0, 0] == pytest.approx(-0.3 * 0.7**2, rel=1e-5)  # what position 0 would let through


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 400])
def test_linear_recurrence_is_its_loop(length):
    rng = np.random.default_rng(length)
    factors, addends = rng.uniform(-1, 1, size=(2, 2, 3, length)).astype("float32")
    expected, x = np.zeros(factors.shape), np.zeros(factors.shape[:-1])
    for s in range(length):
        expected[..., s] = x = factors[..., s].astype("float64") * x + addends[..., s]
    found = numpy(alignment.linear_recurrence(ops.convert_to_tensor(factors), ops.convert_to_tensor(addends)))
    np.testing.assert_allclose(found, expected, **CLOSE)
    if keras.backend.backend() == "tensorflow":  # a length that the graph does not know
        import tensorflow as tf

        signature = [tf.TensorSpec([None, 3, None], "float32")] * 2
        unknown = tf.function(alignment.linear_recurrence, input_signature=signature)
        np.testing.assert_allclose(numpy(unknown(factors, addends)), expected, **CLOSE)


def test_linear_recurrence_reaches_from_one_end_to_the_other():
    """As far as a graph goes that does not know the length: factors of 1 carry the first addend, others die out."""
    first = np.eye(4096, dtype="float32")[:1]
    recurrence = alignment.linear_recurrence
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        recurrence = tf.function(recurrence, input_signature=[tf.TensorSpec([1, None], "float32")] * 2)
    found = recurrence(ops.ones((1, 4096)), ops.convert_to_tensor(first))
    np.testing.assert_array_equal(numpy(found), np.ones((1, 4096)))


def test_source_lengths_are_one_past_the_last_real_position():
    value = np.zeros((3, 5, 2), "float32")
    mask = np.array([[True, False, True, False, False], [False] * 5, [True] * 5])
    np.testing.assert_array_equal(
        ops.convert_to_numpy(alignment.source_lengths(value, ops.convert_to_tensor(mask))), [[3], [0], [5]]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(alignment.source_lengths(value, None)), [[5]] * 3)


@quick
@given(centre=st.integers(-2, 9), half_width=st.integers(1, 4), length=st.integers(1, 8))
def test_a_window_gathered_and_spread_is_the_window(centre, half_width, length):
    rng = np.random.default_rng(length)
    sequence = rng.normal(size=(1, length, 3)).astype("float32")
    centres = ops.convert_to_tensor(np.array([[centre]], "int32"))
    lengths = ops.convert_to_tensor(np.array([[length]], "int32"))
    places, inside = windows.window_positions(centres, half_width, lengths)
    expected = [s for s in range(centre - half_width, centre + half_width + 1) if 0 <= s < length]
    places_found, inside_found = ops.convert_to_numpy(places)[0, 0], ops.convert_to_numpy(inside)[0, 0]
    assert list(places_found[inside_found]) == expected
    gathered = numpy(windows.gather_windows(ops.convert_to_tensor(sequence), places))
    np.testing.assert_array_equal(gathered[0][inside_found], sequence[0, expected])
    weights = rng.uniform(1, 2, size=(1, 1, 2 * half_width + 1)).astype("float32")
    spread = numpy(windows.spread_windows(ops.convert_to_tensor(weights), centres, half_width, length))
    row = np.zeros(length)
    row[expected] = weights[0, 0, inside_found]
    np.testing.assert_array_equal(spread[0, 0], row)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(alignment.window_mask(centres, half_width, length))[0, 0], row > 0
    )


def test_the_gaussian_is_one_at_its_centre_and_falls_by_its_deviation():
    values = numpy(alignment.gaussian(np.arange(7), ops.convert_to_tensor(np.array([[3.0]], "float32")), 4))
    # Float32 `exp`.
    np.testing.assert_allclose(values[0, 0, [3, 1, 5]], [1.0, math.exp(-0.5), math.exp(-0.5)], rtol=1e-6)
