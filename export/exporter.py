"""Export a model: convert, verify, time, and only then give the artefact its name."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.translation.translator import Translator

from . import manifest as artefact
from .checks import (
    TARGETS,
    check_backend,
    check_both_ways,
    check_calibration,
    check_float16,
    check_formats,
    check_host_search,
    check_references,
    check_task,
)
from .formats.calibration import split_samples
from .formats.files import Progress, convert, convert_for_npu, convert_to_int8
from .formats.plain_paths import is_pattern
from .formats.text_inside import check_text
from .formats.to_npu import convert as npu
from .parity import cases as reference
from .parity.quality import LOSS_LIMIT
from .plan import Members, plan_export
from .report import benchmark as bench
from .report import report
from .result import ExportResult, result
from .staging import check_output, publish, staging
from .verifier import REFERENCE_FILE, compare

TIMING_SECONDS = 1.0
"""Spent on each of the two measurements of a format: enough for the report; `benchmark` takes longer."""


def export(
    model: Any,
    output: str | pathlib.Path,
    to: str | Sequence[str] | None = None,
    *,
    samples: Sequence[Any] | None = None,
    tokenizers: tuple[Tokenizer, Tokenizer] | None = None,
    policy: SearchPolicy | None = None,
    precision: str | None = None,
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
    **settings: Any,
) -> ExportResult:
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
        policy: settings of the search, see `SearchPolicy`: what an export fixes, and defaults of the inputs.
        precision: `"float32"`, the default; `"float16"`, a file of half the size; `"dynamic_int8"`, a quarter of it,
            and faster products; `"int8"`, ONNX alone: activations of fixed ranges too, with the search on the host.
            SavedModel holds float32 alone; the NPU target is int8.
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
        progress: called with a few words on each step as it begins, as `print` may be.
        **settings: fields of `SearchPolicy` that replace those of `policy`: `beam_size=1`.

    Returns:
        The path of the artefact, those of the files of each format, the comparison of each with Keras, and the report,
        which also lies in the artefact as `report.md` and `report.json`.

    Raises:
        TypeError: for a setting that `SearchPolicy` has not.
        UserError: for an unknown format, a number out of range, an output that exists, a model that cannot be
            exported, a full disk.
        ConversionError: if a converter refuses the model or crashes.
        VerificationError: if an artefact differs from Keras.

    Example:

    >>> import keras
    >>> inputs = keras.Input((3,), name="features")
    >>> model = keras.Model(inputs, keras.layers.Dense(2, name="scores")(inputs))
    >>> exported = export(model, "/tmp/artefact", to="tflite", progress=print)            # doctest: +SKIP
    >>> exported.formats["tflite"]                                                        # doctest: +SKIP
    (PosixPath('/tmp/artefact/model.tflite'),)
    """
    say = progress or (lambda message: None)
    if target not in TARGETS:
        raise UserError(f"Unknown target. Expected: one of {', '.join(TARGETS)}. Received: {target!r}")
    on_npu = target == "npu"
    if text and precision == "int8":
        raise UserError("A file that reads sentences holds `translate`, which int8 files do not. Expected: no --text")
    if on_npu and (to is not None or text or precision not in (None, "int8")):
        raise UserError("The npu target is int8 TFLite files for ids. Expected: no --to, --text or --precision with it")
    precision = precision or ("int8" if on_npu else "float32")
    formats = ["npu"] if on_npu else check_formats(to, precision)
    check_calibration(precision, calibration, source_length)
    scored = check_task(task, loss_limit)
    check_backend()
    output = check_output(pathlib.Path(output), overwrite)
    policy = SearchPolicy.of(policy, **settings)
    if isinstance(model, (str, os.PathLike)):
        model = RunDirectory.open(os.fspath(model))
    several = isinstance(model, (list, tuple)) and model
    opened, ensemble = open_members(model, combination) if several else ([model], None)
    check_both_ways(policy, opened)
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
        npu.check(model, policy)
    if precision == "int8":
        check_host_search(policy)
        samples, kept, calibration = split_samples(samples, calibration)
        accepted = accepted[:kept]
    if text:
        check_text(formats, tokenizers, model, policy)
    if precision == "float16":
        check_float16(model, formats)
    with staging(output, overwrite) as (stage, work):
        say("computing with Keras")
        plan = plan_export(model, policy, tokenizers, samples, accepted, scored, source_length if on_npu else None)
        if on_npu:
            manifest = convert_for_npu(plan, calibration or (), source_length, stage, work, say)
        elif precision == "int8":
            manifest = convert_to_int8(plan, calibration or (), stage, work, say)
        else:
            manifest = convert(plan, formats, stage, work, say, precision, text)
        manifest["trained_source_length"] = artefact.trained_source_length(opened)
        parities = compare(stage, manifest, plan.cases, say)
        if plan.left_out:
            parities[0].warnings.append(
                f"{plan.left_out} samples are longer than the sources may be, or empty: they were left out"
            )
        if "saved_model" in formats and is_pattern(output):
            parities[0].warnings.append(
                "saved_model: TensorFlow takes one of []*?\\ in the path for a pattern: move the folder to load it"
            )
        say("timing")
        latencies = bench.measure(stage, manifest, plan.cases, TIMING_SECONDS, memory=TIMING_SECONDS > 0)
        written = report.build(manifest, parities, latencies, plan)
        reference.save(dataclasses.replace(plan.cases, facts=manifest), stage / REFERENCE_FILE)
        report.write(written, stage)
        artefact.write_manifest(artefact.complete(manifest, stage), stage)
        publish(stage, output)
    return result(output, manifest, written)


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
