"""Metrics of outputs: BLEU and chrF (sacrebleu), exact match, word and phoneme error rates with several references."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from keras_attention.errors import UserError

HIGHER_IS_BETTER = {
    "bleu": True,
    "chrf": True,
    "exact_match": True,
    "wer": False,
    "per": False,
    "loss": False,
    "perplexity": False,
}
TASK_METRIC = {"translation": "bleu", "g2p": "wer", "exact": "exact_match"}
"""The metric that training monitors, by task."""


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions that turn `one` into `other`.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(other) + 1))
    for i, item in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, other_item in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (item != other_item))
    return row[-1]


def exact_match(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Percentage of outputs that equal one of their references."""
    return 100.0 * sum(output in accepted for output, accepted in zip(outputs, references, strict=True)) / len(outputs)


def error_rates(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Word and phoneme error rates of pronunciations (symbols separated by blanks), several references, in percent.

    wer: share of outputs that equal none of their references. per: summed edit distances to the nearest reference,
    divided by the summed lengths of those references (among equally near ones: the longest).
    """
    wrong = distance = length = 0
    for output, accepted in zip(outputs, references, strict=True):
        symbols = output.split()
        nearest, size = min(
            ((edit_distance(symbols, other.split()), -len(other.split())) for other in accepted),
        )
        wrong += nearest > 0
        distance += nearest
        length -= size
    return {"wer": 100.0 * wrong / len(outputs), "per": 100.0 * distance / max(length, 1)}


def reference_columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """Return references in columns for sacrebleu: one for the first of each sentence, one for the second, and so on."""
    most = max(len(accepted) for accepted in references)
    return [[accepted[k] if k < len(accepted) else None for accepted in references] for k in range(most)]


def bleu_chrf(outputs: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "none") -> dict[str, Any]:
    """Corpus BLEU and chrF2 by sacrebleu, with its signature.

    `tokenize`: "none" for text already tokenised, "13a" for plain text.
    """
    try:
        import sacrebleu
    except ImportError as error:
        raise UserError(
            "BLEU needs sacrebleu, which is not installed. Install it: pip install 'keras-luong[train]'"
        ) from error
    columns = reference_columns(references)
    bleu = sacrebleu.BLEU(tokenize=tokenize, force=True)
    score = bleu.corpus_score(list(outputs), columns)
    # chrF does not support absent references; it compares with the first one.
    chrf = sacrebleu.corpus_chrf(list(outputs), columns[:1])
    return {"bleu": float(score.score), "chrf": float(chrf.score), "bleu_signature": str(bleu.get_signature())}


def score_outputs(
    task: str, outputs: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "none"
) -> dict[str, Any]:
    """Compute the metrics of a task: "translation": BLEU, chrF, exact match; "g2p": WER, PER; "exact": exact match.

    Raises UserError for an unknown task and for empty outputs.
    """
    if task not in TASK_METRIC:
        raise UserError(f"Unknown task. Expected one of {', '.join(TASK_METRIC)}. Received: {task!r}")
    if not outputs:
        raise UserError("There is nothing to score. Expected at least one sentence")
    if task == "g2p":
        return dict(error_rates(outputs, references))
    if task == "exact":
        return {"exact_match": exact_match(outputs, references)}
    return {**bleu_chrf(outputs, references, tokenize), "exact_match": exact_match(outputs, references)}
