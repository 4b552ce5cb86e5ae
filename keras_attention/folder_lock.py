"""A lock on a folder that is written to: two commands that write one run would corrupt it."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from keras_attention.errors import UserError
from keras_attention.files import storage_message


@contextlib.contextmanager
def locked(folder: str | pathlib.Path) -> Iterator[None]:
    """Create a folder and lock it; the system releases the lock when the process ends, in any way.

    The lock is on the folder itself, so that no file is left behind. A folder created here is removed if left empty.

    Raises UserError where another process holds the folder, or it cannot be made.
    """
    folder = pathlib.Path(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(storage_message(folder, error)) from error
    try:
        with _lock(folder):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def locked_file(path: str | pathlib.Path) -> Iterator[None]:
    """Lock a file, created if missing, for a command that writes one file. Raises UserError as `locked` does."""
    path = pathlib.Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise UserError(storage_message(path, error)) from error
    with _lock(path):
        yield


def hold(file: int) -> bool:
    """Lock an open file for this process; return False where another process holds it.

    Where the system has no such locks (Windows, some network drives), nothing is locked, and the result is True.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a drive without locks
    return True


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
    file = os.open(path, os.O_RDONLY)
    try:
        if not hold(file):
            raise UserError(
                f"{path}: another command is writing there. Expected one at a time: wait for it, or use another "
                "--output"
            )
        yield
    finally:
        os.close(file)
