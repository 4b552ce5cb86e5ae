"""Paths that TensorFlow reads literally: it treats some characters of a path as a pattern."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

PATTERNS = frozenset("[]*?\\")
"""Characters of a pattern; TensorFlow matches a checkpoint's files by a pattern that includes the whole path."""


def is_pattern(path: str | os.PathLike[str]) -> bool:
    """Return whether TensorFlow finds no SavedModel at this path, relative or not."""
    return bool(PATTERNS & set(os.path.abspath(path)))


@contextlib.contextmanager
def plain_path(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the folder under a path that is no pattern: its own, or a temporary link's."""
    if not is_pattern(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as home:
        link = pathlib.Path(home) / "folder"
        link.symlink_to(os.path.abspath(folder), target_is_directory=True)
        yield link
