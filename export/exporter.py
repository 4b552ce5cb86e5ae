"""Export a model: convert, verify, time, and only then give the artefact its name."""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.seq2seq import EncoderDecoder
from keras_attention.text import Tokenizer

from . import artefact, bench, conversion, loops, reference, report, runtime, text_graph
from .errors import disk_full, is_disk_full
from .functional import model_graph
from .graphs import Graph, SearchSettings, translator_graphs
from .reference import Reference
from .saved_model import write_saved_model
from .verification import REFERENCE_FILE, compare

FORMATS = ("saved_model", "tflite", "onnx")
ALIASES = {"litert": "tflite", "savedmodel": "saved_model"}
Progress = Callable[[str], None]
TIMING_SECONDS = 1.0
"""Spent on each of the two measurements of a format: enough for the report; `benchmark` takes longer."""


def export(
    model: Any,
    output: str | pathlib.Path,
    to: str | Sequence[str] = FORMATS,
    *,
    samples: Sequence[Any] | None = None,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    beam_size: int = 5,
    max_length: int = 100,
    max_length_factor: float | None = None,
    max_length_offset: int = 10,
    length_penalty: float = 1.0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> report.Report:
    """Write an artefact directory with the model in the given formats, each proved equal to Keras.

    An encoder-decoder of `build_seq2seq` becomes the graphs `encode`, `decode_step` and `translate`; any other
    functional model becomes the one graph `call`. Nothing appears under the name `output` before every format was
    verified.

    Args:
        model: an encoder-decoder, any functional Keras model, a run directory, or the path of one.
        output: directory to write.
        to: `saved_model`, `tflite` (or `litert`), `onnx`: one or several.
        samples: what to verify on. Of a translator: sentences, or rows of source ids where there are no tokenizers; a
            run has its own. Of another model: inputs, each an array or a dict of arrays. Random ones if `None`.
        tokenizers: of the source and the target; a run has its own.
        beam_size: hypotheses of `translate`, fixed in the artefact.
        max_length: longest translation, EOS counted: the capacity of the artefact's buffers, and its default.
        max_length_factor: where given, a translation is also cut at this many tokens per source token ...
        max_length_offset: ... plus this many.
        length_penalty: default exponent of the GNMT length penalty.
        overwrite: whether an artefact that is already there is replaced, once the new one is verified.
        progress: told what is being done.

    Returns:
        The report that also lies in the artefact, as `report.md` and `report.json`.

    Raises:
        UserError: for an unknown format, an output that exists, a model that cannot be exported, a full disk.
        ConversionError: if a converter refuses the model or crashes.
        VerificationError: if an artefact differs from Keras.

    Example:

    >>> import keras
    >>> inputs = keras.Input((3,), name="features")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="scores")(inputs))
    >>> report = export(model, "/tmp/artefact", to="tflite")                              # doctest: +SKIP
    """
    say = progress or (lambda message: None)
    formats = check_formats(to)
    check_backend()
    output = check_output(pathlib.Path(output), overwrite)
    settings = SearchSettings(beam_size, max_length, max_length_factor, max_length_offset, length_penalty)
    if isinstance(model, (str, os.PathLike)):
        model = RunDirectory.open(os.fspath(model))
    if isinstance(model, RunDirectory):
        tokenizers = (model.source_tokenizer, model.target_tokenizer)
        samples = model.samples() if samples is None else samples
        model = model.load_model()
    with staging(output) as (stage, work):
        plan = plan_export(model, settings, tokenizers, samples)
        manifest = convert(plan, formats, stage, work, say)
        parities = compare(stage, manifest, plan.cases, say)
        say("timing")
        latencies = bench.measure(stage, manifest, plan.cases, TIMING_SECONDS)
        written = report.build(stage, manifest, parities, latencies)
        reference.save(plan.cases, stage / REFERENCE_FILE)
        report.write(written, stage)
        artefact.write_manifest(artefact.complete(manifest, stage), stage)
        publish(stage, output)
    return written


def check_formats(to: str | Sequence[str]) -> list[str]:
    """The formats asked for, without repetition, under their own names.

    Raises:
        UserError: if one is unknown, or there is none.
    """
    names = [to] if isinstance(to, str) else list(to)
    formats = list(dict.fromkeys(ALIASES.get(name, name) for name in names))
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UserError(
            f"Unknown export format. Expected: one or several of {', '.join(FORMATS)} (litert is tflite). "
            f"Received: {', '.join(unknown) or 'none'}"
        )
    return formats


def check_backend() -> None:
    """Raises UserError unless Keras runs on TensorFlow and the converters are installed."""
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            "Export runs on the TensorFlow backend of Keras; a model trained on another one loads there as it is. "
            f"Expected: KERAS_BACKEND=tensorflow. Received: {keras.backend.backend()}"
        )
    for module in ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "tensorflow_text"):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"Export needs {module}, which is not installed. Run: pip install 'keras-luong[export]'")


def check_output(output: pathlib.Path, overwrite: bool) -> pathlib.Path:
    """The directory to write; raises UserError if it exists and may not be replaced."""
    if not output.exists():
        return output
    if not overwrite:
        raise UserError(f"{output} exists already. Choose another output, or allow it to be overwritten (--overwrite)")
    if not output.is_dir() or (any(output.iterdir()) and not (output / "manifest.json").exists()):
        raise UserError(f"{output} exists and is no artefact: it will not be overwritten. Choose another output")
    return output


@contextlib.contextmanager
def staging(output: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Two folders beside the output, for the artefact and for what leads to it; gone afterwards whatever happens."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}. Choose another output") from None
    try:
        stage, work = folder / "artefact", folder / "work"
        stage.mkdir()
        work.mkdir()
        yield stage, work
    except UserError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(output) from None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(stage: pathlib.Path, output: pathlib.Path) -> None:
    """Give the verified artefact its name; a former one goes only when the new one is in its place."""
    former = stage.parent / "former"
    if output.exists():
        output.rename(former)
    stage.rename(output)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to export, and what Keras makes of the samples."""

    model: keras.Model
    graphs: tuple[Graph, ...]
    stepped_graphs: tuple[Graph, ...]
    """The same graphs in the form that TFLite's built-in operators can express."""
    cases: Reference
    net: EncoderDecoder | None = None
    settings: SearchSettings = dataclasses.field(default_factory=SearchSettings)
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None


def plan_export(
    model: Any,
    settings: SearchSettings,
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
    samples: Sequence[Any] | None,
) -> Plan:
    """Graphs and cases of a model."""
    if not isinstance(model, keras.Model):
        raise UserError(f"Expected: a Keras model, or a run directory. Received: {type(model).__name__}")
    try:
        net = EncoderDecoder(model)
    except ValueError:
        graph = model_graph(model)
        inputs = [as_inputs(graph, sample) for sample in samples] if samples is not None else None
        inputs = inputs or reference.random_inputs(graph, smallest_vocabulary(model))
        return Plan(model, (graph,), (graph,), Reference(reference.model_cases(graph, inputs), []))
    graphs = translator_graphs(net, settings, "layer")
    rows, sentences = source_rows(net, tokenizers, samples)
    cases = Reference(reference.translator_cases(net, graphs, rows, settings), sentences)
    return Plan(model, graphs, translator_graphs(net, settings, "loop"), cases, net, settings, tokenizers)


def source_rows(
    net: EncoderDecoder, tokenizers: tuple[Tokenizer, Tokenizer] | None, samples: Sequence[Any] | None
) -> tuple[list[list[int]], list[str]]:
    """The rows of ids to search, each with EOS, and the sentences they came from, if any; too long ones are left out.

    Raises:
        UserError: if sentences come without tokenizers, or no sample is left.
    """
    longest = net.config.max_source_length or 10**9
    samples = list(samples or [])
    if not samples:
        generator = np.random.default_rng(0)
        lengths = [min(length, longest - 1) for length in (1, 2, 3, 5, 7, 11, 13, 17)]
        high = net.config.source_vocabulary
        return [[*generator.integers(4, high, length).tolist(), artefact.SPECIAL_IDS["eos"]] for length in lengths], []
    sentences = [sample for sample in samples if isinstance(sample, str)]
    if not sentences:
        rows = [[int(i) for i in sample] for sample in samples]
    elif tokenizers is None:
        raise UserError(
            "Samples are sentences, but there are no tokenizers. Give tokenizers=(source, target), or rows of ids"
        )
    else:
        rows = [[*tokenizers[0].encode(sentence), artefact.SPECIAL_IDS["eos"]] for sentence in sentences]
    kept = [number for number, row in enumerate(rows) if len(row) <= longest]
    if not kept:
        raise UserError(f"Every sample is longer than the model can read. Expected: at most {longest} tokens with EOS")
    return [rows[number] for number in kept], [sentences[number] for number in kept] if sentences else []


def as_inputs(graph: Graph, sample: Any) -> dict[str, np.ndarray]:
    """One sample as the graph's named arrays."""
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
    """A bound that every integer input of a model can bear: the smallest of its embedding tables."""
    sizes = [layer.input_dim for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]
    return min(sizes, default=2)


def convert(
    plan: Plan, formats: Sequence[str], stage: pathlib.Path, work: pathlib.Path, say: Progress
) -> dict[str, Any]:
    """Write the files of every format, the tokenizers and the runtime; returns the manifest, complete with them."""
    graphs = list(plan.graphs)
    manifest: dict[str, Any] = {
        "format_version": runtime.FORMAT_VERSION,
        "kind": "model" if plan.net is None else "translator",
        "precision": "float32",
        "versions": artefact.versions(),
        "formats": artefact.describe_formats(formats, graphs, plan.tokenizers is not None),
        "signatures": {graph.name: graph.to_dict() for graph in graphs},
    }
    if plan.net is not None:
        files = {}
        for side, tokenizer in zip(("source", "target"), plan.tokenizers or (), strict=False):
            files[side] = tokenizer.save(stage, side)
        manifest |= artefact.describe_translator(plan.net, graphs, plan.settings, plan.tokenizers, files)
        shutil.copyfile(runtime.__file__, stage / "runtime.py")
    text = text_graphs(plan)
    if "saved_model" in formats:
        say("writing the SavedModel")
        for graph, _ in text:
            manifest["signatures"][graph.name] = graph.to_dict()
        resources = [resource for _, used in text for resource in used]
        with loops.without_cudnn(plan.model):
            write_saved_model(stage / "saved_model", [*(graph for graph, _ in text), *graphs], resources)
    if "onnx" in formats:
        say("converting to ONNX")
        layers = stage / "saved_model"
        if text or "saved_model" not in formats:  # the converter knows no operators on text
            layers = work / "layers"
            with loops.without_cudnn(plan.model):
                write_saved_model(layers, graphs)
        conversion.convert_to_onnx(layers, stage / "onnx", graphs, work)
    if "tflite" in formats:
        say("converting to TFLite")
        with loops.stepped(plan.model) if plan.net is None else contextlib.nullcontext():
            write_saved_model(work / "loops", plan.stepped_graphs)
        conversion.convert_to_tflite(work / "loops", stage / "model.tflite", [graph.name for graph in graphs])
    return artefact.complete(manifest, stage)


def text_graphs(plan: Plan) -> list[tuple[Graph, list[Any]]]:
    """`translate_text` and the resources it holds, where there are tokenizers."""
    if plan.net is None or plan.tokenizers is None:
        return []
    source, target = (text_graph.graph_tokenizer(tokenizer) for tokenizer in plan.tokenizers)
    graph = text_graph.text_graph(
        plan.graphs[-1], source, target, plan.settings.knobs, plan.net.config.max_source_length
    )
    return [(graph, [*source.resources, *target.resources])]
