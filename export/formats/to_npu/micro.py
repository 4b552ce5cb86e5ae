"""TensorFlow Lite Micro's interpreter, if installed (extra `micro`): whether a graph runs, and its arena size.

It runs as a process of its own, because it reports its arena on standard error, and ends the process on failure:

    python -m keras_attention.export.formats.to_npu.micro FILE CALLS OUTPUTS < examples.npz
"""

import dataclasses
import importlib.util
import io
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import ConversionError
from .. import child_process

ARENA = 64 << 20
"""Size of a generous arena, in which a graph's own need is measured."""


@dataclasses.dataclass(frozen=True)
class MicroRun:
    """Result of one graph: bytes of its arena, and its largest difference from LiteRT in int8 steps."""

    arena: int
    steps: int


def installed() -> bool:
    return importlib.util.find_spec("tflite_micro") is not None


def run(path: pathlib.Path, examples: Sequence[Mapping[int, np.ndarray]], outputs: int) -> tuple[int, Any]:
    """Run a file on examples.

    Args:
        path: an int8 file.
        examples: for each call the int8 inputs, by their number.
        outputs: number of the graph's outputs.

    Returns:
        Bytes of the arena, and for each example its outputs.

    Raises:
        ConversionError: if the interpreter fails.
    """
    arrays = {f"{call}/{number}": value for call, one in enumerate(examples) for number, value in one.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    arguments = ["-m", __name__, str(path), str(len(examples)), str(outputs)]
    finished = child_process.run(arguments, input=content.getvalue())
    told = finished.stderr.decode(errors="replace")
    arena = re.search(r"Arena allocation total (\d+) bytes", told)
    if finished.returncode or arena is None:
        words = told.strip().splitlines() or ["no reason given"]
        raise ConversionError(f"TensorFlow Lite Micro cannot run {path.name}: {words[-1][:300]}")
    found = np.load(io.BytesIO(finished.stdout), allow_pickle=False)
    return int(arena[1]), [[found[f"{call}/{i}"] for i in range(outputs)] for call in range(len(examples))]


def main(arguments: Sequence[str]) -> int:
    from tflite_micro.python.tflite_micro import runtime

    path, calls, outputs = arguments[0], int(arguments[1]), int(arguments[2])
    examples = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    interpreter = runtime.Interpreter.from_file(path, arena_size=ARENA)
    found = {}
    for call in range(calls):
        interpreter.reset()  # the fused LSTM keeps its last state
        for name in examples.files:
            if name.startswith(f"{call}/"):
                interpreter.set_input(examples[name], int(name.split("/")[1]))
        interpreter.invoke()
        for number in range(outputs):
            found[f"{call}/{number}"] = interpreter.get_output(number)
    interpreter.print_allocations()
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **found)
    sys.stdout.buffer.write(content.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
