"""Alignment error rate, entropy, coverage and Pharaoh format: closed forms."""

import keras
import numpy as np
import pytest

from keras_attention import UserError
from keras_attention.metrics.alignment import (
    AlignmentEntropy,
    AlignmentErrorRate,
    SourceCoverage,
    best_links,
    format_pharaoh,
    parse_pharaoh,
)
from keras_attention.text.tokenizers import CharacterTokenizer, SubwordTokenizer

ALIGNMENTS = np.array(
    [
        [[0.7, 0.2, 0.1, 0.0], [0.1, 0.8, 0.1, 0.0], [0.4, 0.3, 0.3, 0.0]],
        [[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]],
    ],
    "float32",
)
TARGET_MASK = np.array([[True, True, True], [True, True, False]])


def test_the_error_rate_is_that_of_och_and_ney():
    sure, possible = np.zeros((2, 3, 4), bool), np.zeros((2, 3, 4), bool)
    sure[0, 0, 0] = sure[0, 1, 2] = sure[1, 1, 1] = True
    possible[0, 1, 1] = possible[1, 0, 3] = True
    sure[1, 2, 3] = True  # of a masked word
    # A: (0, 0), (1, 1), (2, 0) of the first row, (0, 0), (1, 1) of the second. A and S: 2. A and P: 3. |A| 5, |S| 3.
    metric = AlignmentErrorRate()
    metric.update_state(ALIGNMENTS, sure, possible, TARGET_MASK)
    assert float(metric.result()) == pytest.approx(1 - (2 + 3) / (5 + 3))
    parts = AlignmentErrorRate()
    for row in range(2):
        here = slice(row, row + 1)
        parts.update_state(ALIGNMENTS[here], sure[here], possible[here], TARGET_MASK[here])
    assert float(parts.result()) == pytest.approx(float(metric.result()))
    metric.reset_state()
    metric.update_state(ALIGNMENTS[1:], ALIGNMENTS[1:] > 0.4, target_mask=TARGET_MASK[1:])
    assert float(metric.result()) == pytest.approx(1 - 4 / 5)  # all of A is sure, and one sure link is not in A


def test_the_entropy_is_in_nats():
    metric = AlignmentEntropy()
    metric.update_state(ALIGNMENTS[1:], TARGET_MASK[1:])
    assert float(metric.result()) == pytest.approx(np.log(2) / 2, abs=1e-6)  # float32
    metric.reset_state()
    metric.update_state(np.full((2, 3, 5), 0.2, "float32"))
    assert float(metric.result()) == pytest.approx(np.log(5), abs=1e-6)  # float32 sums


def test_coverage_counts_a_word_once():
    metric = SourceCoverage()
    metric.update_state(ALIGNMENTS[1:], np.array([[True, True, True, False]]), TARGET_MASK[1:])
    assert float(metric.result()) == pytest.approx((0.5 + 1.0 + 0.0) / 3)  # 1.5 counts 1


@pytest.mark.parametrize("kind", [AlignmentErrorRate, AlignmentEntropy, SourceCoverage])
def test_metrics_survive_their_config(kind):
    metric = kind(name="other")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    assert isinstance(again, kind)
    assert again.name == "other"


def test_links_are_written_and_read():
    line = "0-0 1-2 10-3"
    assert parse_pharaoh(line) == [(0, 0), (1, 2), (10, 3)]
    assert format_pharaoh(reversed(parse_pharaoh(line))) == line
    assert parse_pharaoh("") == []
    for wrong in ("0", "0-", "a-1", "0--1", "-1-0"):
        with pytest.raises(UserError, match="Expected links such as 0-0 1-2"):
            parse_pharaoh(wrong)


def test_the_parts_of_a_word_share_its_links():
    alignment = np.array([[0.3, 0.4, 0.2, 0.1], [0.1, 0.1, 0.6, 0.2], [0.0, 0.3, 0.3, 0.4], [0, 0, 0, 1.0]])
    assert best_links(alignment) == [(1, 0), (2, 1), (3, 2), (3, 3)]
    source, target = np.array([0, 1, 1, -1]), np.array([0, 1, 1, -1])
    assert best_links(alignment, source, target) == [(1, 0), (1, 1)]
    assert best_links(alignment, np.full(4, -1), target) == []
    with pytest.raises(ValueError, match="Expected: source_words"):
        best_links(alignment, np.arange(3))


def test_pieces_know_their_word():
    lines = ["ein mann liest", "eine frau liest ein buch"] * 9
    subwords = SubwordTokenizer.train(lines, 24)
    pieces = [*subwords.pieces("ein mann liest"), "</s>"]
    numbers = subwords.word_numbers(pieces)
    assert numbers[-1] == -1
    words = ["".join(p for p, n in zip(pieces, numbers, strict=True) if n == word) for word in range(3)]
    assert words == ["\u2581ein", "\u2581mann", "\u2581liest"]
    assert CharacterTokenizer.train(lines).word_numbers(["e", " ", "<unk>", "i", "</s>"]) == [0, 1, 2, 3, -1]
