"""The interpreters of each format: those of the standalone runtime, and TensorFlow."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import runtime
from .plain_paths import plain_path


class SavedModel:
    """A SavedModel, run like the interpreters of the standalone runtime."""

    format = "saved_model"

    def __init__(self, folder: pathlib.Path):
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  registers the operators of `translate_text`

        with plain_path(folder) as plain:
            self.loaded = tf.saved_model.load(str(plain))
        self.constant = tf.constant

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = self.loaded.signatures[signature](**{name: self.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def open_backend(directory: pathlib.Path, manifest: Mapping[str, Any], format_: str, threads: int | None = None) -> Any:
    """An interpreter of one format: `run(signature, inputs) -> outputs`."""
    if format_ == "saved_model":
        return SavedModel(directory / manifest["formats"]["saved_model"]["folder"])
    name = {"tflite": "litert"}.get(format_, format_)
    return runtime.BACKENDS[name](directory, manifest, threads)
