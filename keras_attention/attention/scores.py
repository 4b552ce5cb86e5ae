"""Score functions of Luong, Pham and Manning 2015 (arXiv 1508.04025), section 3.1, as pure functions.

Each compares every query `h_t` with every key `h_s`:

    query `(B, T, D)`, key `(B, S, D)`  ->  scores `(B, T, S)`

Weights are arguments; `keras_attention.attention` owns them. Scores of float16 tensors are float32: a dot product
exceeds 65504, the largest float16, and the softmax of an infinity is NaN.
"""

import math

import keras
from keras import ops

from keras_attention.attention.matmul import linear
from keras_attention.types import Tensor

# Below this squared norm a vector counts as zero: its cosine with anything is 0, with a finite gradient.
_SMALLEST_SQUARED_NORM = 1e-12


def dot_score(query: Tensor, key: Tensor) -> Tensor:
    """`h_t . h_s` (equation 8, dot).

    Raises:
        ValueError: if the depths of query and key differ.
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            "The dot product needs a query and a key of one depth; score='general' compares different depths. "
            f"Expected: query.shape[-1] == key.shape[-1]. Received: query.shape={query.shape}, key.shape={key.shape}"
        )
    return ops.matmul(_wide(query), ops.swapaxes(_wide(key), -1, -2))


def scaled_dot_score(query: Tensor, key: Tensor) -> Tensor:
    """`h_t . h_s / sqrt(D)` (Vaswani et al. 2017, equation 1)."""
    return dot_score(query / math.sqrt(query.shape[-1]), key)


def general_score(query: Tensor, value: Tensor, kernel: Tensor) -> Tensor:
    """`h_t W_a h_s` (equation 8, general), by projecting the query.

    Args:
        query: `(B, T, Dq)`.
        value: `(B, S, Dv)`.
        kernel: `W_a`, `(Dq, Dv)`.

    To step over a fixed memory, project it once with `general_key` and use `dot_score`, with equal results.
    """
    return dot_score(linear(query, kernel), value)


def general_key(value: Tensor, kernel: Tensor) -> Tensor:
    """`W_a h_s`: value `(B, S, Dv)` and kernel `(Dq, Dv)` give keys `(B, S, Dq)` for `dot_score`."""
    return ops.matmul(value, ops.transpose(kernel))


def additive_score(
    projected_query: Tensor,
    projected_key: Tensor,
    vector: Tensor,
    bias: Tensor | None = None,
    coverage: Tensor | None = None,
    coverage_vector: Tensor | None = None,
) -> Tensor:
    """`v . tanh(W_1 h_t + W_2 h_s + b + w_c C(s))`, of projected query and key.

    Without bias and coverage it is equation 8, concat, and the score of Bahdanau et al. 2015 (arXiv 1409.0473, appendix
    A.1.2). `C(s)`, the coverage of a position, enters as in See et al. 2017 (arXiv 1704.04368, equation 11).

    Args:
        projected_query: `W_1 h_t`, `(B, T, U)`.
        projected_key: `W_2 h_s`, `(B, S, U)`.
        vector: `v`, `(U,)`.
        bias: `b`, `(U,)`.
        coverage: `C`, `(B, S)`: the sum of each position's earlier weights.
        coverage_vector: `w_c`, `(U,)`.
    """
    if bias is not None:
        projected_query = projected_query + bias
    if coverage is not None:
        projected_key = projected_key + ops.expand_dims(coverage, -1) * coverage_vector
    hidden = ops.tanh(ops.expand_dims(projected_query, 2) + ops.expand_dims(projected_key, 1))
    factor = None
    if _is_float16(vector):
        # In float32 the hidden layer would take twice the memory. Scaling the vector by a power of two is exact, and
        # keeps every sum at most 1.
        total = ops.sum(ops.absolute(ops.cast(vector, "float32")))
        factor = ops.exp2(ops.ceil(ops.log2(ops.maximum(total, 1.0))))
        vector = ops.cast(ops.cast(vector, "float32") / factor, "float16")
    scores = ops.squeeze(linear(hidden, ops.expand_dims(vector, -1)), axis=-1)
    return scores if factor is None else ops.cast(scores, "float32") * factor


def location_score(query: Tensor, kernel: Tensor, source_length: Tensor | int) -> Tensor:
    """`W_a h_t` (equation 7): scores by position only, cut to the given source length.

    Args:
        query: `(B, T, Dq)`.
        kernel: `W_a`, `(Dq, max_source_length)`.
        source_length: the padded source length S.

    Raises:
        ValueError: if S is static and greater than `max_source_length`.
    """
    check_source_length(source_length, kernel.shape[-1])
    return linear(_wide(query), _wide(kernel))[:, :, :source_length]


def check_source_length(source_length: Tensor | int | None, max_source_length: int | None) -> None:
    """Raise ValueError for a source that is known to be longer than a location score can address."""
    if isinstance(source_length, int) and max_source_length is not None and source_length > max_source_length:
        raise ValueError(
            "The source is longer than this location score can address. "
            f"Expected: a source length <= max_source_length={max_source_length}. "
            f"Received: source_length={source_length}"
        )


def unit_vectors(vectors: Tensor) -> Tensor:
    """`h / norm(h)` over the last axis, in float32; a zero vector stays zero."""
    values = ops.cast(vectors, "float32")
    squared = ops.sum(values * values, axis=-1, keepdims=True)
    return ops.cast(values * ops.rsqrt(ops.maximum(squared, _SMALLEST_SQUARED_NORM)), vectors.dtype)


def _is_float16(tensor: Tensor) -> bool:
    return bool(keras.backend.standardize_dtype(tensor.dtype) == "float16")


def _wide(tensor: Tensor) -> Tensor:
    """Cast the tensor to a dtype whose range its products cannot exceed."""
    return ops.cast(tensor, "float32") if _is_float16(tensor) else tensor


def cosine_score(query: Tensor, key: Tensor) -> Tensor:
    """`h_t . h_s / (norm(h_t) norm(h_s))`, 0 where either is a zero vector."""
    return dot_score(unit_vectors(query), unit_vectors(key))
