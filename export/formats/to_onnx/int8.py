"""ONNX files in int8, weights and activations: float32 graphs with ranges recorded during translation.

The result is the form that hardware reads: standard operators between `QuantizeLinear` and `DequantizeLinear`
(QDQ), one static scale for each output of a weight, and one for each activation. An LSTM or GRU node
computes in float32 from int8 weights.

    python -m keras_attention.export.formats.to_onnx.int8 FLOAT_FOLDER FOLDER CALIBRATION NAME...

CALIBRATION holds NAME.npz, whose array `i/PORT` is the input of a port in call i.
"""

import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import loops as onnx_loops
from . import weights as onnx_weights

QUANTISED = ("MatMul", "Gemm", "Gather")
"""Operators that compute in int8: matrix products, including those of attention, and lookups."""


def convert(path: pathlib.Path, calls: Iterable[Mapping[str, np.ndarray]]) -> Any:
    """Quantise a float32 file to int8, with the inputs of some calls for calibration."""
    import tempfile

    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Calls(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calls)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.left, None)

    model = onnx.load(str(path))
    onnx_weights.fold_transposes(model.graph)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        quantize_static(
            model,
            file.name,
            Calls(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=onnx_weights.batched_products(model.graph) + onnx_weights.vector_lookups(model.graph),
        )
        quantised = onnx.load(file.name)
    onnx_weights.store_recurrent(quantised.graph)
    onnx_loops.prune(quantised.graph)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def write_calls(path: pathlib.Path, calls: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Write the inputs of some calls to one file."""
    arrays = {f"{number}/{name}": value for number, call in enumerate(calls) for name, value in call.items()}
    np.savez(path, allow_pickle=False, **arrays)


def read_calls(path: pathlib.Path) -> Iterator[dict[str, np.ndarray]]:
    """Read the calls that `write_calls` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        names = [name.split("/", 1) for name in arrays.files]
        for number in range(1 + max(int(number) for number, _ in names)):
            yield {name: arrays[f"{number}/{name}"] for other, name in names if int(other) == number}


def main(arguments: Sequence[str]) -> int:
    import onnx

    floats, folder, calibration = (pathlib.Path(argument) for argument in arguments[:3])
    for name in arguments[3:]:
        onnx.save(convert(floats / f"{name}.onnx", read_calls(calibration / f"{name}.npz")), folder / f"{name}.onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
