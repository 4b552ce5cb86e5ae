"""The final cell state of each row, in ONNX without a loop: what the `copy` bridge of an LSTM hands to the decoder.

The converter makes an `LSTM` node of a loop without a mask alone. So the encoder is traced as if rows had no padding,
which changes nothing before a row's end, and the nodes are then told where that is: with `sequence_lens` each row's
states stop there.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_attention.types import PAD_ID, Tensor

from .loops import recurrent_layers

SOURCE = "source_ids"
"""The input that says how long rows are."""
LENGTHS = "encoder/lengths"


def needed(configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether one of these models hands over cell states at the ends of rows of ids."""
    wanted = [config["cell"] == "lstm" and config["bridge"] == "copy" for config in configs]
    return any(wanted) and not any(config.get("source_features") for config in configs)


@contextlib.contextmanager
def unmasked(model: keras.Model) -> Iterator[None]:
    """Within this context the model's LSTM layers run over padding as over anything else."""
    layers = [layer for layer in recurrent_layers(model) if type(layer) is keras.layers.LSTM]
    for layer in layers:
        layer.inner_loop = _Unmasked(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.inner_loop


class _Unmasked:
    """The `inner_loop` of one LSTM layer, without its mask."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(
        self, sequences: Tensor, initial_state: list[Tensor], mask: Tensor | None, training: bool | None = False
    ) -> Any:
        return type(self.layer).inner_loop(self.layer, sequences, initial_state, None, training)


def tell_lengths(graph: Any) -> None:
    """Give the LSTM nodes of an ONNX graph that reads ids the length of each row, in place."""
    import numpy as np
    import onnx

    nodes = [node for node in graph.node if node.op_type == "LSTM"]
    if not nodes or SOURCE not in {port.name for port in graph.input}:
        return
    for node in nodes:
        node.input.extend([""] * (5 - len(node.input)))
        node.input[4] = LENGTHS
    make, own = (
        onnx.helper.make_node,
        {name: f"{LENGTHS}/{name}" for name in ("pad", "axis", "padding", "real", "ones")},
    )
    constants = {own["pad"]: np.asarray(PAD_ID, np.int32), own["axis"]: np.asarray([1], np.int64)}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    counted = [
        make("Equal", [SOURCE, own["pad"]], [own["padding"]]),
        make("Not", [own["padding"]], [own["real"]]),
        make("Cast", [own["real"]], [own["ones"]], to=onnx.TensorProto.INT32),
        make("ReduceSum", [own["ones"], own["axis"]], [LENGTHS], keepdims=0),
    ]
    counted += graph.node
    del graph.node[:]
    graph.node.extend(counted)
