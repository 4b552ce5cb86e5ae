"""Ranges of numeric settings, checked in one place before any work."""

import math
import numbers
from typing import Any

from keras_attention.errors import UserError

LONGEST = 10_000
"""Greatest maximum length: a search holds the alignment of every step of every hypothesis."""
WIDEST = 1_000
"""Greatest beam."""
RANGES: dict[str, tuple[type, float, float]] = {
    "beam_size": (int, 1, WIDEST),
    "n_best": (int, 1, WIDEST),
    "candidates": (int, 1, WIDEST),
    "groups": (int, 1, WIDEST),
    "max_length": (int, 1, LONGEST),
    "padding_multiple": (int, 1, LONGEST),
    "source_length": (int, 1, LONGEST),
    "target_length": (int, 1, LONGEST),
    "min_length": (int, 0, LONGEST),
    "max_length_factor": (float, 0, 1000),
    "max_length_offset": (int, -LONGEST, LONGEST),
    "length_penalty": (float, -10, 10),  # beyond, the penalty of a long output is no float32
    "coverage_penalty": (float, 0, 1000),
    "diversity": (float, 0, 1000),
    "repetition_penalty": (float, 0.01, 1000),
    "temperature": (float, 0.01, 1000),
    "top_k": (int, 1, math.inf),
    "top_p": (float, 0, 1),
    "alpha": (float, 0, 1),
    "backward_weight": (float, 0, 1),
    "no_repeat_ngram": (int, 0, math.inf),
    "batch_size": (int, 1, math.inf),
    "seed": (int, 0, math.inf),
    "threads": (int, 1, 256),
}
"""Kind, least and greatest value of each number."""


def check_ranges(**given: Any) -> None:
    """Check numbers by name; `None` stands for a number that was not given.

    Raises:
        UserError: for a number outside of `RANGES`, NaN, and another type.
    """
    for name, value in given.items():
        kind, low, high = RANGES[name]
        if value is not None and not is_within(value, kind, low, high):
            raise UserError(f"{name} is out of range. Expected {described(kind, low, high)}. Received: {value}")


def is_within(value: Any, kind: type, low: float, high: float) -> bool:
    """Return whether `value` is a number of that kind between two bounds; False for NaN."""
    wanted = numbers.Integral if kind is int else numbers.Real
    return isinstance(value, wanted) and not isinstance(value, bool) and low <= float(value) <= high


def described(kind: type, low: float, high: float) -> str:
    """Return a range in words."""
    what = "a whole number, " if kind is int else ""
    return f"{what}{low:g} or more" if high == math.inf else f"{what}{low:g} to {high:g}"
