"""Export a model: convert, verify, time, and only then give the artefact its name."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.text import Tokenizer
from keras_attention.translator import Translator

from . import (
    artefact,
    bench,
    conversion,
    gru,
    int8_embeddings,
    litert_text,
    loops,
    lstm_lengths,
    npu,
    onnx_text,
    reference,
    report,
    runtime,
    static_int8,
)
from .calibration import split_samples
from .checks import (
    TARGETS,
    check_backend,
    check_both_ways,
    check_formats,
    check_host_search,
    check_ranges,
    check_references,
    check_task,
)
from .graphs import Graph
from .planning import Members, Plan, plan_export, source_rows
from .quality import LOSS_LIMIT
from .saved_model import write_saved_model
from .search_settings import SearchSettings
from .staging import check_output, publish, staging
from .text_inside import check_text, text_graphs, write_litert_text, write_onnx_text
from .verification import REFERENCE_FILE, compare

Progress = Callable[[str], None]
TIMING_SECONDS = 1.0
"""Spent on each of the two measurements of a format: enough for the report; `benchmark` takes longer."""


def export(
    model: Any,
    output: str | pathlib.Path,
    to: str | Sequence[str] | None = None,
    *,
    samples: Sequence[Any] | None = None,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    beam_size: int = 5,
    max_length: int = 100,
    max_length_factor: float | None = None,
    max_length_offset: int = 10,
    length_penalty: float = 1.0,
    min_length: int = 0,
    coverage_penalty: float = 0.0,
    precision: str = "float32",
    text: bool = False,
    references: Sequence[str | Sequence[str]] | None = None,
    task: str = "translation",
    loss_limit: float = LOSS_LIMIT,
    target: str = "mobile",
    source_length: int = 40,
    calibration: Sequence[Any] | None = None,
    combination: str = "probabilities",
    overwrite: bool = False,
    progress: Progress | None = None,
    **search: Any,
) -> report.Report:
    """Write an artefact directory with the model in the given formats, each proved equal to Keras.

    An encoder-decoder of `build_seq2seq` becomes the graphs `encode`, `decode_step` and `translate`; any other
    functional model becomes the one graph `call`. Nothing appears under the name `output` before every format was
    verified.

    Args:
        model: an encoder-decoder, any functional Keras model, a run directory, or the path of one; several of the same
            vocabularies, in a list, become one artefact that answers as their `Ensemble`.
        output: directory to write.
        to: `saved_model`, `tflite` (or `litert`), `onnx`: one or several; all that can hold the precision if `None`.
        samples: what to verify on. Of a translator: sentences, or rows of source ids where there are no tokenizers; a
            run has its own. Of another model: inputs, each an array or a dict of arrays. Random ones if `None`.
        tokenizers: of the source and the target; a run has its own.
        beam_size: hypotheses of `translate`, fixed in the artefact.
        max_length: longest translation, EOS counted: the capacity of the artefact's buffers, and its default.
        max_length_factor: where given, a translation is also cut at this many tokens per source token ...
        max_length_offset: ... plus this many.
        length_penalty: default exponent of the GNMT length penalty.
        min_length: default of the fewest tokens of a translation, EOS counted.
        coverage_penalty: default of GNMT's coverage penalty, against words left untranslated.
        precision: `"float32"`; `"float16"`, a file of half the size; `"dynamic_int8"`, a quarter of it, and faster
            products; `"int8"`, ONNX alone: activations of fixed ranges too, with the search on the host. SavedModel
            holds float32 alone.
        text: whether TFLite and ONNX get another file that reads sentences, see `litert_text` and `onnx_text`. These
            need subword tokenizers, and operators of tensorflow-text or onnxruntime-extensions where they run.
        references: what each sample may become, one text or several each: what a lower precision costs is measured with
            them, and fails the export above `loss_limit`. A run has its own.
        task: `"translation"` (BLEU), `"g2p"` (word error rate) or `"exact"` (exact match); a run has its own.
        loss_limit: points of that score that a lower precision may cost.
        target: `"mobile"`, or `"npu"`: int8 files of static graphs in place of the formats, see `npu_graphs`, with the
            search on the host; `to` and `precision` are of no meaning there.
        source_length: of the NPU target: most source tokens, EOS counted.
        calibration: of int8 and the NPU target: at least 100 sentences (or rows of ids) that ranges are taken from; the
            last 128 of a run's samples if `None`, which are then not verified with.
        combination: of several models: mean of `"probabilities"` or of `"logits"`.
        overwrite: whether an artefact that is already there is replaced, once the new one is verified.
        progress: told what is being done.
        **search: more fields of `SearchSettings`: another method than a beam, repetition, phrases, groups.

    Returns:
        The report that also lies in the artefact, as `report.md` and `report.json`.

    Raises:
        TypeError: for a field that `SearchSettings` has not.
        UserError: for an unknown format, a number out of range, an output that exists, a model that cannot be
            exported, a full disk.
        ConversionError: if a converter refuses the model or crashes.
        VerificationError: if an artefact differs from Keras.

    Example:

    >>> import keras
    >>> inputs = keras.Input((3,), name="features")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="scores")(inputs))
    >>> report = export(model, "/tmp/artefact", to="tflite")                              # doctest: +SKIP
    """
    say = progress or (lambda message: None)
    if target not in TARGETS:
        raise UserError(f"Unknown target. Expected: one of {', '.join(TARGETS)}. Received: {target!r}")
    on_npu = target == "npu"
    if text and precision == "int8":
        raise UserError("A file that reads sentences holds `translate`, which int8 files do not. Expected: no --text")
    if on_npu and (to is not None or text or precision not in ("float32", "int8")):
        raise UserError("The npu target is int8 TFLite files for ids. Expected: no --to, --text or --precision with it")
    formats = ["npu"] if on_npu else check_formats(to, precision)
    precision = "int8" if on_npu else precision
    check_ranges(precision, calibration, source_length)
    scored = check_task(task, loss_limit)
    check_backend()
    output = check_output(pathlib.Path(output), overwrite)
    settings = SearchSettings(
        beam_size,
        max_length,
        max_length_factor,
        max_length_offset,
        length_penalty,
        min_length,
        coverage_penalty,
        **search,
    )
    if isinstance(model, (str, os.PathLike)):
        model = RunDirectory.open(os.fspath(model))
    several = isinstance(model, (list, tuple)) and model
    opened, ensemble = open_members(model, combination) if several else ([model], None)
    check_both_ways(settings, opened)
    model = opened[0]
    if isinstance(model, RunDirectory):
        tokenizers = (model.source_tokenizer, model.target_tokenizer)
        if samples is None:
            samples = model.samples()
            if references is None and precision != "float32":
                references = model.references()
        scored = dataclasses.replace(scored, name=model.task, tokenize=model.tokenization)
        if ensemble is None:
            model = model.load_model()
    model = model if ensemble is None else ensemble
    accepted = check_references(references, samples)
    if on_npu:
        npu.check(model, settings)
    if precision == "int8":
        check_host_search(settings)
        samples, kept, calibration = split_samples(samples, calibration)
        accepted = accepted[:kept]
    if text:
        check_text(formats, tokenizers, model, settings)
    with staging(output) as (stage, work):
        plan = plan_export(model, settings, tokenizers, samples, accepted, scored, source_length if on_npu else None)
        if on_npu:
            manifest = convert_for_npu(plan, calibration or (), source_length, stage, work, say)
        elif precision == "int8":
            manifest = convert_to_int8(plan, calibration or (), stage, work, say)
        else:
            manifest = convert(plan, formats, stage, work, say, precision, text)
        parities = compare(stage, manifest, plan.cases, say)
        if plan.left_out:
            parities[0].warnings.append(
                f"{plan.left_out} samples are longer than the sources may be: they were left out"
            )
        say("timing")
        latencies = bench.measure(stage, manifest, plan.cases, TIMING_SECONDS, memory=TIMING_SECONDS > 0)
        written = report.build(manifest, parities, latencies, plan)
        reference.save(plan.cases, stage / REFERENCE_FILE)
        report.write(written, stage)
        artefact.write_manifest(artefact.complete(manifest, stage), stage)
        publish(stage, output)
    return written


def open_members(models: Sequence[Any], combination: str) -> tuple[list[Any], Members]:
    """Several runs or models, opened, and all of them as one.

    Raises:
        UserError: for runs and models side by side, and vocabularies that differ.
    """
    if all(isinstance(one, keras.Model) for one in models):
        return list(models), Members(models, combination)
    if any(isinstance(one, keras.Model) for one in models):
        raise UserError("Expected: run directories, or models. Received: both in one list")
    runs = [one if isinstance(one, RunDirectory) else RunDirectory.open(os.fspath(one)) for one in models]
    return runs, Members(Translator.load(*runs, combination=combination).models, combination)


def begin_manifest(
    plan: Plan, formats: Sequence[str], precision: str, stage: pathlib.Path, text: bool = False
) -> dict[str, Any]:
    """What a manifest says of every artefact; writes the tokenizers and the runtime of a translator."""
    graphs = list(plan.graphs)
    manifest: dict[str, Any] = {
        "format_version": runtime.FORMAT_VERSION,
        "kind": "model" if plan.net is None else "translator",
        "precision": precision,
        "versions": artefact.versions(),
        "formats": artefact.describe_formats(formats, graphs, text),
        "signatures": {graph.name: graph.to_dict() for graph in graphs},
    }
    if plan.net is not None:
        files = {}
        for side, tokenizer in zip(("source", "target"), plan.tokenizers or (), strict=False):
            files[side] = tokenizer.save(stage, side)
        manifest |= artefact.describe_translator(plan.net, graphs, plan.settings, plan.tokenizers, files)
        shutil.copyfile(runtime.__file__, stage / "runtime.py")
    return manifest


def convert_for_npu(
    plan: Plan,
    calibration: Sequence[Any],
    source_length: int,
    stage: pathlib.Path,
    work: pathlib.Path,
    say: Progress,
) -> dict[str, Any]:
    """Write the files of the NPU target, the tokenizers and the runtime; returns the manifest."""
    assert plan.net is not None
    manifest = begin_manifest(plan, ["npu"], "int8", stage)
    manifest["formats"] = {"npu": npu.describe(plan, source_length)}
    manifest["max_source_length"] = min(source_length, manifest["max_source_length"] or source_length)
    say("calibrating, and converting to int8")
    rows, _, _ = source_rows(plan.net, plan.tokenizers, calibration, source_length)
    entry = manifest["formats"]["npu"]
    entry["mask_bias"] = npu.write(plan, rows, manifest, stage, work)
    entry["graphs"] = npu.describe_graphs(entry, stage)
    return artefact.complete(manifest, stage)


def convert_to_int8(
    plan: Plan, calibration: Sequence[Any], stage: pathlib.Path, work: pathlib.Path, say: Progress
) -> dict[str, Any]:
    """Write the int8 ONNX files, the tokenizers and the runtimes; returns the manifest."""
    static_int8.check(plan)
    manifest = begin_manifest(plan, ["onnx"], "int8", stage)
    manifest["formats"] = artefact.describe_formats(["onnx"], static_int8.chosen(plan.graphs), False)
    add_page(plan, stage)
    say("converting to ONNX, and calibrating")
    write_layers(plan, static_int8.chosen(plan.graphs), work / "layers", lstm_lengths.needed(manifest["members"]))
    static_int8.write(plan, calibration, manifest, stage, work)
    return artefact.complete(manifest, stage)


def write_layers(plan: Plan, graphs: Sequence[Graph], folder: pathlib.Path, unmasked: bool = False) -> None:
    """A SavedModel whose recurrent layers ONNX has nodes for; `unmasked`: see `lstm_lengths`."""
    masks = lstm_lengths.unmasked(plan.model) if unmasked else contextlib.nullcontext()
    with loops.without_cudnn(plan.model), gru.recognised(plan.model), masks:
        write_saved_model(folder, graphs)


def add_page(plan: Plan, stage: pathlib.Path) -> None:
    """Lay the runtime and the page in JavaScript beside ONNX files of a translator that they can run."""
    net = plan.net
    if net is not None and net.source_features is None and net.config.copy_words is None:
        for name in ("runtime.mjs", "subwords.mjs", "page.mjs", "index.html"):
            shutil.copyfile(pathlib.Path(runtime.__file__).with_name(name), stage / name)


def convert(
    plan: Plan,
    formats: Sequence[str],
    stage: pathlib.Path,
    work: pathlib.Path,
    say: Progress,
    precision: str = "float32",
    text_inside: bool = False,
) -> dict[str, Any]:
    """Write the files of every format, the tokenizers and the runtime; returns the manifest, complete with them."""
    graphs = list(plan.graphs)
    text = text_graphs(plan)
    manifest = begin_manifest(plan, formats, precision, stage, bool(text))
    if "onnx" in formats:
        add_page(plan, stage)
    if "saved_model" in formats:
        say("writing the SavedModel")
        for graph, _ in text:
            manifest["signatures"][graph.name] = graph.to_dict()
        resources = [resource for _, used in text for resource in used]
        with loops.without_cudnn(plan.model), gru.recognised(plan.model):
            write_saved_model(stage / "saved_model", [*(graph for graph, _ in text), *graphs], resources)
    with conversion.background() as start:
        if "onnx" in formats:
            say("converting to ONNX")
            layers, told = stage / "saved_model", lstm_lengths.needed(manifest.get("members", []))
            if text or told or "saved_model" not in formats:  # the converter knows no operators on text
                layers = work / "layers"
                write_layers(plan, graphs, layers, told)
            start(conversion.convert_to_onnx, layers, stage / "onnx", graphs, work, precision, told)
        if "tflite" in formats:
            say("converting to TFLite")
            with contextlib.ExitStack() as stack:
                if plan.net is None:
                    stack.enter_context(loops.stepped(plan.model))
                if precision == "dynamic_int8":
                    stack.enter_context(int8_embeddings.int8_lookups(plan.model))
                write_saved_model(work / "loops", plan.stepped_graphs)
                if text_inside:
                    write_litert_text(plan, work / "text")
            names = [graph.name for graph in graphs]
            start(conversion.convert_to_tflite, work / "loops", stage / "model.tflite", names, precision)
            if text_inside:
                names = ["translate_text"]
                start(conversion.convert_to_tflite, work / "text", stage / litert_text.FILE, names, precision, True)
                manifest["formats"]["tflite"]["text_file"] = litert_text.FILE
    if text_inside and "onnx" in formats:
        write_onnx_text(plan, stage)
        manifest["formats"]["onnx"]["text_file"] = onnx_text.FILE
    return artefact.complete(manifest, stage)
