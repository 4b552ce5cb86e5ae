"""Two directions of writing in one model, and outputs that both of them find likely.

A decoder that writes from the first word to the last knows, at each word, those to its left; one that writes from the
last to the first knows those to its right. Their mistakes differ, and an output that both find likely is right more
often: agreement of target-bidirectional models (Liu, Utiyama, Finch and Sumita 2016, NAACL, "Agreement on
Target-bidirectional Neural Machine Translation"; Liu, Finch, Utiyama and Sumita 2016, AAAI, for spelling to phonemes).
Here one model has both directions: what it writes begins with BOS forwards and with EOS backwards.

    y* = argmax_y ((1 - w) log p(y_1 .. y_T, EOS | x) + w log p(y_T .. y_1, EOS | x)) / lp(T + 1)

over the outputs of one beam search in each direction, with w the weight and lp the length penalty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from keras_attention.copying import of_text
from keras_attention.errors import UserError
from keras_attention.hypotheses import Hypothesis, Score
from keras_attention.search.common import length_penalty_factor
from keras_attention.types import EOS_ID

if TYPE_CHECKING:
    from keras_attention.translator import Translator


CHUNK = 4
"""Batches of texts that go through both searches and the scores at a time: as often is a progress bar told."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Outputs are searched for in both directions and ranked by what both say of them.

    Args:
        weight: w of the formula above, the part of the backward direction.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"The weight of agreement is out of range. Expected 0 to 1. Received: {self.weight}")


def search_both_ways(
    translator: Translator,
    texts: Sequence[str],
    weight: float,
    beam_size: int,
    n_best: int,
    on_batch: Any,
    options: dict[str, Any],
) -> list[list[Hypothesis]]:
    """The `n_best` outputs of each text by agreement, best first.

    Every finished output of either beam is scored in both directions: by the beam that found it in its best
    segmentation, or else in that segmentation. Two segmentations of one output are one candidate. The
    alignment is that of the forward direction. A text for which neither beam finished anything has its forward
    hypotheses.

    Args:
        translator: of a model that writes in both directions.
        texts, beam_size, n_best, on_batch: see `Translator.translate`.
        weight: of the backward direction.
        options: the other arguments of `Translator.translate`.
    """
    size = CHUNK * options["batch_size"]
    results: list[list[Hypothesis]] = []
    for start in range(0, len(texts), size):
        results += _agree(translator, texts[start : start + size], weight, beam_size, n_best, options)
        if on_batch is not None:
            on_batch(len(texts[start : start + size]))
    return results


def _agree(
    translator: Translator, texts: Sequence[str], weight: float, beam_size: int, n_best: int, options: dict[str, Any]
) -> list[list[Hypothesis]]:
    """`search_both_ways` for texts that are in memory together with all their candidates."""
    forward, backward = (
        translator.translate(texts, beam_size, beam_size, backward=way, **options) for way in (False, True)
    )
    candidates = [
        list(dict.fromkeys(one.text for one in [*ours, *theirs] if one.finished))
        for ours, theirs in zip(forward, backward, strict=True)
    ]
    flat = [(row, text) for row, found in enumerate(candidates) for text in found]
    tokenizers = translator.source_tokenizer, translator.target_tokenizer
    writers = [of_text(tokenizers, text, translator.copy_words)[1] for text in texts]
    ways: list[list[Hypothesis | Score]] = []
    for way, beams in ((False, forward), (True, backward)):
        # What this direction found itself, in the best segmentation, has its log-probability.
        known: dict[tuple[int, str], Hypothesis | Score] = {
            (row, one.text): one
            for row, hypotheses in enumerate(beams)
            for one in hypotheses
            if one.finished and one.tokens == writers[row].tokens([*writers[row].encode(one.text), EOS_ID])
        }
        missing = [pair for pair in flat if pair not in known]
        sources, outputs = [texts[row] for row, _ in missing], [text for _, text in missing]
        scores = translator.score(sources, outputs, backward=way, batch_size=options["batch_size"])
        known.update(zip(missing, scores, strict=True))
        ways.append([known[pair] for pair in flat])
    lengths = np.array([len(one.tokens) for one in ways[0]], np.int32)
    penalties = length_penalty_factor(lengths, options["length_penalty"], options["length_penalty_kind"])
    results: list[list[Hypothesis]] = [[] for _ in texts]
    for (row, text), one, other, penalty in zip(flat, *ways, ops.convert_to_numpy(penalties), strict=True):
        log_prob = (1 - weight) * one.log_prob + weight * other.log_prob
        results[row].append(
            Hypothesis(
                text=text,
                tokens=one.tokens,
                score=log_prob / float(penalty),
                log_prob=log_prob,
                alignment=one.alignment,
                source_tokens=forward[row][0].source_tokens,
                finished=True,
            )
        )
    for row, found in enumerate(results):
        order = np.argsort([-one.score for one in found], kind="stable")[:n_best]
        results[row] = [found[i] for i in order] or forward[row][:n_best]
    return results
