"""An ensemble of models as one `step`."""

import math
from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_attention.search.contract import Step
from keras_attention.types import Tensor

COMBINATIONS = ("probabilities", "logits")


def ensemble_step(steps: Sequence[Step], combination: str = "probabilities") -> Step:
    """Return a step that averages the predictions of several models.

        "probabilities":  log P(w) = log (1/M sum_m P_m(w))
        "logits":         log P(w) = log softmax(1/M sum_m log P_m(w)), the geometric mean

    Its state and memory are lists, with an entry for each model; the alignment is the mean of theirs. The models must
    share vocabularies and source.

    Args:
        steps: M of them, see `Step`.
        combination: `"probabilities"` or `"logits"`.

    Raises:
        ValueError: for no steps, or an unknown combination.
    """
    if not steps:
        raise ValueError("Expected: one step or more. Received: none")
    _check(combination)

    def step(token: Tensor, state: Any, memory: Any) -> tuple[Tensor, Any, Tensor]:
        answers = [one(token, own, kept) for one, own, kept in zip(steps, state, memory, strict=True)]
        log_probs, alignment = combine([(table, alignment) for table, _, alignment in answers], combination)
        return log_probs, [new for _, new, _ in answers], alignment

    return step


def combine(answers: Sequence[tuple[Tensor, Tensor]], combination: str) -> tuple[Tensor, Tensor]:
    """Combine the models' predictions: log-probabilities `(..., V)` and alignments, see `ensemble_step`."""
    _check(combination)
    tables = ops.stack([ops.cast(log_probs, "float32") for log_probs, _ in answers], axis=0)
    if combination == "probabilities":
        log_probs = ops.logsumexp(tables, axis=0) - math.log(len(answers))
    else:
        log_probs = ops.log_softmax(ops.mean(tables, axis=0), axis=-1)
    return log_probs, ops.mean(ops.stack([ops.cast(one, "float32") for _, one in answers], axis=0), axis=0)


def _check(combination: str) -> None:
    if combination not in COMBINATIONS:
        raise ValueError(f"Expected: combination in {COMBINATIONS}. Received: combination={combination!r}")
