"""Plan of an export: graphs, and cases computed by Keras."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.pointer_generator import of_text
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer

from .graphs.functional import model_graph
from .graphs.graph import Graph, translator_graphs
from .graphs.knobs import Net
from .graphs.loops import all_layers
from .manifest import SPECIAL_IDS
from .members import Members
from .parity import cases as reference
from .parity.cases import Reference
from .parity.quality import Task


@dataclasses.dataclass(frozen=True)
class Plan:
    """Graphs to export, and cases that Keras computed from the samples."""

    model: keras.Model
    graphs: tuple[Graph, ...]
    stepped_graphs: tuple[Graph, ...]
    """The same graphs in a form that TFLite's built-in operators can express."""
    cases: Reference
    net: Net | None = None
    settings: SearchPolicy = dataclasses.field(default_factory=SearchPolicy)
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None
    left_out: int = 0
    """Number of samples that are too long, or empty."""


def plan_export(
    model: Any,
    settings: SearchPolicy,
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
    samples: Sequence[Any] | None,
    references: Sequence[Sequence[str]] = (),
    task: Task | None = None,
    source_length: int | None = None,
) -> Plan:
    """Plan graphs and cases of a model; with `source_length`, only samples of at most that length."""
    if not isinstance(model, keras.Model):
        raise UserError(f"Expected: a Keras model, or a run directory. Received: {type(model).__name__}")
    check_precision(model)
    try:
        net: Net = model.ensemble if isinstance(model, Members) else EncoderDecoder(model)
    except ValueError:
        graph = model_graph(model)
        inputs = [as_inputs(graph, sample) for sample in samples] if samples is not None else None
        inputs = inputs or reference.random_inputs(graph, smallest_vocabulary(model))
        return Plan(model, (graph,), (graph,), Reference(reference.model_cases(graph, inputs), []))
    graphs = translator_graphs(net, settings, "layer")
    rows, sentences, kept = source_rows(net, tokenizers, samples, source_length)
    accepted = [list(references[number]) for number in kept] if references else []
    cases = Reference(reference.translator_cases(net, graphs, rows, settings), sentences, accepted, task or Task())
    left_out = len(samples) - len(kept) if samples else 0
    return Plan(model, graphs, translator_graphs(net, settings, "loop"), cases, net, settings, tokenizers, left_out)


def check_precision(model: keras.Model) -> None:
    """Raise UserError unless every layer computes in float32."""
    for layer in all_layers(model):
        if layer.compute_dtype not in ("float32", None) and "float" in layer.compute_dtype:
            raise UserError(
                f"Layer {layer.name!r} computes in {layer.compute_dtype}. Expected: float32 in every layer. Build the "
                "model again under the float32 policy, and load its weights"
            )


def source_rows(
    net: Net,
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
    samples: Sequence[Any] | None,
    source_length: int | None = None,
) -> tuple[list[Any], list[str], list[int]]:
    """Return the rows of ids to search, each with EOS, their sentences, if any, and the numbers of the samples.

    Omits samples that are too long, and sentences without a token.

    Raises:
        UserError: if sentences come without tokenizers, or no sample is left.
    """
    longest = min(net.max_source_length or 10**9, source_length or 10**9)
    samples = [] if samples is None else list(samples)
    if not samples:
        generator = np.random.default_rng(0)
        lengths = [min(length, longest - 1) for length in (1, 2, 3, 5, 7, 11, 13, 17)]
        if net.source_features is not None:
            return [generator.normal(size=(length, net.source_features)) for length in lengths], [], []
        high = net.config.source_vocabulary + (net.config.copy_words or 0)
        return [[*generator.integers(4, high, length).tolist(), SPECIAL_IDS["eos"]] for length in lengths], [], []
    sentences = [sample for sample in samples if isinstance(sample, str)]
    if net.source_features is not None or not sentences:
        rows = [[int(i) for i in sample] for sample in samples] if net.source_features is None else frames(net, samples)
    elif tokenizers is None:
        raise UserError(
            "Samples are sentences, but there are no tokenizers. Give tokenizers=(source, target), or rows of ids"
        )
    else:
        words = [of_text(tokenizers, sentence, net.config.copy_words)[0] for sentence in sentences]
        rows = [[*own.encode(sentence), SPECIAL_IDS["eos"]] for own, sentence in zip(words, sentences, strict=True)]
    least = 2 if sentences else 1
    kept = [number for number, row in enumerate(rows) if least <= len(row) <= longest]
    if not kept:
        raise UserError(
            f"Every sample is empty, or longer than the model can read. Expected: at most {longest} tokens with EOS"
        )
    return [rows[number] for number in kept], [sentences[number] for number in kept] if sentences else [], kept


def frames(net: Net, samples: Sequence[Any]) -> list[Any]:
    """Return samples of features, each `(S, F)`."""
    if any(isinstance(sample, str) for sample in samples):
        raise UserError(f"Samples are sentences. Expected: features, arrays (length, {net.source_features})")
    arrays = [np.asarray(sample, np.float32) for sample in samples]
    for array in arrays:
        if array.ndim != 2 or array.shape[1] != net.source_features or not len(array):
            raise UserError(
                f"A sample of another shape. Expected: features (length, {net.source_features}). "
                f"Received: {array.shape}"
            )
    return arrays


def as_inputs(graph: Graph, sample: Any) -> dict[str, np.ndarray]:
    """Return one sample as the graph's named arrays."""
    if not isinstance(sample, Mapping):
        sample = dict(
            zip(
                (port.name for port in graph.inputs),
                sample if isinstance(sample, (list, tuple)) else [sample],
                strict=True,
            )
        )
    missing = [port.name for port in graph.inputs if port.name not in sample]
    if missing:
        raise UserError(
            f"A sample lacks inputs. Expected: {[port.name for port in graph.inputs]}. Received: {sorted(sample)}"
        )
    return {port.name: np.asarray(sample[port.name], port.dtype) for port in graph.inputs}


def smallest_vocabulary(model: keras.Model) -> int:
    """Return a bound that is valid for every integer input of a model: the smallest size of its embedding tables."""
    sizes = [layer.input_dim for layer in all_layers(model) if isinstance(layer, keras.layers.Embedding)]
    return min(sizes, default=2)
