"""Names, dtypes and axes of a signature in a file, compared with those of the manifest."""

from collections.abc import Mapping
from typing import Any

Ports = Mapping[str, Mapping[str, Any]]
"""A signature as the manifest describes it: `{"inputs": {name: {"dtype", "axes"}}, "outputs": {...}}`."""


def sizes(axes: list[Any]) -> list[int | None]:
    """Return axes for a format without axis names: None for any size."""
    return [axis if isinstance(axis, int) else None for axis in axes]


def differences(where: str, expected: Ports, received: Ports, named: bool) -> list[str]:
    """Return differences between a signature of the manifest and one found in a file.

    Args:
        where: words that name the file and signature.
        named: whether the format has axis names; if not, sizes are compared, and an output of dynamic size is accepted
            for a size that the format could not infer.
    """
    found = []
    for direction in ("inputs", "outputs"):
        if set(expected[direction]) != set(received[direction]):
            found.append(
                f"{where}: {direction}. Expected: {sorted(expected[direction])}. "
                f"Received: {sorted(received[direction])}"
            )
        for name in set(expected[direction]) & set(received[direction]):
            wanted, got = expected[direction][name], received[direction][name]
            if wanted["dtype"] != got["dtype"]:
                found.append(f"{where}: dtype of {name}. Expected: {wanted['dtype']}. Received: {got['dtype']}")
            axes, got_axes = wanted["axes"], got["axes"]
            if not named:
                axes = sizes(axes)
            unknown = not named and direction == "outputs"
            same = got_axes is None or (
                len(axes) == len(got_axes)
                and all(a == b or (unknown and b is None) for a, b in zip(axes, got_axes, strict=True))
            )
            if not same:
                found.append(f"{where}: axes of {name}. Expected: {axes}. Received: {got_axes}")
    return found
