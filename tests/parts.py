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


def fast(values: Iterable[Any], *chosen: Any) -> list[Any]:
    """Parameters of a test, all but the chosen ones marked as slow."""
    unknown = set(chosen) - set(values)
    assert not unknown, unknown

    def slow(value: Any) -> Any:
        return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)

    return [value if value in chosen else slow(value) for value in values]
