"""Training: data, recipes, losses, schedules, callbacks."""

from .average import average
from .evaluate import evaluate
from .shortlist import shortlist
from .synthesize import synthesize
from .train import train

__all__ = ["average", "evaluate", "shortlist", "synthesize", "train"]
