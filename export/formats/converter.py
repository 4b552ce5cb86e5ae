"""Converters in processes of their own, so that a crash of the interpreter becomes an error message."""

import contextlib
import errno
import json
import os
import pathlib
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..errors import ConversionError, is_disk_full
from ..graphs.graph import Graph
from . import child_process
from .to_onnx import convert as to_onnx
from .to_tflite import convert as litert


@contextlib.contextmanager
def background() -> Iterator[Callable[..., None]]:
    """Yield a function that starts a conversion; the context ends when all of them have.

    Raises the error of the first conversion that failed. An interrupt ends the converters, too.
    """
    with ThreadPoolExecutor() as pool:  # the threads only wait for their processes
        started: list[Future[None]] = []

        def start(convert: Callable[..., None], *arguments: Any) -> None:
            started.append(pool.submit(convert, *arguments))

        try:
            yield start
            for conversion in started:
                conversion.result()
        except (KeyboardInterrupt, SystemExit):
            child_process.end_all()
            raise


def convert_to_tflite(
    saved_model: pathlib.Path,
    output: pathlib.Path,
    signatures: Sequence[str],
    precision: str = "float32",
    custom: bool = False,
) -> None:
    """Write the TFLite file of some signatures of a SavedModel.

    Raises:
        ConversionError: if the converter fails.
        OSError: if the disk is full.
    """
    run_converter(
        "TFLite",
        litert.__name__,
        [str(saved_model), str(output), precision, "custom" if custom else "builtin", *signatures],
        output,
    )


def convert_to_onnx(
    saved_model: pathlib.Path,
    folder: pathlib.Path,
    graphs: Iterable[Graph],
    work: pathlib.Path,
    precision: str = "float32",
    tell_lengths: bool = False,
) -> None:
    """Write one checked ONNX file per graph, `folder`/NAME.onnx, from the signatures of a SavedModel.

    `work` is a folder for intermediate files; `tell_lengths`: see `lstm_lengths`.

    Raises:
        ConversionError: if the converter or the checker fails.
        OSError: if the disk is full.
    """
    folder.mkdir()
    description = work / "graphs.json"
    description.write_text(
        json.dumps({graph.name: graph.to_dict() | {"tell_lengths": tell_lengths} for graph in graphs}), encoding="utf-8"
    )
    run_converter("ONNX", to_onnx.__name__, [str(saved_model), str(folder), str(description), precision], folder)


def run_converter(format_name: str, program: str, arguments: Sequence[str], output: pathlib.Path) -> None:
    """Run a converter, a module or the path of a script, as a Python process, on the CPU.

    Raises:
        ConversionError: with the end of the converter's output, or the signal that killed it.
        OSError: if the disk is full.
    """
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
    }
    words = [*([] if program.endswith(".py") else ["-m"]), program, *arguments]
    finished = child_process.run(words, env=environment, text=True, errors="replace")
    if finished.returncode == 0:
        return
    if is_disk_full(finished.stderr):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output))
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        raise ConversionError(
            f"The {format_name} converter crashed ({name}): it does not support something in this model, "
            "or ran out of memory. Nothing was written"
        )
    raise ConversionError(f"The {format_name} converter refused the model: {last_words(finished.stderr)}")


def last_words(stderr: str) -> str:
    """Return the informative line of a converter's output: the operators it lacks, or the exception."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    lacking = [line for line in lines if line.startswith(("TF Select ops:", "Custom ops:"))]
    if lacking:
        return f"operators without a built-in form ({lacking[-1]})"
    raised = [line for line in lines if "Error: " in line and not line.startswith(("W", "I", "E0"))]
    return (raised or lines or ["it gave no reason"])[-1][:400]
