"""Graphs that every format exports, with the names of their inputs and outputs.

A graph is a function over named tensors with its ports.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_attention.models.ensemble import Ensemble
from keras_attention.models.searching import run_search
from keras_attention.search_policy import SearchPolicy
from keras_attention.types import Tensor, TensorDict

from .knobs import Net, knobs_of
from .port import Axis, Port


@dataclasses.dataclass(frozen=True)
class Graph:
    """A function to export: it takes tensors in the order of `inputs`, and returns a dict of the outputs."""

    name: str
    function: Callable[..., TensorDict]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "inputs": {port.name: port.to_dict() for port in self.inputs},
            "outputs": {port.name: port.to_dict() for port in self.outputs},
        }


def source_port(net: Net) -> Port:
    """Return the port of the source: ids, or features."""
    if net.source_features is None:
        return Port("source_ids", "int32", ("batch", "source_length"))
    return Port("source_features", "float32", ("batch", "source_length", net.source_features))


def translator_graphs(net: Net, settings: SearchPolicy, recurrence: str = "layer") -> tuple[Graph, ...]:
    """Return `encode`, `decode_step` and `translate` of an encoder-decoder, or of an ensemble.

    - `encode(source_ids) -> state_..., memory_...`: the decoder's initial state, and the memory of every step.
    - `decode_step(token_ids, state_..., memory_...) -> log_probs, next_state_..., alignment`: one step, without a loop.
    - `translate(source_ids, knobs ...) -> ids, lengths, scores, log_probs, finished, alignments`: the whole search,
      with the knobs of `knobs_of`.

    For a source of features, `source_features` takes the place of `source_ids`.

    Args:
        net: the translator.
        settings: settings of `translate`.
        recurrence: recurrence of the encoder: `"layer"` (ONNX, SavedModel) or `"loop"` (TFLite).
    """

    def encode(source_tensor: Tensor) -> TensorDict:
        state, memory = net.encode(source_tensor, recurrence=recurrence, capacity=settings.max_length)
        return {**_prefixed("state_", state), **_prefixed("memory_", memory)}

    members = len(net.members) if isinstance(net, Ensemble) else None
    source = source_port(net)
    encoded = probe_ports(encode, (source,))

    def decode_step(token_ids: Tensor, *tensors: Tensor) -> TensorDict:
        given = dict(zip((port.name for port in encoded), tensors, strict=True))
        state, memory = (_unprefixed(prefix, given, members) for prefix in ("state_", "memory_"))
        log_probs, state, alignment = net.step(token_ids, state, memory)
        return {"log_probs": log_probs, **_prefixed("next_state_", state), "alignment": alignment}

    knobs = tuple(knob.port for knob in knobs_of(settings, net))

    def translate(source_tensor: Tensor, *values: Tensor) -> TensorDict:
        given = dict(zip((port.name for port in knobs), values, strict=True))
        result: Mapping[str, Tensor] = run_search(settings, net, source_tensor, given, recurrence=recurrence)
        return {port.name: result[port.name] for port in TRANSLATE_OUTPUTS}

    state_ports = tuple(port for port in encoded if port.name.startswith("state_"))
    step_outputs = (
        Port("log_probs", "float32", ("batch", net.config.output_vocabulary)),
        *(dataclasses.replace(port, name=f"next_{port.name}") for port in state_ports),
        Port("alignment", "float32", ("batch", "source_length")),
    )
    sizes: dict[Axis, Axis] = {"hypothesis": settings.hypotheses, "target_length": settings.max_length}
    outputs = tuple(
        dataclasses.replace(port, axes=tuple(sizes.get(axis, axis) for axis in port.axes)) for port in TRANSLATE_OUTPUTS
    )
    return (
        Graph("encode", encode, (source,), encoded),
        Graph("decode_step", decode_step, (Port("token_ids", "int32", ("batch",)), *encoded), step_outputs),
        Graph("translate", translate, (source, *knobs), outputs),
    )


TRANSLATE_OUTPUTS = (
    Port("ids", "int32", ("batch", "hypothesis", "target_length")),
    Port("lengths", "int32", ("batch", "hypothesis")),
    Port("scores", "float32", ("batch", "hypothesis")),
    Port("log_probs", "float32", ("batch", "hypothesis")),
    Port("finished", "bool", ("batch", "hypothesis")),
    Port("alignments", "float32", ("batch", "hypothesis", "target_length", "source_length")),
)
"""Outputs of `translate`: hypotheses best first, see `keras_attention.search.beam_search`."""


def state_updates(graphs: tuple[Graph, ...]) -> dict[str, str]:
    """Return the states of `decode_step`, input to output, which a search re-orders where beams change."""
    step = next(graph for graph in graphs if graph.name == "decode_step")
    return {port.name: f"next_{port.name}" for port in step.inputs if port.name.startswith("state_")}


def probe_inputs(inputs: tuple[Port, ...], round_: int) -> tuple[list[np.ndarray], dict[str, int]]:
    """Return arrays of ones for the inputs, and the size of each named axis: small, and different in each round."""
    names = list(dict.fromkeys(axis for port in inputs for axis in port.axes if isinstance(axis, str)))
    sizes = {name: (2, 3)[round_] + 2 * index for index, name in enumerate(names)}
    arrays = [
        np.ones([sizes[axis] if isinstance(axis, str) else axis for axis in port.axes], port.dtype) for port in inputs
    ]
    return arrays, sizes


def probe_ports(function: Callable[..., TensorDict], inputs: tuple[Port, ...]) -> tuple[Port, ...]:
    """Find the output ports of a function by calling it at two sizes: an axis that follows an input's gets its name."""
    (first, sizes), (second, other_sizes) = (probe_inputs(inputs, round_) for round_ in (0, 1))
    named = {(sizes[name], other_sizes[name]): name for name in sizes}
    outputs, other_outputs = function(*first), function(*second)
    ports = []
    for name, value in outputs.items():
        pairs = zip(value.shape, other_outputs[name].shape, strict=True)
        axes: list[Axis] = [
            named.get((a, b), a if a == b else f"{name}_axis_{number}") for number, (a, b) in enumerate(pairs)
        ]
        ports.append(Port(name, keras.backend.standardize_dtype(value.dtype), tuple(axes)))
    return tuple(ports)


def _prefixed(prefix: str, tensors: Any) -> TensorDict:
    """Flatten to a dict of prefixed names; those of an ensemble's dicts also with the member's number."""
    if isinstance(tensors, list):
        parts = [_prefixed(f"{prefix}{number}_", member) for number, member in enumerate(tensors)]
        return {name: value for part in parts for name, value in part.items()}
    return {prefix + name: tensors[name] for name in sorted(tensors)}


def _unprefixed(prefix: str, tensors: TensorDict, members: int | None = None) -> Any:
    if members is not None:
        return [_unprefixed(f"{prefix}{number}_", tensors) for number in range(members)]
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
