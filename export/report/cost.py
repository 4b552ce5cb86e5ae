"""Estimated cost of a model on a device, before training: weights, MACs, bytes at each precision, memory.

Multiply-accumulates (MACs) follow from the weights: each number of a kernel is used once for each position.
Scores and contexts are added, once for each source position that a step attends to. Bytes are those of
the weights and of the converters' overhead, which was measured once on files of many sizes (`OVERHEAD`).
"""

import dataclasses

import numpy as np

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.ranges import check_ranges

OVERHEAD = {"float32": 170e3, "float16": 190e3, "dynamic_int8": 330e3, "int8": 20e3}
"""Bytes of a TFLite file besides weights: `encode`, `decode_step` and `translate` (int8: those of the NPU format)."""
ONNX_OVERHEAD = {"float32": 300e3, "float16": 300e3, "dynamic_int8": 480e3, "int8": 160e3}
"""Bytes of the ONNX files besides weights: `encode`, `decode_step` and, except for int8, `translate`."""
WIDTH = {"float32": 4, "float16": 2, "dynamic_int8": 1, "int8": 1}
ON_MEMORY = ("key_kernel",)
"""Attention kernels that run over the source, once for each sentence; the others run at each step."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Cost of one model at given lengths and beam.

    Attributes:
        weights: number of trainable weights.
        encoder_macs: MACs of one source token, without attention within the source.
        step_macs: MACs of one target token of one hypothesis, at this source length.
        sentence_macs: MACs of one sentence: its whole source, and every step of the beam.
        bytes: of the TFLite file at each precision; int8 is that of the NPU format.
        onnx_bytes: of the ONNX files together at each precision.
        search_bytes: memory that the search holds between two steps, in float32.
    """

    weights: int
    encoder_macs: int
    step_macs: int
    sentence_macs: int
    bytes: dict[str, int]
    onnx_bytes: dict[str, int]
    search_bytes: int


def estimate(config: Seq2SeqConfig, source_length: int = 20, target_length: int = 20, beam_size: int = 5) -> Estimate:
    """Estimate the cost of a config's model, which is built, not trained.

    config: config of the model.
        config: the model.
        source_length: source tokens, EOS counted.
        target_length: target tokens, EOS counted: steps, and the buffers' length.
        beam_size: hypotheses.

    Raises:
        UserError: for lengths or a beam out of range.
    """
    check_ranges(source_length=source_length, target_length=target_length, beam_size=beam_size)
    return of_net(EncoderDecoder(build_seq2seq(config)), source_length, target_length, beam_size)


def of_net(net: EncoderDecoder, source_length: int, target_length: int, beam_size: int) -> Estimate:
    """Estimate the cost of a built model, see `estimate`."""
    config = net.config
    shapes = {weight.path: tuple(weight.shape) for weight in net.model.weights}
    kernels = {path: int(np.prod(shape)) for path, shape in shapes.items() if len(shape) > 1}
    encoder = sum(size for path, size in kernels.items() if path.startswith("encoder/"))
    if config.source_features is not None:
        encoder += kernels["source_embedding/kernel"]
    bridge = sum(size for path, size in kernels.items() if "/bridge/" in path)
    decoder = {path: size for path, size in kernels.items() if path.startswith("decoder/") and "/bridge/" not in path}
    memory = sum(size for path, size in decoder.items() if on_memory(path, config))
    output = sum(size for path, size in kernels.items() if path.startswith(("output/", "pointer/")))
    if config.tie_embeddings != "none":
        output += config.target_vocabulary * config.embedding_size
    step = sum(decoder.values()) - memory + output + source_length * per_position(config, shapes, target_length)
    tokens = encoder + memory
    if config.cell == "self_attention":  # every source token attends to every other
        tokens += 2 * source_length * config.encoder_units * config.encoder_layers
    total = source_length * tokens + bridge + beam_size * target_length * step
    weights = sum(int(np.prod(shape)) for shape in shapes.values())
    return Estimate(
        weights,
        encoder,
        step,
        total,
        bytes_of(config, shapes),
        onnx_bytes_of(config, shapes),
        search_bytes(net, source_length, target_length, beam_size),
    )


def on_memory(path: str, config: Seq2SeqConfig) -> bool:
    """Return whether a decoder's kernel runs over the source once per sentence: those of keys, and the general one."""
    if "self_attention" in path:
        return False
    name = path.rsplit("/", 1)[-1]
    return name in ON_MEMORY or (config.attention == "general" and path.endswith("attention/kernel"))


def per_position(config: Seq2SeqConfig, shapes: dict[str, tuple[int, ...]], target_length: int) -> int:
    """Return a step's MACs per source position: its score and its share of the context.

    Without recurrence those of the earlier tokens are included, whose cache is as long as the longest target.
    """
    if config.attention == "none":
        return 0
    depth = config.decoder_units if config.cell == "self_attention" else config.memory_depth
    query = config.decoder_units
    score = {"location": 0, "dot": depth, "scaled_dot": depth, "cosine": depth, "general": query}.get(config.attention)
    if score is None:  # additive: one vector over the hidden units
        score = config.attention_units or query
    layers = config.decoder_layers if config.cell == "self_attention" else 1
    contexts = 2 if config.style == "gnmt" else 1
    found = layers * (score + contexts * depth)
    if config.cell == "self_attention":
        found += 0 if target_length == 0 else layers * 2 * depth
    return found


def bytes_of(config: Seq2SeqConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Bytes of the TFLite file at each precision: biases stay in float32; NPU files hold a tied table twice."""
    large = sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) > 1)
    small = sum(int(np.prod(shape)) for shape in shapes.values()) - large
    tied = config.target_vocabulary * config.embedding_size if config.tie_embeddings != "none" else 0
    found = {}
    for precision, width in WIDTH.items():
        twice = tied if precision == "int8" else 0
        others = 4 if width != 2 else 2
        found[precision] = int(width * (large + twice) + others * small + OVERHEAD[precision])
    return found


def onnx_bytes_of(config: Seq2SeqConfig, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Bytes of the ONNX files together, which share nothing: `translate` holds all weights, the other two divide them.

    Both of these hold a table that both languages share. A file of int8 activations holds a tied table twice; stacks
    of kernels, one for each head, are in float32 where weights are int8.
    """
    large = sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) > 1)
    small = sum(int(np.prod(shape)) for shape in shapes.values()) - large
    stacks = sum(int(np.prod(shape)) for path, shape in shapes.items() if path.endswith("value_kernel"))
    table = config.target_vocabulary * config.embedding_size
    shared, tied = table * (config.tie_embeddings == "all"), table * (config.tie_embeddings != "none")
    found = {}
    for precision, width in WIDTH.items():
        copies = 1 if precision == "int8" else 2
        twice = tied if precision == "int8" else 0
        floats = copies * stacks if width == 1 else 0
        others = 4 if width != 2 else 2
        overhead = ONNX_OVERHEAD[precision] * (2 if config.cell == "self_attention" else 1)
        numbers = width * (copies * large - floats + shared + twice) + 4 * floats
        found[precision] = int(numbers + copies * others * small + overhead)
    return found


def search_bytes(net: EncoderDecoder, source_length: int, target_length: int, beam_size: int) -> int:
    """Bytes of the tensors that a search carries from step to step, and of the log-probabilities of one step."""
    import keras

    source = np.full((1, source_length), 4, "int32")
    if net.source_features is not None:
        source = np.ones((1, source_length, net.source_features), "float32")
    state, memory = net.encode(source, capacity=target_length)
    held = keras.tree.flatten((state, memory))
    sizes = [int(np.prod(tensor.shape)) * (1 if "bool" in str(tensor.dtype) else 4) for tensor in held]
    buffers = target_length * (2 + source_length) * 4  # ids, ancestors, alignments
    return beam_size * (sum(sizes) + buffers + 4 * net.config.output_vocabulary)
