"""Cell state of the fused int8 LSTM of TFLite files, whose scale the converter may choose too small.

The operator keeps c in int16, with a scale 2^-s. LiteRT computes tanh(c) of numbers with 15 - s bits
before the point. It implements 0 to 6 of them, and otherwise silently leaves the result's memory unchanged. The
converter chooses s by the largest |c| in calibration: a scale of 2^-16 where that is below a half. TensorFlow Lite
Micro implements more bits, so that the two disagree.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

OPERATOR = "UNIDIRECTIONAL_SEQUENCE_LSTM"
CELL_STATE = 19
"""Index of the operator's input c."""
SMALLEST, LARGEST = 2.0**-15, 2.0**-9
"""Scales of 0 and of 6 bits before the point."""


def cell_scales(content: bytes | bytearray) -> list[float]:
    """Return the scale of the cell state of each fused LSTM of a TFLite file."""
    return [float(scale[0]) for scale in _scales(content)]


def with_known_scales(content: bytes) -> bytes:
    """Return the file with cell states that LiteRT supports: a scale that is too small becomes 2^-15.

    The operator derives everything else from that number when the file is loaded. Cell states are internal to
    it, and start with zeros: no other number of the file has that scale.
    """
    changed = bytearray(content)
    for scale in _scales(changed):
        scale[0] = max(scale[0], np.float32(SMALLEST))
    return bytes(changed)


def _scales(content: bytes | bytearray) -> Iterator[Any]:
    """Yield views of the numbers in the file."""
    from tensorflow.lite.python import schema_py_generated as schema

    number = getattr(schema.BuiltinOperator, OPERATOR)
    model = schema.Model.GetRootAs(content, 0)
    for graph in (model.Subgraphs(place) for place in range(model.SubgraphsLength())):
        for operator in (graph.Operators(place) for place in range(graph.OperatorsLength())):
            if model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode() == number:
                quantization = graph.Tensors(operator.Inputs(CELL_STATE)).Quantization()
                if quantization is not None and quantization.ScaleLength():
                    yield quantization.ScaleAsNumpy()
