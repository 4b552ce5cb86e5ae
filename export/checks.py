"""Checks of export arguments before any work: tasks, references, calibration text, the backend."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import TASK_METRIC
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy

from .parity.quality import Task


def check_task(task: str, limit: float) -> Task:
    """Return the task. Raises UserError for an unknown task, and a limit that is not a number."""
    if task not in TASK_METRIC:
        raise UserError(f"Unknown task. Expected: one of {', '.join(TASK_METRIC)}. Received: {task!r}")
    if not limit >= 0:
        raise UserError(f"The loss limit is out of range. Expected: at least 0. Received: {limit}")
    return Task(task, limit=limit)


def check_references(
    references: Sequence[str | Sequence[str]] | None, samples: Sequence[Any] | None
) -> list[list[str]]:
    """Return the references of each sample, or none. Raises UserError for a wrong number of them."""
    accepted = [[one] if isinstance(one, str) else list(one) for one in references or ()]
    if accepted and len(accepted) != len(samples or ()):
        raise UserError(
            f"References do not fit the samples. Expected: {len(samples or ())}, one line each. "
            f"Received: {len(accepted)}"
        )
    if accepted and not all(accepted):
        raise UserError("A sample has no reference. Expected: at least one each")
    return accepted


def check_both_ways(settings: SearchPolicy, models: Sequence[Any]) -> None:
    """Raise UserError for agreement search with a run that was trained in one direction only."""
    for run in models if settings.method == "agreement" else ():
        if isinstance(run, RunDirectory) and not run.writes_backward:
            raise UserError(
                f"{run.path} was trained to write in one direction. Expected, for agreement, a run that learnt some "
                "targets backwards: train --backward 0.5"
            )


def check_calibration(precision: str, calibration: Sequence[Any] | None, source_length: int) -> None:
    """Raise UserError for unused calibration text, and a source length without room for a token."""
    if calibration is not None and precision != "int8":
        raise UserError(
            "Only int8 takes ranges from calibration text. Expected it with precision int8, or to npu. "
            f"Received: precision {precision}"
        )
    if source_length < 2:
        raise UserError(f"Expected: source_length of 2 or more, EOS counted. Received: {source_length}")


def check_backend() -> None:
    """Raise UserError unless Keras runs on TensorFlow and the converters are installed."""
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "Export runs on the TensorFlow backend of Keras; a model trained on another one loads there as it is. "
            f"Expected: KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )
    for module in ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "tensorflow_text"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"Export needs {module}, which is not installed. Run: pip install 'keras-luong[export]'")
