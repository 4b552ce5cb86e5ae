"""Checks of ranks, depths and batch sizes, at `build` and at `call`."""

from collections.abc import Mapping
from typing import Any


def check_shapes(owner: str, tensors: Mapping[str, tuple[Any, str]], **sizes: Any) -> None:
    """Raises ValueError unless each tensor has the axes that it should, and those of one name one size.

    A size that is not known, None or a symbol, fits. Broadcasting would give a wrong answer in silence.

    Args:
        owner: the layer's name, for the message.
        tensors: name to shape and the names of its axes, such as `"B S Dv"`; a shape of None is left out.
        **sizes: known sizes of axes, such as the depths that a layer was built for.
    """
    known = {axis: size for axis, size in sizes.items() if isinstance(size, int)}
    given = {name: (shape, axes) for name, (shape, axes) in tensors.items() if _has_rank(shape)}
    shapes = {name: (tuple(shape), axes.split()) for name, (shape, axes) in given.items()}
    for name, (shape, axes) in shapes.items():
        expected = tuple(known.get(axis, axis) for axis in axes)
        fits = len(shape) == len(axes)
        for axis, size in zip(axes, shape, strict=False):
            fits = fits and (not isinstance(size, int) or known.setdefault(axis, size) == size)
        if not fits:
            received = ", ".join(f"{other}.shape={each}" for other, (each, _) in shapes.items())
            shown = ", ".join(map(str, expected))
            raise ValueError(
                f"{owner} cannot take a `{name}` of this shape. Expected: {name} of shape ({shown}), "
                f"{_explained(axes)}. Received: {received}"
            )


MEANINGS = {
    "B": "B the batch",
    "T": "T the steps",
    "S": "S the source positions",
    "E": "E the depth of the inputs",
    "Dq": "Dq the depth of the query",
    "Dv": "Dv the depth of the memory",
}


def _has_rank(shape: Any) -> bool:
    """Whether there is a shape, with a rank that is known."""
    return shape is not None and getattr(shape, "rank", 0) is not None


def _explained(axes: list[str]) -> str:
    return ", ".join(MEANINGS[axis] for axis in axes if axis in MEANINGS)
