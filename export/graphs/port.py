"""What goes into a graph and comes out of it: name, dtype, axes.

An axis of any size has a name (`batch`, `source_length`, ...), the same in every graph and format, so that what is
equal is seen to be equal; a number is a fixed size.
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
