"""The command `export` of `keras-attention`."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from keras_attention.cli.help import option, options_of
from keras_attention.cli.options import Combination, MoreRuns, Run, constraint, search
from keras_attention.cli.train import parse_fields
from keras_attention.errors import UserError

Path = pathlib.Path
verification = options_of("Verification")


def export(
    run: Run,
    more: Annotated[list[str] | None, typer.Argument(metavar="FORMAT", hidden=True)] = None,
    to: Annotated[
        list[str] | None,
        option(
            "saved_model, tflite (litert), onnx.",
            "--to",
            metavar="FORMAT...",
            default="all that can hold the precision",
        ),
    ] = None,
    output: Annotated[Path | None, option("Artefact directory to write.", default="RUN/export")] = None,
    overwrite: Annotated[bool, option("Replace an artefact that is there.", "--overwrite")] = False,
    precision: Annotated[
        str | None, option("float32, float16, dynamic_int8 or int8 (ONNX).", default="float32; int8 with --target npu")
    ] = None,
    text: Annotated[bool, option("TFLite and ONNX: also a file that reads sentences.", "--text")] = False,
    target: Annotated[
        str, option("mobile; or npu: int8 files of static graphs, with the search on the host.")
    ] = "mobile",
    source_length: Annotated[int, option("Of the NPU target: most source tokens, EOS counted.")] = 40,
    calibration: Annotated[
        Path | None,
        option(
            "Of int8 and the NPU target: 100 sentences or more to take ranges from.", default="128 of the run's samples"
        ),
    ] = None,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    beam: Annotated[int, search("Hypotheses kept, fixed in the artefact.")] = 5,
    max_length: Annotated[int, search("Longest translation in tokens, fixed in the artefact.")] = 200,
    length_penalty: Annotated[float, search("Default exponent of the length penalty.")] = 1.0,
    length_penalty_kind: Annotated[str, search("gnmt or average, fixed.")] = "gnmt",
    coverage_penalty: Annotated[float, search("Default beta of the GNMT coverage penalty.")] = 0.0,
    stop: Annotated[str, search("all; or best, as soon as the best translation is known, fixed.")] = "all",
    finished_first: Annotated[
        bool, search("Rank what ended before what the maximum length cut, fixed.", "--finished-first")
    ] = False,
    groups: Annotated[int, search("Diverse beam search: groups that divide the beam, fixed.")] = 1,
    diversity: Annotated[float, search("Default of how much groups avoid each other's words.")] = 0.5,
    contrastive: Annotated[float | None, search("Contrastive search over --beam candidates.", metavar="ALPHA")] = None,
    agreement: Annotated[
        float | None,
        search("A beam in each direction, ranked by both: default weight of the second.", metavar="WEIGHT"),
    ] = None,
    sample: Annotated[bool, search("Draw --beam outputs in place of a beam search.", "--sample")] = False,
    temperature: Annotated[float | None, search("Of --sample: its default.", default="1")] = None,
    top_k: Annotated[int | None, search("Of --sample: draw from so many words, fixed.", default="all")] = None,
    top_p: Annotated[float | None, search("Of --sample: its default.", default="1")] = None,
    min_length: Annotated[int, constraint("Default of the fewest tokens of a translation.")] = 0,
    no_repeat_ngram: Annotated[int, constraint("No so many tokens in a row twice, fixed; 0: no rule.")] = 0,
    repetition_penalty: Annotated[float | None, constraint("Gives `translate` this input, with this default.")] = None,
    phrases: Annotated[
        tuple[int, int] | None,
        constraint("Gives it room for so many required phrases of so many tokens.", metavar="COUNT TOKENS"),
    ] = None,
    sentences: Annotated[Path | None, verification("Text to verify on.", default="the run's samples")] = None,
    references: Annotated[
        Path | None,
        verification("What its lines may become, separated by tabs: to measure a precision's cost."),
    ] = None,
    loss_limit: Annotated[float, verification("Points of BLEU, WER or exact match that it may cost.")] = 0.5,
) -> None:
    """Export a run as SavedModel, TFLite and ONNX, and prove each equal to Keras: `export RUN --to tflite onnx`."""
    from keras_attention.export.console import export_run

    ways = {"sample": sample or None, "contrastive": contrastive, "agreement": agreement}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(f'--{name}' for name in chosen)} are ways to search. Expected one of them")
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    drawing = {name: value for name, value in asked.items() if value is not None}
    if drawing and not sample:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in drawing)
        raise UserError(f"{names}: nothing is drawn. Expected --sample beside it")
    formats = [*(to or []), *(more or [])]  # `--to a b` hands over b as an argument
    export_run(
        run,
        formats or None,
        output,
        ensemble=ensemble or (),
        combination=combination,
        beam_size=beam,
        max_length=max_length,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        min_length=min_length,
        coverage_penalty=coverage_penalty,
        no_repeat_ngram=no_repeat_ngram,
        repetition_penalty=repetition_penalty,
        phrases=phrases,
        stop=stop,
        finished_first=finished_first,
        groups=groups,
        diversity=diversity,
        method=chosen[0] if chosen else "beam",
        **drawing,
        **({} if contrastive is None else {"alpha": contrastive}),
        **({} if agreement is None else {"backward_weight": agreement}),
        target=target,
        source_length=source_length,
        calibration=calibration,
        precision=precision,
        text=text,
        sentences=sentences,
        references=references,
        loss_limit=loss_limit,
        overwrite=overwrite,
    )


def plan(
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
    from keras_attention.export.console import plan_model

    plan_model(config, parse_fields(set_ or []), source_length, target_length, beam)
