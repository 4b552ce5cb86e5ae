"""Gathered local windows: `2 D + 1` positions of each query, independent of the source length.

A window has a static width, so that the graph's shapes stay static; positions outside the source are marked.
"""

from keras import ops

from keras_attention.attention.gather import gather_positions
from keras_attention.types import Tensor


def window_positions(centres: Tensor, half_width: int, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions `p - D .. p + D` of each query's window, and which of them are in the source.

    Args:
        centres: int32 `(B, T)`.
        half_width: D.
        lengths: each row's source length, int32 `(B, 1)`.

    Returns:
        int32 and bool `(B, T, 2 D + 1)`.
    """
    offsets = ops.arange(-half_width, half_width + 1, dtype="int32")
    positions = ops.expand_dims(centres, -1) + offsets
    inside = ops.logical_and(positions >= 0, positions < ops.expand_dims(lengths, -1))
    return positions, inside


def gather_windows(sequence: Tensor, positions: Tensor) -> Tensor:
    """`(B, S, D)` and positions `(B, T, W)`, clipped to the source, give `(B * T, W, D)`."""
    length, depth = ops.shape(sequence)[1], sequence.shape[-1]
    width = positions.shape[-1]
    rows = ops.reshape(ops.clip(positions, 0, length - 1), (ops.shape(positions)[0], -1))
    return ops.reshape(gather_positions(sequence, rows), (-1, width, depth))


def gather_by_query(values: Tensor, positions: Tensor) -> Tensor:
    """`values[b, t, positions[b, t, n]]`: `(B, T, S)` and int `(B, T, N)` give `(B, T, N)`; positions are clipped."""
    batch, steps, length = ops.shape(values)
    count = ops.shape(positions)[-1]
    rows = ops.reshape(ops.clip(positions, 0, length - 1), (-1, count))
    found = gather_positions(ops.reshape(values, (-1, length, 1)), rows)
    return ops.reshape(found, (batch, steps, count))


def spread_windows(weights: Tensor, centres: Tensor, half_width: int, length: Tensor | int) -> Tensor:
    """Scatter weights `(B, T, 2 D + 1)` of windows about int centres `(B, T)` to weights of the source `(B, T, S)`."""
    offsets = ops.arange(length, dtype="int32") - (ops.expand_dims(centres, -1) - half_width)
    inside = ops.logical_and(offsets >= 0, offsets <= 2 * half_width)
    return gather_by_query(weights, offsets) * ops.cast(inside, weights.dtype)
