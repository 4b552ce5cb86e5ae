"""Learning-rate halving on plateau and early stopping, as a pure function of the scores seen."""

from __future__ import annotations

import dataclasses
import math

SCHEDULES = ("plateau", "cosine")


def cosine(progress: float, initial: float, smallest: float) -> float:
    """Half a cosine from `initial` at progress 0 to `smallest` at 1 (Loshchilov and Hutter 2017, equation 5)."""
    smallest = min(smallest, initial)
    return smallest + 0.5 * (initial - smallest) * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The state of the schedule after some epochs: plain numbers, so that it is saved and resumed as JSON.

    `best`, `best_loss` and `best_epoch`: the best score, the loss of that epoch (the lower one wins between equal
    scores), and the epoch; `since_best` and `since_change`: epochs without a better score, in all and since the
    learning rate last changed; `halvings`: how often it was halved.
    """

    best: float | None = None
    best_loss: float = math.inf
    best_epoch: int | None = None
    since_best: int = 0
    since_change: int = 0
    halvings: int = 0

    def improved_by(self, score: float, loss: float, higher_is_better: bool) -> bool:
        """True if `score` is better than the best so far, or equal at a lower loss; NaN never is."""
        if math.isnan(score) or math.isnan(loss):
            return False
        if self.best is None or score == self.best:
            return loss < self.best_loss
        return score > self.best if higher_is_better else score < self.best


def after_epoch(
    state: Plateau, epoch: int, score: float, loss: float, higher_is_better: bool, patience: int
) -> Plateau:
    """The state after one more epoch: a better score resets the counters; `patience` epochs without one halve the rate.

    >>> state = after_epoch(Plateau(), 0, 7.0, 2.0, True, patience=1)
    >>> after_epoch(state, 1, 6.0, 2.0, True, patience=1).halvings
    1
    """
    if state.improved_by(score, loss, higher_is_better):
        return dataclasses.replace(state, best=score, best_loss=loss, best_epoch=epoch, since_best=0, since_change=0)
    state = dataclasses.replace(state, since_best=state.since_best + 1, since_change=state.since_change + 1)
    if state.since_change >= patience:
        return dataclasses.replace(state, since_change=0, halvings=state.halvings + 1)
    return state


def learning_rate(state: Plateau, initial: float, smallest: float) -> float:
    """`initial` halved once for each plateau, but never below `smallest`."""
    return max(initial * 0.5**state.halvings, min(smallest, initial))
