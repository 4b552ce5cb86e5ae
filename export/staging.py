"""Where an artefact comes into being: beside its final name, which it gets when it is verified."""

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from keras_attention.errors import UserError

from .errors import disk_full, is_disk_full


def check_output(output: pathlib.Path, overwrite: bool) -> pathlib.Path:
    """The directory to write; raises UserError if it exists and may not be replaced."""
    if not output.exists():
        return output
    if not overwrite:
        raise UserError(f"{output} exists already. Choose another output, or allow it to be overwritten (--overwrite)")
    if not output.is_dir() or (any(output.iterdir()) and not (output / "manifest.json").exists()):
        raise UserError(f"{output} exists and is no artefact: it will not be overwritten. Choose another output")
    return output


@contextlib.contextmanager
def staging(output: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Two folders beside the output, for the artefact and for what leads to it; gone afterwards whatever happens."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}. Choose another output") from None
    try:
        stage, work = folder / "artefact", folder / "work"
        stage.mkdir()
        work.mkdir()
        yield stage, work
    except UserError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(output) from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(stage: pathlib.Path, output: pathlib.Path) -> None:
    """Give the verified artefact its name; a former one goes only when the new one is in its place."""
    former = stage.parent / "former"
    if output.exists():
        output.rename(former)
    try:
        stage.rename(output)
    except OSError:
        if former.exists():
            former.rename(output)
        raise
