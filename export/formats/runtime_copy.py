"""Copies of the runtimes in an artefact: the folder `runtime/` in Python, `web/` in JavaScript."""

import pathlib
import shutil
from collections.abc import Collection

from .. import runtime

SOURCE = pathlib.Path(runtime.__file__).parent


def copy_runtime(stage: pathlib.Path, formats: Collection[str]) -> None:
    """Copy the Python runtime, with the backends of these formats only."""
    left_out = {f"{backend.module}.py" for backend in runtime.BACKENDS.values() if backend.format not in formats}

    def ignored(folder: str, names: list[str]) -> set[str]:
        unwanted = {name for name in names if name in ("__pycache__", "web")}
        return unwanted | (left_out & {*names} if pathlib.Path(folder).name == "backends" else set())

    shutil.copytree(SOURCE, stage / "runtime", ignore=ignored)


def copy_web(stage: pathlib.Path) -> None:
    """Copy the JavaScript runtime and its page."""
    shutil.copytree(SOURCE / "web", stage / "web")
