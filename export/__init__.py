"""Export to SavedModel, TFLite and ONNX, each verified against Keras.

    from keras_attention.export import export, verify, benchmark

Imports are lazy: only the first call loads TensorFlow.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import export
    from .report.benchmark import benchmark
    from .result import ExportResult
    from .verifier import verify

__all__ = ["ExportResult", "benchmark", "export", "verify"]

_HOMES = {"ExportResult": "result", "benchmark": "report.benchmark", "export": "exporter", "verify": "verifier"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from .errors import requirements

    with requirements():
        module = importlib.import_module(f".{_HOMES[name]}", __name__)
    return getattr(module, name)
