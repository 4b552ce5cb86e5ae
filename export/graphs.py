"""The functions that every format exports, and the names of what goes in and comes out.

A graph is a function over named tensors with its ports: name, dtype, axes. An axis of any size has a name (`batch`,
`source_length`, ...), the same in every graph and format, so that what is equal is seen to be equal; a number is a
fixed size.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.search import Constraints
from keras_attention.seq2seq import EncoderDecoder
from keras_attention.types import PAD_ID, Tensor, TensorDict

Axis = str | int


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of a graph."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "axes": list(self.axes)}


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


@dataclasses.dataclass(frozen=True)
class Knob:
    """An input of `translate` beside the source: its port, the value that fills it by default, its range."""

    port: Port
    default: float | bool
    minimum: float | None = None
    maximum: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Of the manifest."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {"default": self.default, **{name: value for name, value in bounds.items() if value is not None}}


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What is fixed at export, and the defaults of what stays an input.

    Args:
        beam_size: K, fixed.
        max_length: capacity of the buffers, fixed; greatest value and default of the input of that name.
        max_length_factor: where given, a translation is also cut at this many tokens per source token ..., fixed.
        max_length_offset: ... plus this many, fixed.
        length_penalty: default of the exponent of the GNMT length penalty.
        min_length: default of the fewest tokens of a translation, EOS counted.
        coverage_penalty: default of GNMT's beta, against words left untranslated.

    Raises:
        UserError: where a value is out of range.
    """

    beam_size: int = 5
    max_length: int = 100
    max_length_factor: float | None = None
    max_length_offset: int = 10
    length_penalty: float = 1.0
    min_length: int = 0
    coverage_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("beam_size", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"The {name} is out of range. Expected: at least 1. Received: {getattr(self, name)}")
        if not 0 <= self.min_length <= self.max_length:
            raise UserError(
                f"The min_length is out of range. Expected: 0 to max_length={self.max_length}. "
                f"Received: {self.min_length}"
            )
        if not self.coverage_penalty >= 0:
            raise UserError(
                f"The coverage_penalty is out of range. Expected: at least 0. Received: {self.coverage_penalty}"
            )

    def knobs(self, net: EncoderDecoder) -> tuple[Knob, ...]:
        """The inputs of a translator's `translate` beside the source, in their order."""
        vocabulary = net.config.output_vocabulary
        found = [
            Knob(Port("max_length", "int32", ()), self.max_length, 1, self.max_length),
            Knob(Port("min_length", "int32", ()), self.min_length, 0, self.max_length),
            Knob(Port("length_penalty", "float32", ()), self.length_penalty),
            Knob(Port("coverage_penalty", "float32", ()), self.coverage_penalty, 0.0),
            Knob(Port("allowed", "bool", (vocabulary,)), True),
            Knob(Port("prefix", "int32", ("batch", "prefix_length")), PAD_ID, PAD_ID, vocabulary - 1),
        ]
        if not net.covers_source:
            if self.coverage_penalty:
                raise UserError("The plain encoder-decoder covers no source. Expected: coverage_penalty=0")
            found = [knob for knob in found if knob.port.name != "coverage_penalty"]
        return tuple(found)

    def limits(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """These settings with values of the knobs, as arguments of `EncoderDecoder.search`."""
        names = ("min_length", "allowed", "prefix")
        return {
            "beam_size": self.beam_size,
            "capacity": self.max_length,
            "max_length_factor": self.max_length_factor,
            "max_length_offset": self.max_length_offset,
            "constraints": Constraints(**{name: knobs[name] for name in names}),
            **{name: value for name, value in knobs.items() if name not in names},
        }


def source_port(net: EncoderDecoder) -> Port:
    """The source: ids, or features."""
    if net.source_features is None:
        return Port("source_ids", "int32", ("batch", "source_length"))
    return Port("source_features", "float32", ("batch", "source_length", net.source_features))


def translator_graphs(net: EncoderDecoder, settings: SearchSettings, recurrence: str = "layer") -> tuple[Graph, ...]:
    """`encode`, `decode_step` and `translate` of an encoder-decoder.

    - `encode(source_ids) -> state_..., memory_...`: the decoder's first state, and what every step reads of the source.
    - `decode_step(token_ids, state_..., memory_...) -> log_probs, next_state_..., alignment`: one step, without a loop.
    - `translate(source_ids, knobs ...) -> ids, lengths, scores, log_probs, finished, alignments`: the whole search,
      with the knobs of `SearchSettings.knobs`.

    Where a source is features, it is `source_features` in place of `source_ids`.

    Args:
        net: the translator.
        settings: of `translate`.
        recurrence: how the encoder runs: `"layer"` (ONNX, SavedModel) or `"loop"` (TFLite).
    """

    def encode(source_tensor: Tensor) -> TensorDict:
        state, memory = net.encode(source_tensor, recurrence=recurrence, capacity=settings.max_length)
        return {**_prefixed("state_", state), **_prefixed("memory_", memory)}

    source = source_port(net)
    encoded = probe_ports(encode, (source,))

    def decode_step(token_ids: Tensor, *tensors: Tensor) -> TensorDict:
        given = dict(zip((port.name for port in encoded), tensors, strict=True))
        state, memory = _unprefixed("state_", given), _unprefixed("memory_", given)
        log_probs, state, alignment = net.step(token_ids, state, memory)
        return {"log_probs": log_probs, **_prefixed("next_state_", state), "alignment": alignment}

    knobs = tuple(knob.port for knob in settings.knobs(net))

    def translate(source_tensor: Tensor, *values: Tensor) -> TensorDict:
        arguments = settings.limits(dict(zip((port.name for port in knobs), values, strict=True)))
        result: Mapping[str, Tensor] = net.search(source_tensor, recurrence=recurrence, **arguments)
        return {port.name: result[port.name] for port in TRANSLATE_OUTPUTS}

    state_ports = tuple(port for port in encoded if port.name.startswith("state_"))
    step_outputs = (
        Port("log_probs", "float32", ("batch", net.config.output_vocabulary)),
        *(dataclasses.replace(port, name=f"next_{port.name}") for port in state_ports),
        Port("alignment", "float32", ("batch", "source_length")),
    )
    sizes: dict[Axis, Axis] = {"hypothesis": settings.beam_size, "target_length": settings.max_length}
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
"""What `translate` returns: hypotheses best first, as `keras_attention.search.beam_search` describes them."""


def state_updates(graphs: tuple[Graph, ...]) -> dict[str, str]:
    """The states of `decode_step`, input to output: what the next step reads, re-ordered where beams change."""
    step = next(graph for graph in graphs if graph.name == "decode_step")
    return {port.name: f"next_{port.name}" for port in step.inputs if port.name.startswith("state_")}


def probe_inputs(inputs: tuple[Port, ...], round_: int) -> tuple[list[np.ndarray], dict[str, int]]:
    """Arrays of ones for the inputs, and the size of each named axis: small, and different in each round."""
    names = list(dict.fromkeys(axis for port in inputs for axis in port.axes if isinstance(axis, str)))
    sizes = {name: (2, 3)[round_] + 2 * index for index, name in enumerate(names)}
    arrays = [
        np.ones([sizes[axis] if isinstance(axis, str) else axis for axis in port.axes], port.dtype) for port in inputs
    ]
    return arrays, sizes


def probe_ports(function: Callable[..., TensorDict], inputs: tuple[Port, ...]) -> tuple[Port, ...]:
    """Output ports of a function, found by calling it at two sizes: an axis that follows an input's gets its name."""
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


def _prefixed(prefix: str, tensors: TensorDict) -> TensorDict:
    return {prefix + name: tensors[name] for name in sorted(tensors)}


def _unprefixed(prefix: str, tensors: TensorDict) -> TensorDict:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
