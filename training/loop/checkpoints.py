"""The state of a training in one file, written atomically: weights, optimiser, averages, seeds, schedule, history.

The newest two are kept: RUN/checkpoints/last.npz and previous.npz.
"""

from __future__ import annotations

import json
import os
import pathlib
import zipfile
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.files import write_atomically

NAMES = ("last.npz", "previous.npz")
"""Of the checkpoints, the newest first."""
RUN = "run"
"""The entry of a checkpoint's progress that names the run."""


def find_checkpoints(run: str | pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints that there are in a run directory, the newest first."""
    return [path for name in NAMES if (path := pathlib.Path(run) / "checkpoints" / name).exists()]


def state_variables(model: keras.Model) -> list[Any]:
    """Every variable that a training step reads or writes: weights, dropout's seeds, moments, averages, step, rate."""
    return [*model.variables, *model.optimizer.variables]


def save_checkpoint(
    path: str | pathlib.Path, model: keras.Model, progress: dict[str, Any], run: str | None = None
) -> None:
    """Write all variables and `progress` (JSON data) to one file; the former one is kept beside it as previous.npz.

    `run` is the id of the run that it belongs to.
    """
    arrays = {f"v{index:04d}": keras.ops.convert_to_numpy(v) for index, v in enumerate(state_variables(model))}
    content = np.frombuffer(json.dumps({**progress, RUN: run}).encode("utf-8"), np.uint8)

    def write(temporary: pathlib.Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, progress=content, **arrays)
            file.flush()
            os.fsync(file.fileno())
        # The new one is whole and on the disk. A kill between the two renamings leaves the former one, as previous.npz.
        if pathlib.Path(path).exists():
            pathlib.Path(path).replace(pathlib.Path(path).with_name(NAMES[1]))

    write_atomically(path, write)


def load_checkpoint(path: str | pathlib.Path, model: keras.Model, run: str | None = None) -> dict[str, Any]:
    """Put the saved variables into `model` and its optimiser; returns `progress`.

    Raises UserError for a damaged file, and for one of another model or, where `run` is given, of another run.
    """
    variables = state_variables(model)
    try:
        with pathlib.Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            progress = json.loads(file["progress"].tobytes().decode("utf-8"))
            names = [f"v{index:04d}" for index in range(len(file.files) - 1)]
            arrays = [file[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        raise _refusal(path, f"damaged, so training cannot resume ({error})") from error
    other = "is of another model, so training cannot resume from it"
    if len(arrays) != len(variables):
        raise _refusal(path, f"{other} ({len(arrays)} variables, expected {len(variables)})")
    for variable, array in zip(variables, arrays, strict=True):
        if tuple(variable.shape) != array.shape:
            raise _refusal(path, f"{other} (shape {array.shape} of {variable.path}, expected {tuple(variable.shape)})")
    of = progress.pop(RUN, None)
    if run is not None and of is not None and of != run:
        raise _refusal(path, "is of another run, so training cannot resume from it")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return dict(progress)


def _refusal(path: str | pathlib.Path, problem: str) -> UserError:
    return UserError(
        f"{path}: {problem}. Expected the checkpoint of this very training. Start anew with --overwrite, or use "
        "another --output"
    )
