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
    bool,
    typer.Option(
        "--agreement", help="Of a model trained with --backward: search in both directions, take what both find likely."
    ),
]
Combination: TypeAlias = Annotated[str, typer.Option(help="Mean of several runs' probabilities or logits.")]
