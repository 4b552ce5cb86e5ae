"""OpenVINO: the ONNX files."""

import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArtefactError, require
from ..inputs import Arrays, source_lengths
from ..manifest import check_file


class OpenVino:
    """The ONNX files in OpenVINO, in float32 on the CPU: one compiled model per graph.

    Its LSTM does not stop a row's cell state at `sequence_lens`. So if the decoder begins with that state (an LSTM
    with the copy bridge), only rows of equal length run in one batch. Each call has its own inference request,
    because a model's shared one rejects a second thread.
    """

    name, format = "openvino", "onnx"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.directory, self.manifest = directory, manifest
        self.core = require("openvino", "openvino").Core()
        self.properties = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.properties["INFERENCE_NUM_THREADS"] = str(threads)
        self.models: dict[str, Any] = {}
        self.requests: dict[str, list[Any]] = {}
        """Inference requests of each graph that no thread is using."""
        self.opening = threading.Lock()
        members = manifest.get("members", [])
        self.one_length = any(member["cell"] == "lstm" and member["bridge"] == "copy" for member in members)

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        source = inputs.get("source_ids")
        if not self.one_length or source is None:
            return self._run(signature, inputs)
        lengths, found = source_lengths(source), {}
        ports = self.manifest["signatures"][signature]
        by_row = [name for name, port in ports["inputs"].items() if port["axes"][:1] == ["batch"]]
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            given = {**inputs, **{name: inputs[name][rows] for name in by_row}}
            part = self._run(signature, {**given, "source_ids": source[rows, : max(length, 1)]})
            for name, value in part.items():
                if name not in found:
                    shape = [len(source), *value.shape[1:]]
                    axes = ports["outputs"][name]["axes"]
                    if "source_length" in axes:
                        shape[axes.index("source_length")] = source.shape[1]
                    found[name] = np.zeros(shape, value.dtype)
                place: Any = (rows, *map(slice, value.shape[1:]))
                found[name][place] = value
        return found

    def _run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.opening:
            if signature not in self.models:
                self.models[signature] = self._compiled(signature)
            requests = self.requests.setdefault(signature, [])
            request = requests.pop() if requests else self.models[signature].create_infer_request()
        outputs = request.infer(dict(inputs))
        names = self.manifest["signatures"][signature]["outputs"]
        found = {name: np.array(outputs[number]) for number, name in enumerate(names)}
        with self.opening:
            self.requests[signature].append(request)
        return found

    def _compiled(self, signature: str) -> Any:
        path = check_file(self.directory, self.manifest, self.manifest["formats"]["onnx"]["files"][signature])
        try:
            return self.core.compile_model(str(path), "CPU", self.properties)
        except RuntimeError as error:  # OpenVINO reads only some files of lower precision
            reason = str(error).strip().splitlines()[-1][:200]
            raise ArtefactError(f"OpenVINO cannot read {path} ({reason}). Expected: a float32 export") from None
