"""Options that several commands of `keras-attention` have."""

from __future__ import annotations

import pathlib
from typing import Annotated, TypeAlias

import typer

from keras_attention.cli.help import options_of

text = options_of("Text")
search = options_of("Search")
constraint = options_of("Constraints")
result = options_of("Output")

Run: TypeAlias = Annotated[pathlib.Path, typer.Argument(metavar="RUN", help="Run directory that `train` wrote.")]
Artefact: TypeAlias = Annotated[
    pathlib.Path, typer.Argument(metavar="ARTEFACT", help="Artefact directory that `export` wrote.")
]
Source: TypeAlias = Annotated[pathlib.Path | None, text("Source text, one sentence per line.")]
References: TypeAlias = Annotated[
    list[pathlib.Path] | None, text("Reference text; again for more references.", metavar="FILE")
]
Tsv: TypeAlias = Annotated[
    pathlib.Path | None, text("SOURCE<TAB>TARGET lines instead of two files; equal sources: several references.")
]
Lenient: TypeAlias = Annotated[bool, text("Cut sources that are too long, leave empty pairs out.", "--lenient")]
MoreRuns: TypeAlias = Annotated[
    list[pathlib.Path] | None, search("Another run that answers with it; again for more.", "--with", metavar="RUN")
]
Combination: TypeAlias = Annotated[str, search("Mean of several runs' probabilities or logits.")]
Beam: TypeAlias = Annotated[int, search("Hypotheses kept; 1 is greedy.")]
LengthPenalty: TypeAlias = Annotated[float, search("Its alpha; 0 for none.")]
PenaltyKind: TypeAlias = Annotated[str, search("gnmt or average.")]
CoveragePenalty: TypeAlias = Annotated[float, search("GNMT beta, against words left untranslated; 0 for none.")]
FinishedFirst: TypeAlias = Annotated[
    bool, search("Rank what ended before what the maximum length cut.", "--finished-first")
]
BatchSize: TypeAlias = Annotated[int, search("Sentences at a time.")]
Agreed: TypeAlias = Annotated[
    float | None,
    search(
        "Of a run trained with --backward: search in both directions, take what both find likely; the weight of the "
        "backward one, e.g. 0.5.",
        metavar="WEIGHT",
    ),
]
Tokenize: TypeAlias = Annotated[str | None, text("BLEU's tokenisation: none or 13a.", default="as in training")]
