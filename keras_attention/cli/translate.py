"""Commands of `keras-attention` that use a model: `translate`, `score`, `attention`."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated

import typer

from keras_attention.cli.help import option
from keras_attention.cli.options import BatchSize, Combination, MoreRuns, Run, constraint, result, search
from keras_attention.search_policy import SearchPolicy

Path = pathlib.Path
HEAT_MAP = Path("attention.png")


def translate(
    run: Run,
    n_best: Annotated[int, result("Outputs of each line; above 1, each starts with its line number.")] = 1,
    scores: Annotated[bool, result("Put the score and a tab before each output.", "--scores")] = False,
    alignments: Annotated[Path | None, result("Write the attention of each output, as JSON lines.")] = None,
    pharaoh: Annotated[
        Path | None, result("Write what each word attends to most, as links 0-0 1-2, source-target.")
    ] = None,
    replace_unknown: Annotated[
        bool, result("Put the source word that <unk> attends to in its place.", "--replace-unknown")
    ] = False,
    dictionary: Annotated[Path | None, result("SOURCE<TAB>TARGET words for --replace-unknown.")] = None,
    skip_errors: Annotated[bool, result("Translate what can be of bad lines; warn.", "--skip-errors")] = False,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    batch_size: BatchSize = 32,
    prefix: Annotated[str, constraint("What each output begins with.")] = "",
    require: Annotated[
        list[str] | None, constraint("A phrase in each output; again for more.", metavar="PHRASE")
    ] = None,
    ban: Annotated[
        list[str] | None, constraint("A token that no output holds; again for more.", metavar="TOKEN")
    ] = None,
    *,
    policy: SearchPolicy,
) -> None:
    """Translate standard input, one sentence per line, to standard output."""
    from keras_attention.translation.stream import read_dictionary, translate_stream
    from keras_attention.translation.text_constraints import TextConstraints

    translate_stream(
        [run, *(ensemble or [])],
        combination=combination,
        policy=policy,
        constraints=TextConstraints(prefix, tuple(require or ()), tuple(ban or ())),
        n_best=n_best,
        scores=scores,
        alignments=alignments,
        pharaoh=pharaoh,
        replace_unknown=read_dictionary(dictionary) if dictionary is not None else replace_unknown,
        batch_size=batch_size,
        skip_errors=skip_errors,
    )


def score(
    run: Run,
    source: Annotated[Path, option("Source text, one sentence per line.")],
    target: Annotated[Path, option("Outputs to score, parallel to the source.")],
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    length_penalty: Annotated[float, search("Its alpha; 0 for the log-probability itself.")] = 0.0,
    batch_size: BatchSize = 32,
) -> None:
    """Print how likely each given output is, its log-probability over the length penalty, one per line."""
    from keras_attention.translation.stream import score_files

    for number in score_files(
        [run, *(ensemble or [])], source, target, combination, length_penalty=length_penalty, batch_size=batch_size
    ):
        print(f"{number:.6f}")


def attention(
    run: Run,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A source sentence.")],
    output: Annotated[Path, option("Picture to write.")] = HEAT_MAP,
    page: Annotated[Path | None, option("HTML page to write too: point at a word, and its sources light up.")] = None,
    *,
    policy: SearchPolicy,
) -> None:
    """Translate one text and draw its attention as a heat map (PNG), and as a page to point at (HTML)."""
    from keras_attention.translation.stream import draw_attention

    print(draw_attention(run, text, output, page, policy=policy).text)
    for written in (output, page):
        if written is not None:
            print(f"wrote {written}", file=sys.stderr)
