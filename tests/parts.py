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


def fast(names: Iterable[str], *chosen: str) -> list[Any]:
    """Parameters of a test, all but the chosen ones marked as slow."""
    unknown = set(chosen) - set(names)
    assert not unknown, unknown
    return [name if name in chosen else pytest.param(name, marks=pytest.mark.slow) for name in names]
