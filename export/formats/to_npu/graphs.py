"""Static graphs of the NPU format: one row, a fixed source length, and only operators that an NPU can place.

An NPU has no lookup, gather, reversal or normalisation: the graphs take embedded tokens and return logits,
and a host does the rest (`backends/npu.py` of the runtime). Each direction of an encoder layer is one fused LSTM
operator, which reads no mask: a host zeroes positions past a row's end, and reverses the other direction's row
within its length.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_attention.attention.choices import ADDITIVE_SCORES
from keras_attention.attention.scores import unit_vectors
from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.search_policy import SearchPolicy
from keras_attention.types import Tensor, TensorDict

from ...graphs.graph import Graph
from ...graphs.port import Axis, Port
from ..host_search import check_host_search

SCORES = ("none", "dot", "scaled_dot", "general", *ADDITIVE_SCORES)


def check_model(net: EncoderDecoder, settings: SearchPolicy) -> None:
    """Raise UserError for the first property of a model or a search that the format does not support."""
    config = net.config
    for name, good, expected in (
        ("cell", config.cell == "lstm", "lstm, which has a fused operator"),
        ("bridge", config.bridge == "dense", "dense: the fused LSTM keeps its cell state to itself"),
        ("attention", config.attention in SCORES, f"one of {', '.join(SCORES)}"),
        ("style", config.attention == "none" or config.style == "luong", "luong"),
        ("alignment", config.alignment == "softmax", "softmax"),
        ("window", config.window is None, "None"),
        ("attention_heads", config.attention_heads == 1, "1"),
        ("use_coverage", not config.use_coverage, "False"),
        ("copy_words", config.copy_words is None, "None"),
        ("shortlist", config.shortlist is None, "None"),
        ("source_features", config.source_features is None, "None"),
    ):
        if not good:
            raise UserError(
                f"npu cannot hold {name}={getattr(config, name)!r}. Expected: {expected}. "
                "Export to another format, or train another model"
            )
    check_host_search(settings)


def npu_graphs(net: EncoderDecoder, source_length: int) -> tuple[Graph, ...]:
    """Return `encode_0`, ..., one for each encoder layer, `start`, and `decode_step`.

    - `encode_l(forward, backward) -> forward_states, backward_states`: one layer over a row `(1, S, D)`, each direction
      in its own order; `backward` if the encoder has one.
    - `start(summary, values) -> state_..., keys`: the bridge, and the keys; `values` if the score has keys.
    - `decode_step(embedded, state_..., values, keys, mask_bias) -> logits, next_state_..., alignment`, the last three
      inputs with attention; `keys` if the score has any; `mask_bias` `(1, S)` is 0 at tokens and below 0 at padding.
    """
    return (*_encoders(net, source_length), _start(net, source_length), decode_step_graph(net, source_length))


def _encoders(net: EncoderDecoder, source_length: int) -> Iterator[Graph]:
    stack: Any = net.encoder.stack
    depth = net.config.embedding_size
    names = ("forward", "backward") if stack.bidirectional else ("forward",)
    for index, layers in enumerate(stack.layers):
        encode = _layer([fused_lstm(layer) for layer in layers], names)
        yield _graph(f"encode_{index}", encode, {name: (1, source_length, depth) for name in names})
        depth = stack.output_depth


def _layer(runs: list[Callable[[Tensor], Tensor]], names: tuple[str, ...]) -> Callable[..., TensorDict]:
    def encode(*rows: Tensor) -> TensorDict:
        return {f"{name}_states": run(row) for name, run, row in zip(names, runs, rows, strict=True)}

    return encode


def _start(net: EncoderDecoder, source_length: int) -> Graph:
    decoder: Any = net.decoder
    depth = net.encoder.stack.output_depth
    shapes: dict[str, tuple[int, ...]] = {"summary": (1, depth)}
    if has_keys(net):
        shapes["values"] = (1, source_length, depth)

    def start(summary: Tensor, *values: Tensor) -> TensorDict:
        bridge = decoder.bridge
        pairs = zip(bridge.state_names, bridge.projections, strict=True)
        found = {f"state_{name}": projection(summary) for name, projection in pairs}
        if values:
            found["keys"] = decoder.attention.project_keys(values[0])
        return found

    return _graph("start", start, shapes)


def decode_step_graph(net: EncoderDecoder, source_length: int, with_scores: bool = False) -> Graph:
    """Return `decode_step`, see `npu_graphs`; `with_scores` adds an output `scores` `(1, S)`, before the bias."""
    decoder: Any = net.decoder
    config, depth = net.config, net.encoder.stack.output_depth
    states = {f"state_{name}": (1, decoder.stack.units) for name in decoder.stack.state_names}
    attends = decoder.stepper is not None
    if config.input_feeding:
        states["state_attentional"] = (1, decoder.stepper.cell.output_depth(depth))
    shapes: dict[str, tuple[int, ...]] = {"embedded": (1, config.embedding_size), **states}
    if attends:
        shapes["values"] = (1, source_length, depth)
        if has_keys(net):
            shapes["keys"] = (1, source_length, int(_start(net, source_length).outputs[-1].axes[-1]))
        shapes["mask_bias"] = (1, source_length)

    def step(*tensors: Tensor) -> TensorDict:
        given = dict(zip(shapes, tensors, strict=True))
        inputs, state = given["embedded"], {name.removeprefix("state_"): given[name] for name in states}
        fed = state.pop("attentional", None)
        if fed is not None:
            inputs = ops.concatenate([inputs, fed], axis=-1)
        hidden, new_state = decoder.stack.step(inputs, state)
        found: TensorDict = {}
        if attends:
            scores = _scores(decoder.attention, hidden, given.get("keys", given["values"]))
            alignment = ops.softmax(scores + given["mask_bias"], axis=-1)
            context = ops.matmul(alignment[:, None], given["values"])[:, 0]
            found = {"alignment": alignment, **({"scores": scores} if with_scores else {})}
            hidden = decoder.attentional(ops.concatenate([context, hidden], axis=-1))
        if fed is not None:
            new_state["attentional"] = hidden
        return {"logits": net.logits(hidden), **{f"next_state_{name}": new_state[name] for name in new_state}, **found}

    return _graph("decode_step", step, shapes)


def has_keys(net: EncoderDecoder) -> bool:
    """Return whether the score reads keys that differ from the values."""
    return net.config.attention in ("general", *ADDITIVE_SCORES)


def _scores(attention: Any, query: Tensor, keys: Tensor) -> Tensor:
    """Compute scores `(1, S)` of a query `(1, U)` as `LuongAttention` does, as products of static sizes."""
    if attention.score in ADDITIVE_SCORES:
        vector, hidden = ops.convert_to_tensor(attention.vector), ops.matmul(query, attention.query_kernel)
        if attention.score == "normalized_additive":
            vector, hidden = attention.factor * unit_vectors(vector), hidden + attention.bias
        scores = ops.matmul(ops.tanh(keys + hidden[:, None]), vector[:, None])[:, :, 0]
    else:
        scores = ops.matmul(query[:, None], ops.transpose(keys, (0, 2, 1)))[:, 0]
        if attention.score == "scaled_dot":
            scores = scores * float(query.shape[-1]) ** -0.5
    return scores * attention.scale if attention.use_scale else scores


def fused_lstm(layer: keras.layers.LSTM) -> Callable[[Tensor], Tensor]:
    """Map `(1, S, D)` to all h `(1, S, U)`, in the form that the TFLite converter fuses to one operator.

    It recognises it by its attributes, and by the order of six tensors in and five out, of which two may be read.
    States are zeros, the gates in Keras' order. Weights must be tensors: a variable crashes the converter.
    """
    units = layer.units

    def lstm(row: Tensor, h: Tensor, c: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor) -> Any:
        outputs = []
        for x in tf.unstack(row, axis=1):
            i, f, g, o = tf.split(tf.matmul(x, kernel) + tf.matmul(h, recurrent) + bias, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            outputs.append(h)
        return h, tf.stack(outputs, axis=1), h, c, tf.constant(1.0)

    attributes = {
        "api_implements": f"lstm_{uuid.uuid4()}",
        "api_preferred_device": "CPU",
        "time_major": False,
        "go_backwards": False,
    }
    function = tf.function(lstm, autograph=False, experimental_attributes=attributes)

    def run(row: Tensor) -> Tensor:
        zeros, cell = tf.zeros((1, units)), layer.cell
        weights = (cell.kernel, cell.recurrent_kernel, cell.bias)
        return function(row, zeros, zeros, *(tf.identity(weight) for weight in weights))[1]

    return run


def _graph(name: str, function: Callable[..., TensorDict], shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Return a graph of static sizes; its outputs are found by calling it on zeros."""
    inputs = tuple(Port(port, "float32", _axes(shape)) for port, shape in shapes.items())
    found = function(*(tf.zeros(shape) for shape in shapes.values()))
    outputs = tuple(Port(port, "float32", _axes(tensor.shape)) for port, tensor in found.items())
    return Graph(name, function, inputs, outputs)


def _axes(shape: Any) -> tuple[Axis, ...]:
    return tuple(int(size) for size in shape)
