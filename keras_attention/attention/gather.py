"""Gathers of positions of a padded batch, per row."""

from keras import ops

from keras_attention.types import Tensor


def gather_positions(sequence: Tensor, positions: Tensor) -> Tensor:
    """`sequence[b, positions[b, n]]`: `(B, S, D)` and int `(B, N)` give `(B, N, D)`.

    One gather over the flattened rows, an operator that every exported format supports.
    """
    batch, length, depth = ops.shape(sequence)
    first = ops.arange(batch, dtype="int32")[:, None] * ops.cast(length, "int32")
    return ops.take(ops.reshape(sequence, (-1, depth)), first + ops.cast(positions, "int32"), axis=0)


def reverse_within_length(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Reverse each row's first `lengths[b]` positions; its padding stays in place. Its own inverse."""
    positions = ops.arange(ops.shape(sequence)[1], dtype="int32")[None, :]
    lengths = ops.expand_dims(lengths, 1)
    return gather_positions(sequence, ops.where(positions < lengths, lengths - 1 - positions, positions))


def last_position(sequence: Tensor, lengths: Tensor) -> Tensor:
    """Return `sequence[b, lengths[b] - 1]`: `(B, S, D)` gives `(B, D)`; a row of length 0 gives its position 0."""
    return gather_positions(sequence, ops.maximum(lengths - 1, 0)[:, None])[:, 0]
