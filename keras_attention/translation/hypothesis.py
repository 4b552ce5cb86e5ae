"""Decoded hypotheses of one source text, and scores of given outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_attention.models.pointer_generator import TextIds
from keras_attention.text.tokenizers import UNKNOWN_ID
from keras_attention.types import EOS_ID


@dataclasses.dataclass(frozen=True)
class Score:
    """A model's score of a given output.

    Attributes:
        score: log-probability over the length penalty.
        log_prob: summed log-probability of the tokens.
        tokens: pieces of the output, with `</s>` at the end.
        log_probs: float32, the log-probability of each.
        alignment: float32 `(len(tokens), source tokens)`.
    """

    score: float
    log_prob: float
    tokens: list[str]
    log_probs: npt.NDArray[np.float32]
    alignment: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One output of a search.

    Attributes:
        text: decoded output.
        tokens: its pieces, with `</s>` at the end if finished; a word that replaced `<unk>` is one piece.
        score: log-probability over the length penalty; hypotheses are ranked by it.
        log_prob: summed log-probability of the tokens.
        alignment: float32 `(len(tokens), len(source_tokens))`, the attention that predicted each token.
        source_tokens: pieces of the source, with `</s>` at the end.
        finished: False if cut at the maximum length.
    """

    text: str
    tokens: list[str]
    score: float
    log_prob: float
    alignment: npt.NDArray[np.float32]
    source_tokens: list[str]
    finished: bool


def turn(tokens: Any) -> Any:
    """Reverse right-to-left tokens, ids or rows of an array; the end stays at the end."""
    if len(tokens) < 2:
        return tokens
    if isinstance(tokens, list):
        return [*tokens[-2::-1], tokens[-1]]
    return np.concatenate([tokens[-2::-1], tokens[-1:]])


def read_hypotheses(
    found: Mapping[str, Any],
    row: int,
    n_best: int,
    tokenizers: tuple[TextIds, TextIds],
    text: str,
    source: list[int],
    replace_unknown: bool | Mapping[str, str] = False,
    backward: bool = False,
) -> list[Hypothesis]:
    """Return the first `n_best` hypotheses of one row of a `SearchResult`, or fewer if it has fewer.

    Args:
        found: arrays of a search.
        row: index of the row.
        n_best: at most K.
        tokenizers: tokenizers of the source and the target.
        text: source text.
        source: its ids, with EOS.
        replace_unknown: see `Translator.translate`.
        backward: whether the ids were generated right-to-left; they are reversed.
    """
    source_tokenizer, target_tokenizer = tokenizers
    source_tokens = source_tokenizer.tokens(source)
    hypotheses = []
    for k in range(n_best):
        length = int(found["lengths"][row, k])
        if length == 0:
            break
        ids = [int(index) for index in found["ids"][row, k, :length]]
        alignment = np.asarray(found["alignments"][row, k, :length, : len(source)], np.float32)
        if backward:
            finished = bool(found["finished"][row, k])
            ids, alignment = (turn(ids), turn(alignment)) if finished else (ids[::-1], alignment[::-1])
        tokens, output = target_tokenizer.tokens(ids), target_tokenizer.decode(ids)
        if replace_unknown is not False and UNKNOWN_ID in ids:
            words = replace_unknown if isinstance(replace_unknown, Mapping) else {}
            pieces = source_tokenizer.pieces(text)[: len(source) - 1]
            for t in (t for t, index in enumerate(ids) if index == UNKNOWN_ID):
                written = pieces[int(np.argmax(alignment[t, : len(pieces)]))]
                tokens[t] = words.get(written, written)
            output = target_tokenizer.join(tokens[:-1] if ids[-1] == EOS_ID else tokens)
        hypotheses.append(
            Hypothesis(
                text=output,
                tokens=tokens,
                score=float(found["scores"][row, k]),
                log_prob=float(found["log_probs"][row, k]),
                alignment=alignment,
                source_tokens=source_tokens,
                finished=bool(found["finished"][row, k]),
            )
        )
    return hypotheses
