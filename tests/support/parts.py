"""The fast and the slow part of the tests: parameters of either, and values that are made when a test asks for them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


class Made(dict[str, Any]):
    """Values by name, each made when it is first asked for: a run of a few tests pays for what they use."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        super().__init__()
        self.make = make

    def __missing__(self, name: str) -> Any:
        self[name] = self.make(name)
        return self[name]


def slow(*values: Any) -> Any:
    """One set of parameters of a test, marked as slow."""
    return pytest.param(*values, marks=pytest.mark.slow)


def fast(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """Parameters of a test, all but the chosen ones marked as slow."""
    values = list(values)
    unknown = set(chosen) - set(values)
    assert not unknown, unknown
    return [one if one in chosen else slow(*(one if isinstance(one, tuple) else (one,))) for one in values]
