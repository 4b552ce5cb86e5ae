"""Any functional Keras model as a single graph: its call is the signature."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.types import Tensor, TensorDict

from .graph import Graph, probe_ports
from .port import Axis, Port

MOST_AXES = 5
"""Maximum number of named axes whose equalities are searched exhaustively: 52 partitions for 5."""


def model_graph(model: keras.Model) -> Graph:
    """Return the call of a functional Keras model as one graph, `call`, with the model's input and output names.

    Raises:
        UserError: if the model is not functional, or an input is neither numeric nor boolean.
    """
    try:
        struct = model.input
    except (AttributeError, ValueError):
        raise UserError(
            "Only a functional model has inputs of known names and shapes. Expected: keras.Model(inputs, outputs). "
            f"Received: {type(model).__name__} {model.name!r}"
        ) from None
    inputs = tuple(_input_port(name, tensor) for name, tensor in _named_leaves(struct))
    output_names = [name for name, _ in _named_leaves(model.output, model.output_names)]

    def call(*tensors: Tensor) -> TensorDict:
        outputs = model(keras.tree.pack_sequence_as(struct, list(tensors)), training=False)
        return dict(zip(output_names, keras.tree.flatten(outputs), strict=True))

    inputs, outputs = shared_axes(call, inputs)
    return Graph("call", call, inputs, outputs)


def shared_axes(call: Callable[..., TensorDict], inputs: tuple[Port, ...]) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return inputs and outputs, with one name for input axes that must have the same size.

    Nothing in a model says that a memory and its mask are equally long. The call is therefore tried with different
    sizes first, then with ever more axes of one size.

    Raises:
        UserError: if the call fails for every partition.
    """
    names = list(dict.fromkeys(axis for port in inputs for axis in port.axes if isinstance(axis, str)))
    free = [name for name in names if name != "batch"]
    ways = [[[name] for name in free], [free]] if len(free) > MOST_AXES else sorted(partitions(free), key=len)[::-1]
    problem: Exception | None = None
    for way in ways:
        leader = {name: block[0] for block in way for name in block}
        named = tuple(
            Port(port.name, port.dtype, tuple(leader.get(str(axis), axis) for axis in port.axes)) for port in inputs
        )
        try:
            return named, probe_ports(call, named)
        except Exception as error:  # a model's layers may raise any type for sizes that do not fit
            problem = problem or error
    raise UserError(f"The model cannot be called on inputs of its own shapes: {str(problem).strip()[:300]}")


def partitions(names: list[str]) -> Iterator[list[list[str]]]:
    """Yield every partition of names into blocks."""
    if not names:
        yield []
        return
    first, rest = names[0], names[1:]
    for blocks in partitions(rest):
        yield [[first], *blocks]
        for number, block in enumerate(blocks):
            yield [*blocks[:number], [first, *block], *blocks[number + 1 :]]


def _input_port(name: str, tensor: keras.KerasTensor) -> Port:
    if tensor.dtype == "string":
        raise UserError(
            f"Input {name!r} of the model holds text. Expected: numbers or booleans. Received: dtype string"
        )
    axes: list[Axis] = [
        size if size is not None else f"{name}_axis_{number}" for number, size in enumerate(tensor.shape)
    ]
    if tensor.shape[0] is None:
        axes[0] = "batch"
    if len(axes) > 1 and tensor.shape[1] is None:
        axes[1] = f"{name}_length"
    return Port(name, tensor.dtype, tuple(axes))


def _named_leaves(struct: Any, names: list[str] | None = None) -> list[tuple[str, keras.KerasTensor]]:
    """Return a model's inputs or outputs, in flat order, under the keys of their dict, `names`, or their own names.

    A repeated name gets a number, and characters that formats forbid in names become underscores.
    """
    leaves = keras.tree.flatten(struct)
    if isinstance(struct, dict):
        names = sorted(struct)
    elif names is None:
        names = [tensor.name for tensor in leaves]
    clean = [re.sub(r"\W", "_", name) for name in names]
    unique = [name if name not in clean[:number] else f"{name}_{number}" for number, name in enumerate(clean)]
    return list(zip(unique, leaves, strict=True))
