"""Training: data, recipes, losses, schedules, callbacks."""

from .fit import train

__all__ = ["train"]
