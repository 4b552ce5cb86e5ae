"""Training: data, recipes, losses, schedules, callbacks."""

from .averaging import average
from .evaluate import evaluate
from .fit import train
from .synthesis import synthesize

__all__ = ["average", "evaluate", "synthesize", "train"]
