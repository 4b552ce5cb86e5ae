"""Training text that nothing can be learnt from: told before the first step."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import SPECIAL_TOKENS, Tokenizer

from ..recipes import Splits

FEW_PAIRS = 50
"""Training pairs below which there is a warning."""


def require_two_files(source: str | pathlib.Path | None, target: str | pathlib.Path | None, prefix: str = "") -> None:
    """Raises UserError where source and target are one file."""
    if source is None or target is None:
        return
    one, other = pathlib.Path(source), pathlib.Path(target)
    if one.exists() and other.exists() and one.samefile(other):
        raise UserError(
            f"--{prefix}source and --{prefix}target are one file: {source}. Expected two parallel files; to learn to "
            "copy, make a copy of it"
        )


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def warn_of_useless(splits: Splits, say: Callable[[str], None] = warn) -> None:
    """Warn of few pairs, of sides that never change, and of more validation text than training text."""
    if splits.shards is not None:
        return
    sources, targets, _ = splits.train.flat()
    count, held_out = len(sources), len(splits.validation)
    if count < FEW_PAIRS:
        say(f"{_pairs(count)} to train on: too few to learn from. Expected hundreds at least")
    for side, lines in (("source", sources), ("target", targets)):
        if count > 1 and len(set(lines)) == 1:
            say(f"every {side} line of the training text is the same: {_short(lines[0])}. There is nothing to learn")
    if held_out > count:
        say(f"more validation text ({_pairs(held_out)}) than training text ({_pairs(count)}). Are the files exchanged?")
    if splits.train.sources == splits.validation.sources:
        say("the validation text is the training text: its scores tell nothing about other text")


def warn_of_vocabularies(tokenizers: dict[str, Tokenizer], say: Callable[[str], None] = warn) -> None:
    """Warn of a vocabulary of a single token."""
    for name, tokenizer in tokenizers.items():
        if tokenizer.vocabulary_size <= len(SPECIAL_TOKENS) + 1:
            say(
                f"the {name} vocabulary has {tokenizer.vocabulary_size - len(SPECIAL_TOKENS)} token: nothing can be "
                "told apart by it. Expected other text, or a larger --vocabulary"
            )


def _pairs(count: int) -> str:
    return f"{count:,} pair{'s' * (count != 1)}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
