"""Options that several commands of `keras-attention` have."""

from __future__ import annotations

import pathlib
from typing import Annotated, TypeAlias

import typer

MoreRuns: TypeAlias = Annotated[
    list[pathlib.Path] | None,
    typer.Option("--with", metavar="RUN", help="Another run that answers with it; again for more."),
]
Agreed: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="WEIGHT",
        help="Of a run trained with --backward: search in both directions, take what both find likely; the weight of "
        "the backward one, e.g. 0.5.",
    ),
]
Combination: TypeAlias = Annotated[str, typer.Option(help="Mean of several runs' probabilities or logits.")]
