"""ONNX: one checked file per graph, with this package's names for inputs, outputs and axes.

The converter reads a SavedModel and runs as a process of its own:

    python -m keras_attention.export.formats.to_onnx.convert SAVED_MODEL OUTPUT_FOLDER GRAPHS.json PRECISION
"""

import collections
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...graphs import lstm_lengths
from . import loops as onnx_loops
from . import passes as onnx_passes
from . import weights as onnx_weights

OPSET = 18
"""The newest operator set that tf2onnx writes."""


def convert(loaded: Any, name: str, graph: Mapping[str, Any], precision: str = "float32") -> Any:
    """Convert one signature of a SavedModel to a checked ONNX model.

    Args:
        loaded: the SavedModel that `write_saved_model` wrote, loaded; it owns the variables.
        name: the signature.
        graph: its ports, as `Graph.to_dict` gives them, and whether to `tell_lengths`, see `lstm_lengths`.
        precision: `"float32"`, `"float16"` or `"dynamic_int8"`, see `weights`.

    Raises:
        Exception: the converter's or the checker's own.
    """
    import onnx
    import tensorflow as tf

    signature = loaded.signatures[name]
    specs = [
        tf.TensorSpec([axis if isinstance(axis, int) else None for axis in port["axes"]], port["dtype"], name=port_name)
        for port_name, port in graph["inputs"].items()
    ]

    def function(*tensors: Any) -> Any:
        return signature(**dict(zip(graph["inputs"], tensors, strict=True)))

    traced = tf.function(function, autograph=False)
    model = onnx_passes.from_function(traced.get_concrete_function(*specs), OPSET)
    name_ports(model.graph, graph)
    model.graph.name = name
    del model.graph.value_info[:]
    onnx_loops.hoist(model.graph)
    if graph.get("tell_lengths"):
        lstm_lengths.tell_lengths(model.graph)
    onnx_weights.share_transposes(model.graph)
    if precision == "float16":
        model = onnx_weights.to_float16(model)
    elif precision == "dynamic_int8":
        model = onnx_weights.to_dynamic_int8(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def name_ports(onnx_graph: Any, graph: Mapping[str, Any]) -> None:
    """Give inputs, outputs and their axes the names of the graph, and put them in its order.

    Raises:
        ValueError: if the converter lost an input or an output.
    """
    for direction, ports in (("input", graph["inputs"]), ("output", graph["outputs"])):
        infos = {info.name.split(":")[0]: info for info in getattr(onnx_graph, direction)}
        if set(infos) != set(ports):
            raise ValueError(f"{direction}s of the ONNX graph. Expected: {sorted(ports)}. Received: {sorted(infos)}")
        for name, port in ports.items():
            rename(onnx_graph, infos[name].name, name)
            infos[name].name = name
            dimensions = infos[name].type.tensor_type.shape
            dimensions.ClearField("dim")
            for axis in port["axes"]:
                dimension = dimensions.dim.add()
                if isinstance(axis, int):
                    dimension.dim_value = axis
                else:
                    dimension.dim_param = axis
        ordered = [infos[name] for name in ports]
        onnx_loops.set_items(getattr(onnx_graph, direction), ordered)


def rename(onnx_graph: Any, old: str, new: str) -> None:
    """Rename one tensor in a graph and its nested graphs."""
    if old == new:
        return
    for node in onnx_graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
        for body in onnx_loops.subgraphs(node):
            rename(body, old, new)


def operators(onnx_graph: Any) -> dict[str, int]:
    """Count each operator, nested graphs included; one of another domain is named `domain.Operator`."""
    counts: collections.Counter[str] = collections.Counter()
    for node in onnx_graph.node:
        counts[f"{node.domain}.{node.op_type}" if node.domain else node.op_type] += 1
        for body in onnx_loops.subgraphs(node):
            counts.update(operators(body))
    return dict(sorted(counts.items()))


def main(arguments: Sequence[str]) -> int:
    import onnx
    import tensorflow as tf

    saved_model, folder, description = (pathlib.Path(argument) for argument in arguments[:3])
    loaded = tf.saved_model.load(str(saved_model))
    for name, graph in json.loads(description.read_text(encoding="utf-8")).items():
        onnx.save(convert(loaded, name, graph, *arguments[3:]), folder / f"{name}.onnx")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
