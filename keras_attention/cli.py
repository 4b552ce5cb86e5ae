"""The command line `keras-attention`: from training text to a verified artefact.

This file only reads options; every command is a function of the library with the same names.
"""

from __future__ import annotations

import io
import logging
import os
import pathlib
import sys
from typing import Annotated, NoReturn

import typer

from keras_attention.cli_export import export, plan
from keras_attention.cli_options import Agreed, Combination, MoreRuns
from keras_attention.cli_train import average, shortlist, synthesize, train
from keras_attention.cli_translate import attention, score, translate
from keras_attention.errors import UserError

app = typer.Typer(
    name="keras-attention",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Path = pathlib.Path


@app.callback()
def root() -> None:
    """Luong attention, from parallel text to verified SavedModel, TFLite and ONNX artefacts."""


for command in (train, average, synthesize, shortlist, translate, score, attention):
    app.command()(command)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Annotated[Path | None, typer.Option(help="Source text, one sentence per line.")] = None,
    target: Annotated[list[Path] | None, typer.Option(help="Reference text; again for more references.")] = None,
    tsv: Annotated[
        Path | None, typer.Option(help="SOURCE<TAB>TARGET lines; equal sources: several references.")
    ] = None,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    task: Annotated[str | None, typer.Option(help="translation, g2p or exact; the run's own by default.")] = None,
    tokenize: Annotated[str | None, typer.Option(help="BLEU's tokenisation: none or 13a.")] = None,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Its alpha; 0 for none.")] = 1.0,
    length_penalty_kind: Annotated[str, typer.Option(help="gnmt or average.")] = "gnmt",
    coverage_penalty: Annotated[
        float, typer.Option(help="GNMT beta, against words left untranslated; 0 for none.")
    ] = 0.0,
    agreement: Agreed = None,
    batch_size: Annotated[int, typer.Option(help="Sentences at a time.")] = 32,
    by_length: Annotated[bool, typer.Option("--by-length", help="Also score groups of like source length.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the outputs, one per line.")] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help="Cut sources that are too long.")] = False,
) -> None:
    """Score a run on parallel text: BLEU and chrF, error rates, exact match. The last line is one JSON object."""
    from keras_attention.training.evaluate import evaluate_and_print

    evaluate_and_print(
        run,
        source=source,
        target=target or None,
        tsv=tsv,
        ensemble=ensemble or (),
        combination=combination,
        task=task,
        tokenize=tokenize,
        beam_size=beam,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        coverage_penalty=coverage_penalty,
        agreement=agreement,
        batch_size=batch_size,
        by_length=by_length,
        output=output,
        lenient=lenient,
    )


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; the others are compared with the first.")],
    source: Annotated[Path | None, typer.Option(help="Source text, one sentence per line.")] = None,
    target: Annotated[list[Path] | None, typer.Option(help="Reference text; again for more references.")] = None,
    tsv: Annotated[
        Path | None, typer.Option(help="SOURCE<TAB>TARGET lines; equal sources: several references.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="translation, g2p or exact; the first run's own by default.")] = None,
    tokenize: Annotated[str | None, typer.Option(help="BLEU's tokenisation: none or 13a.")] = None,
    samples: Annotated[int, typer.Option(help="Draws of the test of significance.")] = 1000,
    most: Annotated[int, typer.Option(help="Sentences to show, whose outputs differ most.")] = 5,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Its alpha; 0 for none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Sentences at a time.")] = 32,
    lenient: Annotated[bool, typer.Option("--lenient", help="Cut sources that are too long.")] = False,
) -> None:
    """Compare runs on the same text: scores, significance by paired bootstrap, the sentences that differ most."""
    from keras_attention.training.compare import compare_and_print

    compare_and_print(
        runs,
        source=source,
        target=target or None,
        tsv=tsv,
        task=task,
        tokenize=tokenize,
        samples=samples,
        most=most,
        beam_size=beam,
        length_penalty=length_penalty,
        batch_size=batch_size,
        lenient=lenient,
    )


app.command()(plan)
app.command()(export)


@app.command()
def verify(directory: Annotated[Path, typer.Argument(help="Artefact directory.")]) -> None:
    """Compare an artefact directory with what Keras computed: files, names, operators, values, tokens."""
    from keras_attention.export.commands import verify_directory

    verify_directory(directory)


@app.command()
def benchmark(
    directory: Annotated[Path, typer.Argument(help="Artefact directory.")],
    seconds: Annotated[float, typer.Option(help="Time spent on each measurement.")] = 3.0,
    threads: Annotated[int | None, typer.Option(help="Of LiteRT and ONNX Runtime. [default: their own]")] = None,
) -> None:
    """Size, latency and sentences/s of an artefact in every runtime; the last line is one JSON object."""
    from keras_attention.export.commands import benchmark_directory

    benchmark_directory(directory, seconds, threads)


def main() -> None:
    """Entry point: a user's mistake, or a full disk, becomes one line on standard error and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    # TensorFlow warns of a few tracings for different shapes, which are intended.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered cannot be written either; the interpreter must not complain of it a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


if __name__ == "__main__":
    main()
