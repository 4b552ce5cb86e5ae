"""ONNX files of lower precision: float16 weights, or int8 weights with dynamically quantised activations."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..int8_rows import quantised_rows
from . import loops as onnx_loops
from . import tables as onnx_tables

SMALLEST = 256
"""Minimum number of elements of a constant that is stored as float16."""
RECURRENT = ("LSTM", "GRU")
LEAST, MOST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)


def to_float16(model: Any) -> Any:
    """Store a model's float32 constants as float16; all products stay in float32.

    Runtimes convert the constants back when they load the file. It saves file size only, not time.
    """
    import onnx

    graph = model.graph
    stored, casts = [], []
    for constant in graph.initializer:
        large = constant.data_type == onnx.TensorProto.FLOAT and np.prod(constant.dims) >= SMALLEST
        values = onnx.numpy_helper.to_array(constant) if large else np.zeros(1)
        largest = float(np.abs(values).max())
        if not large or not (largest == 0 or LEAST <= largest <= MOST):  # for example the score NEVER
            stored.append(constant)
            continue
        name = f"{constant.name}/float16"
        stored.append(onnx.numpy_helper.from_array(values.astype(np.float16), name))
        casts.append(onnx.helper.make_node("Cast", [name], [constant.name], to=onnx.TensorProto.FLOAT))
    onnx_loops.set_items(graph.initializer, stored)
    onnx_loops.set_items(graph.node, [*casts, *graph.node])
    return model


def share_transposes(graph: Any) -> None:
    """Replace constants that are another's transpose by `Transpose` nodes, in place: runtimes fold them at load."""
    import onnx

    matrices = [constant for constant in graph.initializer if len(constant.dims) == 2]
    kept: dict[str, np.ndarray] = {}
    made, dropped = [], set()
    for constant in matrices:
        values = onnx.numpy_helper.to_array(constant)
        if values.size < SMALLEST:
            continue
        same = (name for name, other in kept.items() if other.shape == values.shape[::-1])
        name = next((name for name in same if np.array_equal(kept[name].T, values)), None)
        if name is None:
            kept[constant.name] = values
            continue
        made.append(onnx.helper.make_node("Transpose", [name], [constant.name], perm=[1, 0]))
        dropped.add(constant.name)
    onnx_loops.set_items(graph.initializer, [one for one in graph.initializer if one.name not in dropped])
    onnx_loops.set_items(graph.node, [*made, *graph.node])


def fold_transposes(graph: Any) -> dict[str, str]:
    """Fold transposes of constants, in place, so that the operands of products are visibly constant.

    Returns a map between each such constant and its transpose, in both directions.
    """
    import onnx

    constants = {constant.name: constant for constant in graph.initializer}
    kept: list[Any] = []
    turned: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Transpose" or node.input[0] not in constants:
            kept.append(node)
            continue
        order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
        values = onnx.numpy_helper.to_array(constants[node.input[0]]).transpose(order)
        folded = onnx.numpy_helper.from_array(np.ascontiguousarray(values), node.output[0])
        constants[folded.name] = folded
        turned |= {node.input[0]: folded.name, folded.name: node.input[0]}
        graph.initializer.append(folded)
    onnx_loops.set_items(graph.node, kept)
    return turned


def store_recurrent(graph: Any) -> None:
    """Store the weights of LSTM and GRU nodes, in place, as int8 with a scale for each row.

    They are dequantised once, when the file is loaded.
    """
    import onnx

    constants = {constant.name: constant for constant in graph.initializer}
    made: list[Any] = []
    for name in {name for node in graph.node if node.op_type in RECURRENT for name in node.input[1:3]}:
        weights = onnx.numpy_helper.to_array(constants.pop(name))
        rows, scale = quantised_rows(weights)
        stored, factor, floats = f"{name}/int8", f"{name}/scale", f"{name}/float32"
        constants[stored] = onnx.numpy_helper.from_array(rows, stored)
        constants[factor] = onnx.numpy_helper.from_array(scale[..., None], factor)
        made.append(onnx.helper.make_node("Cast", [stored], [floats], to=onnx.TensorProto.FLOAT))
        made.append(onnx.helper.make_node("Mul", [floats, factor], [name]))
    onnx_loops.set_items(graph.initializer, constants.values())
    onnx_loops.set_items(graph.node, [*made, *graph.node])


def batched_products(graph: Any, ranks: Mapping[str, int] | None = None) -> list[str]:
    """Return the names of products with a constant stack of matrices, which ONNX Runtime cannot scale per output."""
    ranks = {**(ranks or {}), **{constant.name: len(constant.dims) for constant in graph.initializer}}
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and ranks.get(node.input[1], 2) > 2:
            found.append(node.name)
        for body in onnx_loops.subgraphs(node):
            found += batched_products(body, ranks)
    return found


def vector_lookups(graph: Any) -> list[str]:
    """Return the names of lookups in a constant vector, a bias for example: too small to be worth the loss."""
    vectors = {constant.name for constant in graph.initializer if len(constant.dims) == 1}
    return [node.name for node in graph.node if node.op_type == "Gather" and node.input[0] in vectors]


def to_dynamic_int8(model: Any) -> Any:
    """Quantise a model's products and LSTMs: int8 weights with one scale for each output, dynamic activations.

    That is ONNX Runtime's dynamic quantisation, loops included. Activations have one scale for the whole batch.
    Products with a stack of matrices, one for each head, stay in float32. Embeddings: see `tables`.
    """
    import tempfile

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    turned = fold_transposes(model.graph)
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        quantize_dynamic(
            model,
            file.name,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "LSTM"],
            nodes_to_exclude=batched_products(model.graph),
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
        quantised = onnx.load(file.name)
    onnx_loops.put_in_order(quantised.graph)
    store_recurrent(quantised.graph)  # a GRU, which ONNX Runtime does not quantise
    onnx_tables.store_tables(quantised.graph, turned)
    onnx_loops.prune(quantised.graph)  # it leaves the former weights behind where loops read them
    return quantised
