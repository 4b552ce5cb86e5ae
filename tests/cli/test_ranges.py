"""Numbers that no search and no training can be meant to have are refused by name, before any work."""

import math

import pytest

from keras_attention.errors import UserError
from keras_attention.ranges import RANGES, check_ranges
from keras_attention.training.config import TrainConfig


@pytest.mark.parametrize("name", RANGES)
def test_what_is_outside_of_a_range(name: str) -> None:
    kind, low, high = RANGES[name]
    check_ranges(**{name: None})
    check_ranges(**{name: kind(low)})
    if high != math.inf:
        check_ranges(**{name: kind(high)})
    beyond = [math.nan, True, "3", low - 1, *([] if high == math.inf else [high + 1, math.inf])]
    for value in [*beyond, *([1.5] if kind is int else [])]:
        with pytest.raises(UserError, match=f"{name} is out of range. Expected .* Received: {value}"):
            check_ranges(**{name: value})


@pytest.mark.parametrize("name", ["max_length", "padding_multiple"])
def test_lengths_of_a_training_that_no_memory_holds(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} is out of range"):
        TrainConfig.make({name: 10**9})
