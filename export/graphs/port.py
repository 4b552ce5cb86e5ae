"""Ports of a graph: name, dtype and axes of an input or output.

A dynamic axis has a name (`batch`, `source_length`, ...), the same in every graph and format, so that equal sizes
are visible; a number is a static size.
"""

import dataclasses
from typing import Any

Axis = str | int


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output of a graph."""

    name: str
    dtype: str
    axes: tuple[Axis, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "axes": list(self.axes)}
