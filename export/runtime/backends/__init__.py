"""Interpreters that run the files of an artefact, by name.

A backend is `run(signature, inputs) -> outputs` over named arrays. Its module is imported when it is opened, because an
artefact holds only those of its own formats.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

from ..errors import MissingPackageError


@dataclasses.dataclass(frozen=True)
class Backend:
    """An interpreter of one format: its module in this folder and the class there."""

    format: str
    module: str
    kind: str

    def __call__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None) -> Any:
        """Open the format's files.

        Raises:
            ArtefactError: if a file is missing or changed, or the interpreter is not installed.
        """
        try:
            module = importlib.import_module(f".{self.module}", __package__)
        except ModuleNotFoundError as error:
            if error.name != f"{__package__}.{self.module}":
                raise
            raise MissingPackageError(
                f"This runtime has no {self.kind}: the artefact that holds it has no such files. "
                f"Run: python {directory / 'runtime'}"
            ) from None
        return getattr(module, self.kind)(directory, manifest, threads)


BACKENDS: dict[str, Any] = {
    "litert": Backend("tflite", "litert", "LiteRT"),
    "onnx": Backend("onnx", "onnx_runtime", "Onnx"),
    "openvino": Backend("onnx", "openvino", "OpenVino"),
    "npu": Backend("npu", "npu", "Npu"),
}
