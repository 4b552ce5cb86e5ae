"""ONNX Runtime: the ONNX files."""

import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import require
from ..inputs import Arrays
from ..manifest import check_file


class Onnx:
    """The ONNX files: one session per graph, opened when it is first run; threads share it and run at the same time."""

    name, format = "onnx", "onnx"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.directory, self.manifest = directory, manifest
        self.module = require("onnxruntime", "onnxruntime")
        self.options = self.module.SessionOptions()
        self.options.log_severity_level = 3  # errors; its warnings are about its own rewriting of loops
        if threads:
            self.options.intra_op_num_threads = threads
        self.sessions: dict[str, Any] = {}
        self.opening = threading.Lock()

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.opening:
            if signature not in self.sessions:
                path = check_file(self.directory, self.manifest, self.manifest["formats"]["onnx"]["files"][signature])
                self.sessions[signature] = self.module.InferenceSession(
                    str(path), self.options, providers=["CPUExecutionProvider"]
                )
        names = list(self.manifest["signatures"][signature]["outputs"])
        return dict(zip(names, self.sessions[signature].run(names, dict(inputs)), strict=True))
