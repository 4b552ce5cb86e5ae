"""Staging folder of an artefact, beside its final name, which it gets when verified.

The folder has a name of its own for each output, `.NAME.export`, and a file in it on which the export holds a lock.
So two exports to one name never collide, and the next export finds the remains of a killed one.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from keras_attention.errors import UserError
from keras_attention.folder_lock import hold

from .errors import disk_full, is_disk_full
from .formats.plain_paths import plain_path

LOCK = "lock"
FORMER = "former"
"""The artefact being replaced, until the new one has its name."""


def check_output(output: pathlib.Path, overwrite: bool) -> pathlib.Path:
    """Return the directory to write; raises UserError if it exists and may not be replaced."""
    if not output.exists():
        return output
    if not overwrite:
        raise UserError(f"{output} exists already. Choose another output, or allow it to be overwritten (--overwrite)")
    if not output.is_dir() or (any(output.iterdir()) and not (output / "manifest.json").exists()):
        raise UserError(f"{output} exists and is no artefact: it will not be overwritten. Choose another output")
    return output


@contextlib.contextmanager
def staging(output: pathlib.Path, overwrite: bool = True) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Create two folders beside the output, for the artefact and for intermediate files; removed in any case.

    Raises:
        UserError: if the output cannot be written, exists and may not be replaced, or another export writes it.
    """
    folder = output.parent / f".{output.name}.export"
    with locked(folder, output):
        try:
            clear(folder, output)
            check_output(output, overwrite)  # another export may have ended since the first check
            (folder / "artefact").mkdir()
            (folder / "work").mkdir()
            with plain_path(folder) as plain:
                yield plain / "artefact", plain / "work"
        except UserError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise disk_full(output) from None
            raise
        finally:
            clear(folder, output)


@contextlib.contextmanager
def locked(folder: pathlib.Path, output: pathlib.Path) -> Iterator[None]:
    """Lock the folder, created if missing, for this process; it is removed if only the lock is left in it."""
    file = _lock(folder, output)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if [path.name for path in folder.iterdir()] == [LOCK]:
                shutil.rmtree(folder)
        os.close(file)


def _lock(folder: pathlib.Path, output: pathlib.Path) -> int:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the previous export has just ended
            continue
        except OSError as error:
            raise UserError(f"{output} cannot be written: {error.strerror}. Choose another output") from None
        if not hold(file):
            os.close(file)
            raise UserError(
                f"{output}: another export is writing it. Wait until that has ended, or choose another output"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(folder / LOCK)):
                return file
        os.close(file)  # of a folder that was removed between opening and locking


def clear(folder: pathlib.Path, output: pathlib.Path) -> None:
    """Remove an export's remains, but give a former artefact that lost its name that name back."""
    former = folder / FORMER
    if former.exists() and not output.exists():
        with contextlib.suppress(OSError):
            former.rename(output)
    replaced = (output / "manifest.json").exists()
    for path in folder.iterdir():
        if path.name != LOCK and (path.name != FORMER or replaced):
            shutil.rmtree(path, ignore_errors=True)


def publish(stage: pathlib.Path, output: pathlib.Path) -> None:
    """Rename the verified artefact to its name; a former one is deleted only when the new one is in its place.

    Raises:
        UserError: if neither can be renamed; it says where the former one is.
    """
    former = stage.parent.resolve() / FORMER
    if output.exists():
        output.rename(former)
    try:
        stage.rename(output)
    except BaseException as error:
        if former.exists():
            try:
                former.rename(output)
            except OSError:
                raise UserError(
                    f"{output} cannot be replaced: {error}. The former artefact lies in {former}: move it back"
                ) from error
        raise
