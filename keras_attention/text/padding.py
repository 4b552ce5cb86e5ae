"""Rows of ids as padded batches, of like length."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


def length_batches(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield indices of rows in batches of similar length, longest first, so that the largest buffers come first."""
    order = np.argsort([-len(row) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad_rows(rows: Sequence[Sequence[int]], multiple: int = 1) -> npt.NDArray[np.int32]:
    """Right-pad rows with 0 to the longest, rounded up to a multiple: int32 `(B, L)`."""
    longest = max(max((len(row) for row in rows), default=0), 1)
    result = np.zeros((len(rows), -(-longest // multiple) * multiple), np.int32)
    for index, row in enumerate(rows):
        result[index, : len(row)] = row
    return result


def pad_phrases(rows: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int32]:
    """Pad each row's phrases to the largest number and the longest: int32 `(B, C, N)`."""
    count = max(len(row) for row in rows)
    flat = pad_rows([phrase for row in rows for phrase in [*row, *[[]] * (count - len(row))]])
    return flat.reshape(len(rows), count, -1)
