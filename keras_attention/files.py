"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from keras_attention.errors import UserError


def write_atomically(path: str | pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    """Let `write(temporary_path)` create a file, then rename it to `path`; on failure, `path` is unchanged.

    The temporary name keeps the ending of `path`. Raises UserError for a full disk or a folder that cannot be written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(storage_message(path, error)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_partial_files(folder: str | pathlib.Path) -> None:
    """Delete partial files that a killed process left in `folder` and below."""
    for path in pathlib.Path(folder).rglob(".partial-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def storage_message(path: pathlib.Path, error: OSError) -> str:
    """Return the message for a user whose file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{path}: the disk is full. What was saved before is whole. "
            "Free some space and start the same command again"
        )
    return (
        f"{path}: cannot be written: {error.strerror or error}. Expected a folder that can be written, with free space"
    )


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: str | pathlib.Path, content: bytes) -> None:
    """Write bytes atomically."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: str | pathlib.Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
