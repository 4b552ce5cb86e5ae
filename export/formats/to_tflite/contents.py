"""Signatures and operators of a TFLite file."""

import pathlib
from collections.abc import Mapping

import numpy as np

from ...parity.structure import Ports
from . import convert as litert


def signatures(path: pathlib.Path) -> dict[str, Ports]:
    """Return the signatures of a TFLite file. Output sizes are known only after a run, so their axes are None."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    found: dict[str, Ports] = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        found[name] = {
            "inputs": {
                port: {
                    "dtype": np.dtype(detail["dtype"]).name,
                    "axes": [None if size < 0 else int(size) for size in detail["shape_signature"]],
                }
                for port, detail in runner.get_input_details().items()
            },
            "outputs": {
                port: {"dtype": np.dtype(detail["dtype"]).name, "axes": None}
                for port, detail in runner.get_output_details().items()
            },
        }
    return found


def operators(path: pathlib.Path) -> dict[str, dict[str, int]]:
    """Count the operators of a TFLite file, `builtin` and `custom`."""
    return litert.operators(path.read_bytes())


def operator_failures(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return operators that a plain TFLite interpreter lacks."""
    if not counts["custom"]:
        return []
    return [f"tflite: operators. Expected: built-in ones only. Received: {', '.join(counts['custom'])}"]
