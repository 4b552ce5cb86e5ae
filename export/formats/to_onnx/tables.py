"""Embeddings in int8 ONNX files: a scale for each token, and one table for a tied output layer.

ONNX Runtime's quantiser gives a table one scale, so that tokens of large weights reduce the resolution of all others.
It also stores the transposed table of the output layer separately. Here rows are gathered as int8 and dequantised by
their tokens' scales; the output layer has the same numbers, since there, too, each token has its own scale.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..int8_rows import quantised_rows
from . import loops as onnx_loops

LAST_AXIS = "int8/last_axis"


def lookups(graph: Any, outer: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yield the names of float matrices whose rows a `Gather` reads, loops included."""
    import onnx

    floats = [one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    matrices = outer | {one.name for one in floats if len(one.dims) == 2}
    for node in graph.node:
        if takes_rows(node) and node.input[0] in matrices:
            yield node.input[0]
        for body in onnx_loops.subgraphs(node):
            yield from lookups(body, matrices)


def takes_rows(node: Any) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    return bool(node.op_type == "Gather" and axis == 0)


def store_tables(graph: Any, turned: Mapping[str, str]) -> None:
    """Store every float matrix that is gathered from as int8 with a scale for each row, in place.

    Args:
        graph: quantised but for its lookups, all of whose constants are its own, not those of its loops.
        turned: the names that the transposes of matrices had before they were quantised.
    """
    import onnx

    constants = {constant.name: constant for constant in graph.initializer}
    names = dict.fromkeys(name for name in lookups(graph) if name in constants)
    made: list[Any] = []
    for name in names:
        product = f"{turned.get(name)}_quantized"
        scales = f"{turned.get(name)}_scale"
        if product in constants:
            rows = onnx.numpy_helper.to_array(constants.pop(product)).T
            scale = onnx.numpy_helper.to_array(constants[scales])
            made.append(onnx.helper.make_node("Transpose", [f"{name}/int8"], [product], perm=[1, 0]))
        else:
            rows, scale = quantised_rows(onnx.numpy_helper.to_array(constants[name]))
            scales = f"{name}/scale"
            constants[scales] = onnx.numpy_helper.from_array(scale, scales)
        stored = f"{name}/int8"
        constants[stored] = onnx.numpy_helper.from_array(np.ascontiguousarray(rows), stored)
        _look_up(graph, name, stored, scales)
    if names:
        constants[LAST_AXIS] = onnx.numpy_helper.from_array(np.asarray([-1], np.int64), LAST_AXIS)
    onnx_loops.set_items(graph.initializer, constants.values())
    onnx_loops.set_items(graph.node, [*made, *graph.node])


def _look_up(graph: Any, name: str, stored: str, scales: str) -> None:
    """Replace gathered rows of the matrix `name` by `rows * scales`, both gathered, in a graph and its loops."""
    import onnx

    make, nodes = onnx.helper.make_node, []
    for node in graph.node:
        for body in onnx_loops.subgraphs(node):
            _look_up(body, name, stored, scales)
        if not takes_rows(node) or node.input[0] != name:
            nodes.append(node)
            continue
        ids, found = node.input[1], node.output[0]
        own = {part: f"{found}/{part}" for part in ("int8", "float32", "scale", "column")}
        nodes += [
            make("Gather", [stored, ids], [own["int8"]]),
            make("Cast", [own["int8"]], [own["float32"]], to=onnx.TensorProto.FLOAT),
            make("Gather", [scales, ids], [own["scale"]]),
            make("Unsqueeze", [own["scale"], LAST_AXIS], [own["column"]]),
            make("Mul", [own["float32"], own["column"]], [found]),
        ]
    onnx_loops.set_items(graph.node, nodes)
