"""What of an export can be refused before any work: formats, precisions, tasks, references, the backend."""

import importlib.util
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import TASK_METRIC
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy

from . import runtime
from .graphs.knobs import describe_search
from .parity.quality import Task

FORMATS = ("saved_model", "tflite", "onnx")
HELD = {
    "saved_model": ("float32",),
    "tflite": ("float32", "float16", "dynamic_int8"),
    "onnx": ("float32", "float16", "dynamic_int8", "int8"),
}
"""The precisions that each format can hold."""
PRECISIONS = HELD["onnx"]
TARGETS = ("mobile", "npu")
ALIASES = {"litert": "tflite", "savedmodel": "saved_model"}


def check_formats(to: str | Sequence[str] | None, precision: str = "float32") -> list[str]:
    """The formats asked for, without repetition, under their own names; all that can hold the precision for `None`.

    Raises:
        UserError: if one is unknown or cannot hold the precision, there is none, or the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise UserError(f"Unknown precision. Expected: one of {', '.join(PRECISIONS)}. Received: {precision!r}")
    if to is None:
        return [name for name in FORMATS if precision in HELD[name]]
    names = [to] if isinstance(to, str) else list(to)
    formats = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(
            f"Unknown export format. Expected: one or several of {', '.join(FORMATS)} (litert is tflite). "
            f"Received: {', '.join(unknown) or 'none'}"
        )
    unable = [name for name in formats if precision not in HELD[name]]
    if unable:
        able = [name for name in FORMATS if precision in HELD[name]]
        other = ", or --target npu: TFLite files of static graphs" if precision == "int8" else ""
        raise UserError(f"{unable[0]} cannot hold {precision}. Expected: --to {' '.join(able)}{other}")
    return formats


def check_task(task: str, limit: float) -> Task:
    """What outputs are scored by. Raises UserError for an unknown task, and a limit that is no number."""
    if task not in TASK_METRIC:
        raise UserError(f"Unknown task. Expected: one of {', '.join(TASK_METRIC)}. Received: {task!r}")
    if not limit >= 0:
        raise UserError(f"The loss limit is out of range. Expected: at least 0. Received: {limit}")
    return Task(task, limit=limit)


def check_references(
    references: Sequence[str | Sequence[str]] | None, samples: Sequence[Any] | None
) -> list[list[str]]:
    """A list of texts for each sample; none without references. Raises UserError for another number of them."""
    accepted = [[one] if isinstance(one, str) else list(one) for one in references or ()]
    if accepted and len(accepted) != len(samples or ()):
        raise UserError(
            f"References do not fit the samples. Expected: {len(samples or ())}, one line each. "
            f"Received: {len(accepted)}"
        )
    if accepted and not all(accepted):
        raise UserError("A sample has no reference. Expected: at least one each")
    return accepted


def check_host_search(settings: SearchPolicy) -> None:
    """Raises UserError unless the host loop of the artefact's runtime knows the search: int8 files hold no other."""
    missing = runtime.only_in_graph({"search": describe_search(settings)})
    if missing:
        raise UserError(f"int8 files are searched on the host, which knows no {missing}. Expected: a plain beam search")


def check_both_ways(settings: SearchPolicy, models: Sequence[Any]) -> None:
    """Raises UserError for a run that learnt to write in one direction alone, where both shall agree."""
    for run in models if settings.method == "agreement" else ():
        if isinstance(run, RunDirectory) and not run.writes_backward:
            raise UserError(
                f"{run.path} was trained to write in one direction. Expected, for agreement, a run that learnt some "
                "targets backwards: train --backward 0.5"
            )


def check_calibration(precision: str, calibration: Sequence[Any] | None, source_length: int) -> None:
    """Raises UserError for text to take ranges from where nothing has them, and for sources without room for a word."""
    if calibration is not None and precision != "int8":
        raise UserError(
            "Only int8 takes ranges from calibration text. Expected it with precision int8 or target npu. "
            f"Received: precision {precision}"
        )
    if source_length < 2:
        raise UserError(f"Expected: source_length of 2 or more, EOS counted. Received: {source_length}")


def check_float16(model: Any, formats: Sequence[str]) -> None:
    """Raises UserError for a weight that a float16 TFLite file would change to another number."""
    most, least = (float(bound) for bound in (np.finfo(np.float16).max, np.finfo(np.float16).tiny))
    for weight in getattr(model, "weights", ()) if "tflite" in formats else ():
        values = np.asarray(weight)
        if values.dtype.kind != "f" or not values.size:
            continue
        largest = float(np.abs(values).max())
        if not largest <= most:
            fault, bound = "too large", f"at most {most:g}"
        elif 0 < largest < least:
            fault, bound = "too small", f"at least {least:.1g}"
        else:
            continue
        raise UserError(
            f"The weight {weight.path} is {fault} for float16. Expected: {bound} as its largest number. "
            f"Received: {largest:g}. Export in float32, or as ONNX alone (--to onnx)"
        )


def check_backend() -> None:
    """Raises UserError unless Keras runs on TensorFlow and the converters are installed."""
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "Export runs on the TensorFlow backend of Keras; a model trained on another one loads there as it is. "
            f"Expected: KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )
    for module in ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "tensorflow_text"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"Export needs {module}, which is not installed. Run: pip install 'keras-luong[export]'")
