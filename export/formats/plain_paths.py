"""Paths that TensorFlow takes for what they are: it reads some characters of a path as a pattern."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

PATTERNS = frozenset("[]*?\\")
"""TensorFlow looks for a checkpoint's files by a pattern, which the whole path is a part of."""


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Whether TensorFlow finds no SavedModel at this path, relative or not."""
    return bool(PATTERNS & set(os.path.abspath(path)))


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder under a path that is no pattern: its own, or that of a link for as long as the context lasts."""
    if not is_pattern(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as home:
        link = pathlib.Path(home) / "folder"
        link.symlink_to(os.path.abspath(folder), target_is_directory=True)
        yield link
