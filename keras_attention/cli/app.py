"""The command line `keras-attention`: from training text to a verified artefact.

This file only reads options; every command is a function of the library with the same names.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from keras_attention.cli.export import estimate, export
from keras_attention.cli.help import Command, Group, ResumedCommand, option
from keras_attention.cli.options import (
    Artefact,
    BatchSize,
    Combination,
    MoreRuns,
    References,
    Run,
    SkipErrors,
    Source,
    Tokenize,
    Tsv,
    result,
    text,
    with_policy,
)
from keras_attention.cli.train import average, shortlist, synthesize, train
from keras_attention.cli.translate import attention, score, translate
from keras_attention.errors import UserError
from keras_attention.search_policy import SearchPolicy
from keras_attention.version import VERSION

app = typer.Typer(
    name="keras-attention",
    cls=Group,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="""keras-attention train --source train.en --target train.de --output runs/en-de
keras-attention translate runs/en-de < test.en
keras-attention export runs/en-de --to tflite onnx
keras-attention COMMAND --help""",
)

Path = pathlib.Path


def show_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-luong {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Luong attention, from parallel text to verified SavedModel, TFLite and ONNX artefacts."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def evaluate(
    run: Run,
    source: Source = None,
    target: References = None,
    tsv: Tsv = None,
    skip_errors: SkipErrors = False,
    task: Annotated[str | None, text("translation, g2p or exact.", default="the run's own")] = None,
    tokenize: Tokenize = None,
    by_length: Annotated[bool, result("Also score groups of like source length.", "--by-length")] = False,
    output: Annotated[Path | None, result("Write the outputs, one per line.")] = None,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    batch_size: BatchSize = 32,
    *,
    policy: SearchPolicy,
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
        policy=policy,
        batch_size=batch_size,
        by_length=by_length,
        output=output,
        skip_errors=skip_errors,
    )


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories; the others are compared with the first.")
    ],
    source: Source = None,
    target: References = None,
    tsv: Tsv = None,
    skip_errors: SkipErrors = False,
    task: Annotated[str | None, text("translation, g2p or exact.", default="the first run's own")] = None,
    tokenize: Tokenize = None,
    samples: Annotated[int, result("Draws of the test of significance.")] = 1000,
    most: Annotated[int, result("Sentences to show, whose outputs differ most.")] = 5,
    batch_size: BatchSize = 32,
    *,
    policy: SearchPolicy,
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
        policy=policy,
        batch_size=batch_size,
        skip_errors=skip_errors,
    )


def verify(directory: Artefact) -> None:
    """Compare an artefact directory with what Keras computed: files, names, operators, values, tokens."""
    from keras_attention.export.console import verify_directory

    verify_directory(directory)


def benchmark(
    directory: Artefact,
    seconds: Annotated[float, option("Time spent on each measurement.")] = 3.0,
    threads: Annotated[int | None, option("Of LiteRT and ONNX Runtime.", default="their own")] = None,
) -> None:
    """Size, latency and sentences/s of an artefact in every runtime; the last line is one JSON object."""
    from keras_attention.export.console import benchmark_directory

    benchmark_directory(directory, seconds, threads)


TEXT = "--source test.en --target test.de"
EXAMPLES: dict[Callable[..., None], str] = {
    train: """keras-attention train --source train.en --target train.de \\
  --val-source val.en --val-target val.de --output runs/en-de""",
    average: "keras-attention average runs/a runs/b --output runs/mean",
    synthesize: """keras-attention synthesize runs/de-en --source more.de \\
  --output back.tsv --reverse""",
    shortlist: """keras-attention shortlist runs/en-de --source train.en --target train.de \\
  --output runs/en-de-short""",
    translate: "keras-attention translate runs/en-de --beam 5 < test.en > test.out",
    score: f"keras-attention score runs/en-de {TEXT}",
    attention: 'keras-attention attention runs/en-de "a small dog sleeps" --output map.png',
    evaluate: f"keras-attention evaluate runs/en-de {TEXT}",
    compare: f"keras-attention compare runs/a runs/b {TEXT}",
    estimate: "keras-attention estimate runs/en-de --set decoder_units=512",
    export: """keras-attention export runs/en-de --to saved_model tflite onnx \\
  --output artefacts/en-de""",
    verify: "keras-attention verify artefacts/en-de",
    benchmark: "keras-attention benchmark artefacts/en-de --seconds 3",
}
"""Every command, in the order in which a user meets them, with the example that ends its help."""

UNSET: dict[Callable[..., None], set[str]] = {export: {"seed"}}
"""Settings of a search for which a command has no option, where they are not those of the others."""

for command, example in EXAMPLES.items():
    resumed = command in (train, synthesize)
    searching = "policy" in inspect.signature(command).parameters
    made = with_policy(command, UNSET.get(command, {"phrases"})) if searching else command
    app.command(cls=ResumedCommand if resumed else Command, epilog=example)(made)


def main() -> None:
    """Entry point: a user's mistake, or a full disk, becomes one line on standard error and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What is read is UTF-8, and so is what is written, whatever the locale can hold.
            stream.reconfigure(encoding="utf-8", line_buffering=True)
    # TensorFlow warns of a few tracings for different shapes, which are intended.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        app(prog_name="keras-attention")
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
