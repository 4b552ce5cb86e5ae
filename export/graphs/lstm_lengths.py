"""Final cell states of each row in ONNX without a loop, for the `copy` bridge of an LSTM.

The converter makes an `LSTM` node only of a loop without a mask. So the encoder is traced as if rows had no padding,
which changes nothing before a row's end. The nodes then get the lengths as `sequence_lens`, where each row's
states stop.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_attention.types import PAD_ID, Tensor

from ..formats.to_onnx import loops as onnx_loops
from .loops import looping, recurrent_layers

SOURCE = "source_ids"
"""Input of an `LSTM` node that holds the lengths of rows."""
LENGTHS = "encoder/lengths"


def wants_cell_states(config: Mapping[str, Any]) -> bool:
    """Return whether a model's encoder returns cell states at the ends of rows."""
    return bool(config["cell"] == "lstm" and config["bridge"] == "copy")


def needed(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a model does, with a source of ids: lengths of features are not derived in the graph."""
    return any(map(wants_cell_states, configs)) and not any(config.get("source_features") for config in configs)


def unmasked(model: keras.Model) -> contextlib.AbstractContextManager[None]:
    """Context in which the model's LSTM layers run without a mask."""
    return looping([layer for layer in recurrent_layers(model) if type(layer) is keras.layers.LSTM], _Unmasked)


class _Unmasked:
    """The `inner_loop` of one LSTM layer, without its mask."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(
        self, sequences: Tensor, initial_state: list[Tensor], mask: Tensor | None, training: bool | None = False
    ) -> Any:
        return type(self.layer).inner_loop(self.layer, sequences, initial_state, None, training)


def tell_lengths(graph: Any) -> None:
    """Connect the row lengths to the LSTM nodes of an ONNX graph that reads ids, in place."""
    import numpy as np
    import onnx

    nodes = [node for node in graph.node if node.op_type == "LSTM"]
    if not nodes or SOURCE not in {port.name for port in graph.input}:
        return
    for node in nodes:
        node.input.extend([""] * (5 - len(node.input)))
        node.input[4] = LENGTHS
    make = onnx.helper.make_node
    pad, axis, padding, real, ones = (f"{LENGTHS}/{part}" for part in ("pad", "axis", "padding", "real", "ones"))
    constants = {pad: np.asarray(PAD_ID, np.int32), axis: np.asarray([1], np.int64)}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    counted = [
        make("Equal", [SOURCE, pad], [padding]),
        make("Not", [padding], [real]),
        make("Cast", [real], [ones], to=onnx.TensorProto.INT32),
        make("ReduceSum", [ones, axis], [LENGTHS], keepdims=0),
    ]
    onnx_loops.set_items(graph.node, [*counted, *graph.node])
