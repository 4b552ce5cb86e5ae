"""Options that several commands of `keras-attention` have."""

from __future__ import annotations

import functools
import inspect
import pathlib
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeAlias

import typer

from keras_attention.cli.help import option, options_of
from keras_attention.options import declared_options
from keras_attention.search_policy import SearchPolicy

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
SkipErrors: TypeAlias = Annotated[bool, text("Cut sources that are too long, leave empty pairs out.", "--skip-errors")]
MoreRuns: TypeAlias = Annotated[
    list[pathlib.Path] | None, search("Another run that answers with it; again for more.", "--with", metavar="RUN")
]
Combination: TypeAlias = Annotated[str, search("Mean of several runs' probabilities or logits.")]
BatchSize: TypeAlias = Annotated[int, search("Sentences at a time.")]
Tokenize: TypeAlias = Annotated[str | None, text("BLEU's tokenisation: none or 13a.", default="as in training")]


def with_policy(command: Callable[..., None], leave_out: Collection[str] = ("phrases",)) -> Callable[..., None]:
    """A command whose parameter `policy` is given as one option for each setting of `SearchPolicy`.

    Args:
        command: has a keyword `policy`; options follow its own.
        leave_out: settings that the command has no option for.
    """
    settings = {}
    for field, declared, kind in declared_options(SearchPolicy):
        if field.name not in leave_out:
            flag = declared.flag or f"--{field.name.replace('_', '-')}"
            shown = option(declared.help, flag, panel=declared.panel, default=declared.shown, metavar=declared.metavar)
            settings[field.name] = inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, shown]
            )

    @functools.wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in settings}
        command(**given, policy=SearchPolicy(**chosen))

    signature = inspect.signature(command, eval_str=True)
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        if name != "policy"
    ]
    run.__signature__ = inspect.Signature([*own, *settings.values()])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run
