"""Checks of token ids and features that a graph would misread, or reject with a backend's message."""

from typing import Any

import keras
import numpy as np

from keras_attention.types import EOS_ID, PAD_ID


def check_ids(name: str, ids: Any, vocabulary: int, ends: bool = False, eos_id: int = EOS_ID) -> None:
    """Check rows of token ids, right-padded with 0.

    The values of a symbolic tensor are unknown: then only its dtype and rank are checked.

    Args:
        name: name of the argument, for the message.
        ids: a list of rows, an array or a tensor.
        vocabulary: V; ids are below it.
        ends: whether each row must end with `eos_id`, followed only by padding.
        eos_id: id of EOS.

    Raises:
        ValueError: for rows of different lengths, another dtype or rank, an id out of range, padding before a token,
            and with `ends` a row without EOS at its end.
    """
    values = _known(name, ids)
    dtype, rank = _kind(ids if values is None else values)
    if not dtype.startswith(("int", "uint")) and not (values is not None and values.size == 0):
        raise ValueError(f"Token ids are whole numbers. Expected: {name} of an integer dtype. Received: dtype {dtype}")
    if rank not in (2, None):
        shape = tuple((ids if values is None else values).shape)
        raise ValueError(f"Expected: {name} of shape (batch, length). Received: {name}.shape={shape}")
    if values is None or not len(values):
        return
    outside = (values < 0) | (values >= vocabulary)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"Expected: ids of the vocabulary in {name}, 0 <= id < {vocabulary}. "
            f"Received: {name}[{row}, {column}]={values[row, column]}"
        )
    real = values != PAD_ID
    early = ~real[:, :-1] & real[:, 1:]
    if early.any():
        row = np.argwhere(early)[0][0]
        raise ValueError(
            f"Rows are padded on the right. Expected: no token after padding ({PAD_ID}) in {name}. "
            f"Received: {name}[{row}]={values[row].tolist()}"
        )
    if ends:
        lengths = real.sum(axis=1)
        last = (
            np.where(lengths > 0, values[np.arange(len(values)), lengths - 1], PAD_ID) if values.shape[1] else lengths
        )
        without = (lengths == 0) | (last != eos_id)
        if without.any():
            row = int(np.argmax(without))
            raise ValueError(
                f"Every row ends with EOS, padding aside. Expected: {eos_id} as the last id of each row of {name}. "
                f"Received: {name}[{row}]={values[row].tolist()}"
            )


def check_features(name: str, features: Any, depth: int) -> None:
    """Check a source of features `(B, S, F)`, right-padded with all-zero positions.

    Raises:
        ValueError: for another shape, non-finite numbers, and a row of padding only.
    """
    values = _known(name, features)
    given = features if values is None else values
    _, rank = _kind(given)
    if rank not in (3, None) or (rank and given.shape[2] not in (depth, None)):
        raise ValueError(
            f"Expected: {name} of shape (batch, length, {depth}). Received: {name}.shape={tuple(given.shape)}"
        )
    if values is None:
        return
    if not np.isfinite(values.astype("float64")).all():
        raise ValueError(f"Expected: finite numbers in {name}. Received: infinite ones, or NaN")
    empty = ~(values != 0).any(axis=(1, 2))
    if empty.any():
        raise ValueError(
            f"A position that is wholly 0 is padding. Expected: another number in each row of {name}. "
            f"Received: {name}[{int(np.argmax(empty))}], a row of zeros"
        )


def _known(name: str, given: Any) -> Any:
    """Return the values as a NumPy array; `None` for symbolic tensors."""
    if isinstance(given, list | tuple):
        try:
            return np.asarray(given)
        except ValueError:
            lengths = [len(row) if isinstance(row, list | tuple | np.ndarray) else row for row in given]
            raise ValueError(
                f"Expected: rows of one length in {name}, padded on the right with {PAD_ID}. "
                f"Received: rows of lengths {lengths}"
            ) from None
        except (TypeError, NotImplementedError):  # a list of symbolic tensors
            return None
    if isinstance(given, np.ndarray | np.generic | int | float):
        return np.asarray(given)
    symbolic = keras.backend.backend() == "tensorflow" and not hasattr(given, "numpy")
    if symbolic or isinstance(given, keras.KerasTensor):
        return None
    try:
        return np.asarray(keras.ops.convert_to_numpy(given))
    except (TypeError, NotImplementedError, RuntimeError):
        return None


def _kind(given: Any) -> tuple[str, int | None]:
    """Return dtype and rank; the rank is `None` where it is unknown."""
    dtype = str(given.dtype) if isinstance(given, np.ndarray) else keras.backend.standardize_dtype(given.dtype)
    try:
        return dtype, len(given.shape)
    except ValueError:
        return dtype, None
