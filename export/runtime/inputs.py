"""The source of a search: ids or features, checked, since a graph cannot raise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArtefactError

Arrays = Mapping[str, np.ndarray]


def source_name(source: np.ndarray) -> str:
    """Return the graphs' name of a source: ids or features."""
    return "source_ids" if source.ndim == 2 else "source_features"


def source_lengths(source: np.ndarray) -> np.ndarray:
    """Return the positions of each row up to the last one that is not padding (0)."""
    filled = source != 0 if source.ndim == 2 else (source != 0).any(axis=2)
    lengths = source.shape[1] - np.argmax(filled[:, ::-1], axis=1)
    return np.where(filled.any(axis=1), lengths, 0)


def padded(rows: Sequence[Sequence[int]], pad: int, least: int = 0) -> np.ndarray:
    """Return rows of ids as int32 `(B, S)`, padded on the right, S at least `least`."""
    found = np.full((len(rows), max(least, *(len(row) for row in rows))), pad, np.int32)
    for line, ids in zip(found, rows, strict=True):
        line[: len(ids)] = ids
    return found


def checked_source(source: Any, manifest: Mapping[str, Any]) -> np.ndarray:
    """Return a source as int32 ids `(B, S)` or float32 features `(B, S, F)`.

    Raises:
        ArtefactError: for another shape or type, ids without EOS or outside the vocabulary, and an empty or long row.
    """
    found = _as_source(source, manifest.get("source_features"))
    if found.ndim == 2:
        check_ids(found.tolist(), manifest)
        _check_padding(found, manifest["special_ids"])
    else:
        _check_features(found, manifest["max_source_length"])
    return found


def check_ids(rows: Sequence[Sequence[int]], manifest: Mapping[str, Any], what: str = "row") -> None:
    """Raise unless the model can read every row of ids.

    Raises:
        ArtefactError: if an id is outside the vocabulary, or a row is too long for a location score.
    """
    vocabulary = manifest["source_vocabulary"] + manifest.get("copy_words", 0)
    limit = manifest["max_source_length"]
    for number, row in enumerate(rows, start=1):
        outside = [int(i) for i in row if not 0 <= i < vocabulary]
        if outside:
            raise ArtefactError(
                f"{what} {number}: an id is outside the vocabulary. Expected: 0 to {vocabulary - 1}. "
                f"Received: {outside[0]}"
            )
        if limit is not None and len(row) > limit:
            raise ArtefactError(
                f"{what} {number} is too long for this model. Expected: at most {limit} tokens with EOS. "
                f"Received: {len(row)}. Split the sentence"
            )


def _as_source(source: Any, features: int | None) -> np.ndarray:
    """Return an array of the right type. Raises ArtefactError for another shape, and for ids that are not integers."""
    try:
        given = np.asarray(source)
    except ValueError:  # rows of different lengths
        given = np.zeros(())
    shape = given.shape
    if len(shape) != (2 if features is None else 3) or (features and shape[2] != features) or 0 in shape:
        wanted = "ids (batch, length)" if features is None else f"features (batch, length, {features})"
        received = shape if given.ndim else "rows of different lengths, or one number"
        raise ArtefactError(f"A source of another shape. Expected: {wanted}. Received: {received}")
    if features is None and given.dtype.kind not in "iu":
        raise ArtefactError(f"The source is of another type. Expected: int32 ids. Received: {given.dtype}")
    return given.astype(np.int32 if features is None else np.float32)


def _check_padding(source: np.ndarray, special_ids: Mapping[str, int]) -> None:
    """Raise unless each row ends with EOS, followed by nothing but padding."""
    pad, eos = special_ids["pad"], special_ids["eos"]
    real = source != pad
    lengths = real.sum(axis=1)
    last = source[np.arange(len(source)), lengths - 1]
    wrong = (real[:, 1:] & ~real[:, :-1]).any(axis=1) | (lengths == 0) | (last != eos)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ArtefactError(
            f"row {row + 1} is no source. Expected: ids, EOS ({eos}), then padding ({pad}) alone. "
            f"Received: {source[row].tolist()}"
        )


def _check_features(source: np.ndarray, limit: int | None) -> None:
    """Raise for features that are too many, not finite, or all padding in one row."""
    shape = source.shape
    if limit is not None and shape[1] > limit:
        raise ArtefactError(
            f"The source is too long for this model. Expected: at most {limit} positions. Received: {shape[1]}"
        )
    if not np.isfinite(source).all():
        raise ArtefactError("The source holds numbers that are not finite. Expected: finite numbers")
    if not source_lengths(source).all():
        row = int(np.argmin(source_lengths(source)))
        raise ArtefactError(f"Row {row + 1} is empty: wholly 0, which is padding. Expected: something at one position")
