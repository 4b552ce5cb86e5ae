"""Masks of right-padded batches, and masked softmax."""

import keras
from keras import ops

from keras_attention.types import PAD_ID, Tensor

# Finite, so that a fully masked row stays free of NaN; far below any real score, and still representable in
# float32, the dtype of every softmax here.
_MASKED_SCORE = -1e30


def length_mask(lengths: Tensor, max_length: Tensor | int) -> Tensor:
    """Mask of the positions before each row's length.

    Args:
        lengths: int `(B,)`.
        max_length: size of the padded axis, an int or a scalar tensor.

    Returns:
        bool `(B, max_length)`.
    """
    positions = ops.arange(max_length, dtype="int32")
    return ops.less(positions[None, :], ops.cast(lengths, "int32")[:, None])


def real_positions(source: Tensor) -> Tensor:
    """Mask of the real positions of a right-padded source.

    Args:
        source: int `(B, S)`, padded with id 0; or float `(B, S, F)`, padded with positions that are all zero. An
        all-zero position before a nonzero one is not padding.

    Returns:
        bool `(B, S)`.
    """
    if len(source.shape) == 2:
        return ops.not_equal(source, PAD_ID)
    filled = ops.cast(ops.any(ops.not_equal(source, 0), axis=-1), "int32")
    before = ops.cumsum(filled, axis=1) - filled
    return ops.greater(ops.sum(filled, axis=1, keepdims=True), before)


def masked_softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax over the last axis, in float32, over the positions where the mask is true.

    A fully masked row gives zeros, never NaN, and a finite gradient.

    Args:
        scores: float `(..., S)`.
        mask: bool, broadcastable to `scores`; `None` keeps every position.

    Returns:
        `(..., S)` in the dtype of `scores`.
    """
    values = ops.cast(scores, "float32")
    if mask is None:
        return ops.cast(ops.softmax(values, axis=-1), scores.dtype)
    mask = ops.cast(mask, "bool")
    weights = ops.softmax(ops.where(mask, values, _MASKED_SCORE), axis=-1)
    return ops.cast(weights * ops.cast(mask, "float32"), scores.dtype)


def both(mask: Tensor | None, other: Tensor) -> Tensor:
    """Conjunction of two bool masks; `None` stands for a mask that is true everywhere."""
    return other if mask is None else ops.logical_and(ops.cast(mask, "bool"), other)


def check_attention_mask(mask: Tensor | None, query: Tensor, value: Tensor) -> None:
    """Raise ValueError unless `mask` is None or bool `(B, T, S)`."""
    if mask is None:
        return
    dtype, received = keras.backend.standardize_dtype(mask.dtype), tuple(mask.shape)
    expected = (*query.shape[:2], value.shape[1])
    fits = len(received) == 3 and all(a == b or a is None or b is None for a, b in zip(expected, received, strict=True))
    if dtype != "bool" or not fits:
        raise ValueError(
            "`attention_mask` says which positions each query may see. Expected: dtype bool, shape "
            f"{expected}, (batch, queries, positions). Received: dtype {dtype}, attention_mask.shape={received}"
        )


def check_mask(name: str, mask: Tensor | None, masked: Tensor) -> None:
    """Raise ValueError unless `mask` is None or bool `(B, N)` for a tensor `(B, N, ...)`."""
    if mask is None:
        return
    dtype = keras.backend.standardize_dtype(mask.dtype)
    if dtype != "bool":
        raise ValueError(
            f"`{name}` is true at the real positions of a padded batch. Expected: dtype bool. Received: dtype {dtype}"
        )
    expected, received = tuple(masked.shape[:2]), tuple(mask.shape)
    fits = len(received) == 2 and all(a == b or a is None or b is None for a, b in zip(expected, received, strict=True))
    if not fits:
        raise ValueError(
            f"`{name}` says which positions of a padded batch are real. Expected: shape {expected}, (batch, length), "
            f"for a tensor of shape {tuple(masked.shape)}. Received: {name}.shape={received}"
        )
