"""Training: data, recipes, losses, schedules, callbacks."""

from .evaluate import evaluate
from .fit import train
from .synthesis import synthesize

__all__ = ["evaluate", "synthesize", "train"]
