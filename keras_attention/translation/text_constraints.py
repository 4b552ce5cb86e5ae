"""Constraints on outputs, as text: prefixes, phrases and banned tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_attention.errors import UserError
from keras_attention.models.pointer_generator import TextIds
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import UNKNOWN_ID, Tokenizer


@dataclasses.dataclass(frozen=True)
class TextConstraints:
    """Constraints on outputs, as text.

    Args:
        prefixes: prefix of each output, one string for each text, or one for all; it ends at a word boundary.
        phrases: required phrases: strings for all texts, or a list of strings for each. Beam search only.
        banned: tokens of the vocabulary that are never generated; a word of several tokens cannot be banned.
    """

    prefixes: str | Sequence[str] = ""
    phrases: Sequence[str] | Sequence[Sequence[str]] = ()
    banned: Sequence[str] = ()

    def banned_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Return the ids of the banned tokens, in order.

        Raises UserError for a banned word that is unknown, or more than one token.
        """
        ids = [tokenizer.encode(word) for word in self.banned]
        if unknown := [word for word, row in zip(self.banned, ids, strict=True) if UNKNOWN_ID in row]:
            raise UserError(f"The banned word {unknown[0]!r} is not in the target vocabulary. Expected words that are")
        for word, row in zip(self.banned, ids, strict=True):
            if len(row) != 1:
                pieces = " ".join(tokenizer.tokens(row))
                raise UserError(f"{word!r} is several tokens, {pieces}. Expected words of one token to ban")
        return tuple(sorted(row[0] for row in ids))

    def prefix_ids(self, writers: Sequence[TextIds]) -> list[list[int]]:
        """Return the ids of each text's prefix. Raises UserError for unknown words, and a wrong number of prefixes."""
        count = len(writers)
        texts = [self.prefixes] * count if isinstance(self.prefixes, str) else list(self.prefixes)
        if len(texts) != count:
            raise UserError(f"Expected a prefix for each of {count} texts. Received: {len(texts)}")
        return [encode(writer, text, "prefix") for writer, text in zip(writers, texts, strict=True)]

    def phrase_ids(self, writers: Sequence[TextIds]) -> list[list[list[int]]]:
        """Return the ids of each text's phrases. Raises UserError for unknown words, empty phrases, a wrong number."""
        count = len(writers)
        for_all = all(isinstance(phrase, str) for phrase in self.phrases)
        rows: list[Any] = [self.phrases] * count if for_all else list(self.phrases)
        if len(rows) != count:
            raise UserError(f"Expected phrases for each of {count} texts. Received: {len(rows)}")
        found = [
            [encode(writer, phrase, "phrase") for phrase in row] for writer, row in zip(writers, rows, strict=True)
        ]
        if any(not phrase for row in found for phrase in row):
            raise UserError("A phrase that must be in the output is empty. Expected words")
        return found


def encode(tokenizer: TextIds, text: str, what: str) -> list[int]:
    ids = tokenizer.encode(text) if text else []
    if UNKNOWN_ID in ids:
        unknown = tokenizer.unknown(text)
        raise UserError(
            f"The {what} {text!r} holds what the model cannot write: {unknown[0] if unknown else text!r}. "
            "Expected words of the target vocabulary, or of the text itself where a model copies them"
        )
    return ids


def check_room(
    texts: Sequence[str],
    rows: Sequence[Sequence[int]],
    prefixes: Sequence[Sequence[int]],
    phrases: Sequence[Sequence[Sequence[int]]],
    policy: SearchPolicy,
) -> None:
    """Raise UserError where a constraint does not fit below a text's maximum length."""
    for text, row, prefix, wanted in zip(texts, rows, prefixes, phrases, strict=True):
        limit = policy.limit(len(row))
        needed = max(policy.min_length, len(prefix), sum(len(phrase) for phrase in wanted))
        if needed > limit:
            raise UserError(
                f"{text!r} may have outputs of {limit} tokens, and what is asked for needs {needed}. Expected a "
                "smaller minimum, fewer words that must be there, or a greater maximum length"
            )
