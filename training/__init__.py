"""Training: data, recipes, losses, schedules, callbacks."""

from .averaging import average
from .evaluate import evaluate
from .fit import train
from .shortlist import shortlist
from .synthesis import synthesize

__all__ = ["average", "evaluate", "shortlist", "synthesize", "train"]
