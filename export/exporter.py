"""Export of a model: convert, verify, measure, and only then publish the artefact under its name."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer

from . import manifest as artefact
from .checks import check_backend, check_calibration, check_task
from .formats.base import Format, Progress
from .formats.calibration import set_apart
from .formats.files import convert
from .formats.table import choose
from .formats.text_inside import check_text
from .parity import cases as reference
from .parity.parity import Parity
from .parity.quality import LOSS_LIMIT
from .plan import Plan, plan_export
from .report import benchmark as bench
from .report import report
from .request import Request, open_request
from .result import ExportResult, result
from .staging import check_output, publish, staging
from .verifier import REFERENCE_FILE, compare

TIMING_SECONDS = 1.0
"""Time of each of the two measurements of a format: enough for the report; `benchmark` takes longer."""


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
    source_length: int = 40,
    calibration: Sequence[Any] | None = None,
    combination: str = "probabilities",
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> ExportResult:
    """Write an artefact directory with the model in the given formats, each verified against Keras.

    An encoder-decoder of `build_seq2seq` becomes the graphs `encode`, `decode_step` and `translate`; any other
    functional model becomes the one graph `call`. The artefact is published under the name `output` only after every
    format has passed verification.

    Args:
        model: an encoder-decoder, any functional Keras model, a run directory, or the path of one; a list of several
            with the same vocabularies becomes one artefact of their `Ensemble`.
        output: directory to write.
        to: `saved_model`, `tflite` (or `litert`), `onnx`, `npu` (int8 files of static graphs, see `npu_graphs`, with
            the search on the host): one or several; if `None`, all but `npu` that support the precision.
        samples: verification samples. Of a translator: sentences, or rows of source ids without tokenizers; a
            run has its own. Of another model: inputs, each an array or a dict of arrays. Random ones if `None`.
        tokenizers: tokenizers of the source and the target; a run has its own.
        policy: settings of the search, see `SearchPolicy`: those fixed at export, and defaults of the inputs.
        precision: `"float32"`, the default; `"float16"`, a file of half the size; `"dynamic_int8"`, a quarter of it,
            and faster products; `"int8"`, for ONNX, and the default of `npu`: static activation ranges too, with the
            search on the host. SavedModel supports only float32.
        text: whether TFLite and ONNX get a second file for sentences, see `to_tflite.text` and `to_onnx.text`. It
            requires subword tokenizers, and operators of tensorflow-text or onnxruntime-extensions at run time.
        references: references of each sample, one text or several each. With them the loss of a lower precision is
            measured; above `loss_limit` it fails the export. A run has its own.
        task: `"translation"` (BLEU), `"g2p"` (word error rate) or `"exact"` (exact match); a run has its own.
        loss_limit: points of that score that a lower precision may lose.
        source_length: of `npu`: maximum number of source tokens, EOS counted.
        calibration: of int8: at least 100 calibration sentences (or rows of ids); if `None`, the last 128 of a
            run's samples, which are then excluded from verification.
        combination: how an ensemble is averaged: `"probabilities"` or `"logits"`.
        overwrite: whether to replace an existing artefact, once the new one is verified.
        progress: called with a short description of each step as it begins, for example `print`.
        **settings: fields of `SearchPolicy` that replace those of `policy`: `beam_size=1`.

    Returns:
        The path of the artefact, those of the files of each format, the comparison of each with Keras, and the report,
            which is also in the artefact as `report.md` and `report.json`.

    Raises:
        TypeError: for an unknown setting of `SearchPolicy`.
        UserError: for an unknown format, a number out of range, an output that exists, a model that cannot be
            exported, a full disk.
        ConversionError: if a converter rejects the model or crashes.
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
    policy = SearchPolicy.of(policy, **settings)
    formats, precision = choose(to, precision)
    check_calibration(precision, calibration, source_length)
    scored = check_task(task, loss_limit)
    check_backend()
    output = check_output(pathlib.Path(output), overwrite)
    asked = Request(model, policy, tokenizers, samples, references, scored, precision, text, source_length, calibration)
    request = prepare(formats, open_request(asked, combination))
    with staging(output, overwrite) as (stage, work):
        say("computing with Keras")
        plan = plan_request(formats, request)
        manifest = convert(plan, request, formats, stage, work, say)
        manifest["trained_source_length"] = artefact.trained_source_length(request.members)
        parities = compare(stage, manifest, plan.cases, say)
        warn(formats, parities, plan, output)
        say("timing")
        latencies = bench.measure(stage, manifest, plan.cases, TIMING_SECONDS, memory=TIMING_SECONDS > 0)
        written = report.build(manifest, parities, latencies, plan)
        reference.save(dataclasses.replace(plan.cases, facts=manifest), stage / REFERENCE_FILE)
        report.write(written, stage)
        artefact.write_manifest(artefact.complete(manifest, stage), stage)
        publish(stage, output)
    return result(output, manifest, written)


def prepare(formats: Sequence[Format], request: Request) -> Request:
    """Check an opened request against each format, and split off calibration text.

    Raises:
        UserError: if a format does not support the model or the search, or there is too little text.
    """
    for one in formats:
        one.check(request)
    if request.text:
        check_text(formats, request)
    return set_apart(request)


def plan_request(formats: Sequence[Format], request: Request) -> Plan:
    """Plan graphs and cases of a request; formats of static shapes limit the length of samples."""
    return plan_export(
        request.model,
        request.settings,
        request.tokenizers,
        request.samples,
        request.references or (),
        request.task,
        request.source_length if any(one.static for one in formats) else None,
    )


def warn(formats: Sequence[Format], parities: Sequence[Parity], plan: Plan, output: pathlib.Path) -> None:
    """Add warnings about omitted samples, and about the artefact's path."""
    if plan.left_out:
        parities[0].warnings.append(
            f"{plan.left_out} samples are longer than the sources may be, or empty: they were left out"
        )
    for one, parity in zip(formats, parities, strict=True):
        parity.warnings += one.warnings(output)
