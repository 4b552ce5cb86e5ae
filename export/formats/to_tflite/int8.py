"""TFLite files in int8, weights and activations: one for each graph of the NPU format.

The converter reads a SavedModel and may crash the interpreter, so it runs as a process of its own:

    python -m keras_attention.export.formats.to_tflite.int8 SAVED_MODEL FOLDER CALIBRATION SIGNATURE...

CALIBRATION holds SIGNATURE.npz, the calibration inputs `(N, ...)`.
"""

import pathlib
import sys
from collections.abc import Iterator, Sequence

import numpy as np

from . import fused_lstm


def convert(saved_model: pathlib.Path, signature: str, calibration: pathlib.Path) -> bytes:
    """Convert one signature to an int8 file, with int8 inputs and outputs."""
    import tensorflow as tf

    arrays = dict(np.load(calibration, allow_pickle=False))

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for row in range(len(next(iter(arrays.values())))):
            yield {name: values[row] for name, values in arrays.items()}

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[signature])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return fused_lstm.with_known_scales(bytes(converter.convert()))


def main(arguments: Sequence[str]) -> int:
    saved_model, folder, calibration, *signatures = (pathlib.Path(argument) for argument in arguments)
    for signature in signatures:
        content = convert(saved_model, signature.name, calibration / f"{signature.name}.npz")
        (folder / f"{signature.name}.tflite").write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
