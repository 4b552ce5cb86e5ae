"""Commands of `keras-attention` that use a model: `translate`, `score`, `attention`."""

from __future__ import annotations

import pathlib
import sys
from typing import Annotated

import typer

from keras_attention.cli.help import option, options_of
from keras_attention.cli.options import (
    Agreed,
    BatchSize,
    Beam,
    Combination,
    CoveragePenalty,
    FinishedFirst,
    LengthPenalty,
    MoreRuns,
    PenaltyKind,
    Run,
    constraint,
    result,
    search,
)
from keras_attention.errors import UserError

Path = pathlib.Path
HEAT_MAP = Path("attention.png")
drawing = options_of("Samples")


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
    lenient: Annotated[bool, result("Translate what can be of bad lines; warn.", "--lenient")] = False,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    beam: Beam = 5,
    length_penalty: LengthPenalty = 1.0,
    length_penalty_kind: PenaltyKind = "gnmt",
    coverage_penalty: CoveragePenalty = 0.0,
    finished_first: FinishedFirst = False,
    groups: Annotated[int, search("Diverse beam search: groups that divide the beam.")] = 1,
    diversity: Annotated[float, search("How much groups avoid each other's words.")] = 0.5,
    contrastive: Annotated[float | None, search("Contrastive search over --beam candidates.", metavar="ALPHA")] = None,
    agreement: Agreed = None,
    batch_size: BatchSize = 32,
    sample: Annotated[bool, drawing("Draw the outputs in place of a beam.", "--sample")] = False,
    temperature: Annotated[
        float | None, drawing("Of --sample; below 1 likely words come more often.", default="1")
    ] = None,
    top_k: Annotated[int | None, drawing("Of --sample: draw from so many words.", default="all")] = None,
    top_p: Annotated[
        float | None, drawing("Of --sample: draw from the words that hold this probability.", default="1")
    ] = None,
    seed: Annotated[int | None, drawing("Of --sample.", default="another each time")] = None,
    min_length: Annotated[int, constraint("Fewest tokens of an output, its end counted.")] = 0,
    max_length: Annotated[int, constraint("Most tokens of an output.")] = 200,
    max_length_factor: Annotated[
        float, constraint("Most tokens of an output for each token of its source, and 10 more.")
    ] = 2.0,
    no_repeat_ngram: Annotated[int, constraint("No so many tokens in a row twice; 0 for no such rule.")] = 0,
    repetition_penalty: Annotated[float, constraint("Above 1, makes tokens that are there less likely.")] = 1.0,
    prefix: Annotated[str, constraint("What each output begins with.")] = "",
    require: Annotated[
        list[str] | None, constraint("A phrase in each output; again for more.", metavar="PHRASE")
    ] = None,
    ban: Annotated[
        list[str] | None, constraint("A token that no output holds; again for more.", metavar="TOKEN")
    ] = None,
) -> None:
    """Translate standard input, one sentence per line, to standard output."""
    from keras_attention.translation.compiled import Agreement, Contrast, Method, Sampling, Wishes
    from keras_attention.translation.stream import read_dictionary, translate_stream

    if sum([sample, agreement is not None, contrastive is not None]) > 1:
        raise UserError("--sample, --contrastive and --agreement are ways to search. Expected one of them")
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    drawn = {name: value for name, value in asked.items() if value is not None}
    if drawn and not sample:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in drawn)
        raise UserError(f"{names}: nothing is drawn. Expected --sample beside it")
    method: Method | None = None if agreement is None else Agreement(agreement)
    if sample:
        method = Sampling(**drawn)  # type: ignore[arg-type]
    elif contrastive is not None:
        method = Contrast(beam, contrastive)
    translate_stream(
        [run, *(ensemble or [])],
        combination=combination,
        beam_size=beam,
        n_best=n_best,
        scores=scores,
        alignments=alignments,
        pharaoh=pharaoh,
        max_length=max_length,
        max_length_factor=max_length_factor,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        coverage_penalty=coverage_penalty,
        finished_first=finished_first,
        groups=groups,
        diversity=diversity,
        method=method,
        wishes=Wishes(
            min_length=min_length,
            prefixes=prefix,
            phrases=tuple(require or ()),
            banned=tuple(ban or ()),
            no_repeat_ngram=no_repeat_ngram,
            repetition_penalty=repetition_penalty,
        ),
        replace_unknown=read_dictionary(dictionary) if dictionary is not None else replace_unknown,
        batch_size=batch_size,
        lenient=lenient,
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
    beam: Annotated[int, option("Hypotheses kept; 1 is greedy.")] = 5,
) -> None:
    """Translate one text and draw its attention as a heat map (PNG), and as a page to point at (HTML)."""
    from keras_attention.translation.stream import draw_attention

    print(draw_attention(run, text, output, beam, page).text)
    for written in (output, page):
        if written is not None:
            print(f"wrote {written}", file=sys.stderr)
