"""LiteRT: the TFLite file."""

import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import require
from ..inputs import Arrays
from ..manifest import check_file


class LiteRT:
    """The TFLite file: one interpreter, one runner per signature.

    An interpreter has one set of inputs and outputs, so threads take turns.
    """

    name, format = "litert", "tflite"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        path = check_file(directory, manifest, manifest["formats"]["tflite"]["file"])
        module = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self.interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        self.runners: dict[str, Any] = {}
        self.turn = threading.Lock()

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.turn:
            if signature not in self.runners:
                self.runners[signature] = self.interpreter.get_signature_runner(signature)
            return dict(self.runners[signature](**inputs))
