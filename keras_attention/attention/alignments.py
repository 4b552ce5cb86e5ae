"""Alignment functions, from scores to weights: normalisers, monotonic alignment, local windows.

Scores and weights are `(..., S)`; a mask is bool and broadcastable to them, true at the allowed positions.
Everything here is computed in float32, and returned in the dtype of the scores.
"""

import math

from keras import ops

from keras_attention.attention.masking import masked_softmax
from keras_attention.types import Tensor

_NEVER = -1e30
# Sparsemax excludes any position this far below the largest score, whatever the other scores are.
_OUT_OF_SUPPORT = -2.0
# Rounds of doubling for a length that is unknown at graph construction: exact for up to 2 ** 12 positions.
_ROUNDS = 12


def hardmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """One at the largest score, zero elsewhere; ties go to the first position. A fully masked row gives zeros.

    The gradient is zero, so that the score is not trained through it.
    """
    values = ops.cast(scores, "float32")
    if mask is not None:
        mask = ops.cast(mask, "bool")
        values = ops.where(mask, values, _NEVER)
    largest = ops.cast(ops.equal(values, ops.max(values, axis=-1, keepdims=True)), "float32")
    # The first of the largest, by a sum: `ops.argmax` reads the bits of its floats, which ONNX cannot.
    chosen = ops.equal(largest * ops.cumsum(largest, axis=-1), 1.0)
    if mask is not None:
        chosen = ops.logical_and(chosen, mask)
    return ops.cast(chosen, scores.dtype)


def sparsemax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """The Euclidean projection of the scores onto the simplex (Martins and Astudillo 2016, arXiv 1602.02068).

        weights = max(z - tau, 0)      tau = (sum_{s in support} z_s - 1) / |support|

    so that low-scored positions get exactly 0. A fully masked row gives zeros.
    """
    values = ops.cast(scores, "float32")
    if mask is not None:
        mask = ops.cast(mask, "bool")
        values = ops.where(mask, values, _NEVER)
    values = values - ops.stop_gradient(ops.max(values, axis=-1, keepdims=True))
    values = ops.maximum(values, _OUT_OF_SUPPORT)
    ranked = -ops.sort(-ops.stop_gradient(values), axis=-1)
    rank = ops.arange(1, ops.shape(values)[-1] + 1, dtype="float32")
    sums = ops.cumsum(ranked, axis=-1)
    inside = ops.cast(ops.greater(1.0 + rank * ranked, sums), "float32")
    size = ops.sum(inside, axis=-1, keepdims=True)
    threshold = (ops.sum(ranked * inside, axis=-1, keepdims=True) - 1.0) / size
    # Recomputed for the gradient, which then needs no path through the sort.
    support = ops.cast(ops.greater(ops.stop_gradient(values), threshold), "float32")
    threshold = (ops.sum(values * support, axis=-1, keepdims=True) - 1.0) / ops.sum(support, axis=-1, keepdims=True)
    weights = ops.maximum(values - threshold, 0.0)
    if mask is not None:
        weights = weights * ops.cast(mask, "float32")
    return ops.cast(weights, scores.dtype)


NORMALISERS = {"softmax": masked_softmax, "sparsemax": sparsemax, "hardmax": hardmax}
"""Alignments of each query on its own: `(scores, mask) -> weights`."""


def linear_recurrence(factors: Tensor, addends: Tensor) -> Tensor:
    """`x[s] = factors[s] * x[s - 1] + addends[s]` along the last axis, with `x[-1] = 0`.

    The pairs `(factor, addend)` compose associatively, which allows `log2 S` rounds of doubling (Hillis and Steele
    1986) without a loop in the graph. On TensorFlow `keras.ops.associative_scan` requires a static length.
    A dynamic length may be up to 4096.
    """
    length = factors.shape[-1]
    known = isinstance(length, int)  # None on TensorFlow and PyTorch, a symbol on JAX, where it is dynamic
    rounds = math.ceil(math.log2(max(length, 1))) if known else _ROUNDS
    size = ops.shape(factors)[-1]
    rest = [(0, 0)] * (len(factors.shape) - 1)
    for number in range(rounds):
        shift = [*rest, (2**number, 0)]
        addends = addends + factors * ops.pad(addends, shift)[..., :size]
        if number + 1 < rounds:
            factors = factors * ops.pad(factors, shift, constant_values=1.0)[..., :size]
    return addends


def monotonic_alignment(chosen: Tensor, previous: Tensor) -> Tensor:
    """Expected alignment of one step of monotonic attention (Raffel et al. 2017, arXiv 1704.00784, equation 9).

        q[s] = (1 - p[s-1]) q[s-1] + a_{t-1}[s]        a_t[s] = p[s] q[s]

    where `p[s]` is the probability of stopping at position s and `a_{t-1}` the alignment of the step before, a one-hot
    of position 0 at first. Exact: the clipped division by a cumulative product would lose the mass of long or certain
    rows. With probabilities 0 and 1 it is the hard alignment: the first p = 1 at or after the last position.

    Args:
        chosen: `p`, float32 `(B, S)`, zero at padding.
        previous: `a_{t-1}`, float32 `(B, S)`.

    Returns:
        `a_t`, float32 `(B, S)`; its sum is at most that of `previous`.
    """
    chosen, previous = ops.convert_to_tensor(chosen), ops.convert_to_tensor(previous)
    passed = ops.pad(1.0 - chosen, [(0, 0)] * (len(chosen.shape) - 1) + [(1, 0)])[..., :-1]
    return chosen * linear_recurrence(passed, previous)


def first_position(value: Tensor) -> Tensor:
    """One at source position 0 of each row, float32 `(B, S)`: where a monotonic alignment starts."""
    batch, length = ops.shape(value)[0], ops.shape(value)[1]
    start = ops.cast(ops.equal(ops.arange(length, dtype="int32"), 0), "float32")
    return ops.expand_dims(start, 0) + ops.zeros((batch, 1), dtype="float32")


def source_lengths(value: Tensor, mask: Tensor | None) -> Tensor:
    """Each row's source length: one past its last real position, int32 `(B, 1)`; 0 for a fully masked row."""
    batch, length = ops.shape(value)[0], ops.shape(value)[1]
    if mask is None:
        return ops.zeros((batch, 1), dtype="int32") + length
    places = ops.arange(1, length + 1, dtype="int32") * ops.cast(mask, "int32")
    return ops.max(places, axis=1, keepdims=True)


def window_mask(centres: Tensor, half_width: int, length: Tensor | int) -> Tensor:
    """Mask of `centre - half_width .. centre + half_width`: int `(B, T)` gives bool `(B, T, S)`."""
    positions = ops.arange(length, dtype="int32")
    return ops.less_equal(ops.absolute(positions - ops.expand_dims(centres, -1)), half_width)


def gaussian(positions: Tensor, centres: Tensor, half_width: int) -> Tensor:
    """`exp(-(s - p_t)^2 / (2 sigma^2))` with `sigma = half_width / 2` (Luong et al. 2015, equation 10), in float32.

    Args:
        positions: int, broadcastable to `(B, T, N)`.
        centres: `p_t`, float32 `(B, T)`.
    """
    distance = (ops.cast(positions, "float32") - ops.expand_dims(centres, -1)) / (half_width / 2.0)
    return ops.exp(-0.5 * ops.square(distance))
