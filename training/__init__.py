"""Training: data, recipes, losses, schedules, callbacks."""

from .evaluate import evaluate
from .fit import train

__all__ = ["evaluate", "train"]
