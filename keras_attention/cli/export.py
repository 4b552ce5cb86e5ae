"""The command `export` of `keras-attention`."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from keras_attention.cli.help import option, options_of
from keras_attention.cli.options import Combination, MoreRuns, Run
from keras_attention.cli.train import parse_fields
from keras_attention.errors import UserError
from keras_attention.search_policy import SearchPolicy

Path = pathlib.Path
verification = options_of("Verification")


def export(
    run: Run,
    more: Annotated[list[str] | None, typer.Argument(metavar="FORMAT", hidden=True)] = None,
    to: Annotated[
        list[str] | None,
        option(
            "saved_model, tflite (litert), onnx; npu: int8 files of static graphs, with the search on the host.",
            "--to",
            metavar="FORMAT...",
            default="all but npu that can hold the precision",
        ),
    ] = None,
    output: Annotated[Path | None, option("Artefact directory to write.", default="RUN/export")] = None,
    overwrite: Annotated[bool, option("Replace an artefact that is there.", "--overwrite")] = False,
    precision: Annotated[
        str | None, option("float32, float16, dynamic_int8 or int8 (ONNX, npu).", default="float32; int8 of npu")
    ] = None,
    text: Annotated[bool, option("TFLite and ONNX: also a file that reads sentences.", "--text")] = False,
    target: Annotated[str | None, typer.Option(hidden=True)] = None,
    source_length: Annotated[int, option("Of npu: most source tokens, EOS counted.")] = 40,
    calibration: Annotated[
        Path | None,
        option("Of int8: 100 sentences or more to take ranges from.", default="128 of the run's samples"),
    ] = None,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    sentences: Annotated[Path | None, verification("Text to verify on.", default="the run's samples")] = None,
    references: Annotated[
        Path | None,
        verification("What its lines may become, separated by tabs: to measure a precision's cost."),
    ] = None,
    loss_limit: Annotated[float, verification("Points of BLEU, WER or exact match that it may cost.")] = 0.5,
    *,
    policy: SearchPolicy,
) -> None:
    """Export a run as SavedModel, TFLite and ONNX, and prove each equal to Keras: `export RUN --to tflite onnx`."""
    from keras_attention.export.console import export_run

    if target is not None:
        raise UserError("--target is no longer an option: npu is a format. Expected: --to npu")
    formats = [*(to or []), *(more or [])]  # `--to a b` hands over b as an argument
    export_run(
        run,
        formats or None,
        output,
        ensemble=ensemble or (),
        combination=combination,
        policy=policy,
        source_length=source_length,
        calibration=calibration,
        precision=precision,
        text=text,
        sentences=sentences,
        references=references,
        loss_limit=loss_limit,
        overwrite=overwrite,
    )


def estimate(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="JSON file with fields of Seq2SeqConfig, or a run directory.")
    ],
    set_: Annotated[
        list[str] | None, option("A field to replace; again for more.", "--set", metavar="NAME=VALUE")
    ] = None,
    source_length: Annotated[int, option("Source tokens of a sentence, EOS counted.")] = 20,
    target_length: Annotated[int, option("Target tokens, EOS counted.")] = 20,
    beam: Annotated[int, option("Hypotheses kept.")] = 5,
) -> None:
    """Estimate weights, products, bytes at each precision and memory of a model before it is trained."""
    from keras_attention.export.console import estimate_model

    estimate_model(config, parse_fields(set_ or []), source_length, target_length, beam)
