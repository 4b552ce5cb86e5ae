"""Checks of token ids and features: what a graph would read wrongly, or refuse in the backend's words."""

from typing import Any

import keras
import numpy as np

from keras_attention.types import EOS_ID, PAD_ID


def check_ids(name: str, ids: Any, vocabulary: int, ends: bool = False, eos_id: int = EOS_ID) -> None:
    """Check rows of token ids, padded on the right with 0.

    The values of a tensor that a graph is being traced with are unknown: then its dtype and rank alone are checked.

    Args:
        name: of the argument, for the message.
        ids: a list of rows, an array or a tensor.
        vocabulary: V; ids are below it.
        ends: whether each row has to end with `eos_id`, padding aside.
        eos_id: id of EOS.

    Raises:
        ValueError: for rows of different lengths, another dtype or rank, an id out of range, padding before a token,
            and where `ends` is given a row without EOS at its end.
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
    """Check a source of features `(B, S, F)`, padded on the right with positions that are wholly 0.

    Raises:
        ValueError: for another shape, numbers that are not finite, and a row that is wholly padding.
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
    """The values as a NumPy array; `None` where a graph does not know them yet."""
    if isinstance(given, list | tuple):
        try:
            return np.asarray(given)
        except ValueError:
            lengths = [len(row) if isinstance(row, list | tuple | np.ndarray) else row for row in given]
            raise ValueError(
                f"Expected: rows of one length in {name}, padded on the right with {PAD_ID}. "
                f"Received: rows of lengths {lengths}"
            ) from None
        except (TypeError, NotImplementedError):  # a list of tensors that are being traced
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
    """Dtype and rank; the rank is `None` where it is unknown."""
    dtype = str(given.dtype) if isinstance(given, np.ndarray) else keras.backend.standardize_dtype(given.dtype)
    try:
        return dtype, len(given.shape)
    except ValueError:
        return dtype, None
