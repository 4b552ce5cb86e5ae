"""Checks of ranks, depths and batch sizes, at `build` and at `call`."""

from collections.abc import Mapping
from typing import Any


def check_shapes(owner: str, tensors: Mapping[str, tuple[Any, str]], **sizes: Any) -> None:
    """Raise ValueError unless each tensor has the expected axes, and axes of one name have one size.

    An unknown size, None or a symbol, fits. Without the check, broadcasting would silently give a wrong result.

    Args:
        owner: the layer's name, for the message.
        tensors: name to shape and axis names, such as `"B S Dv"`; a shape of None is skipped.
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


def attention_shapes(owner: str, query_shape: Any, value_shape: Any = None) -> tuple[Any, Any]:
    """Return the shapes of query and value, from the forms that `build` of Keras' attention layers accepts.

    Args:
        owner: the layer's name, for the message.
        query_shape: the shape of the query, and of the value where `value_shape` is `None`; or a list of the shapes of
        query, value and, optionally, key.
        value_shape: the shape of the value.

    Raises:
        ValueError: for arguments that are no shapes, and for shapes that do not fit.
    """
    if value_shape is None and _is_shape(query_shape) and not _is_list_of_shapes(query_shape):
        value_shape = query_shape
    expected = "query_shape and value_shape, a list of these and maybe key_shape, or one shape of both"
    shapes = _separate(owner, ("query", "value", "key"), expected, query_shape, value_shape)
    axes = {"query": "B T Dq", "value": "B S Dv", "key": "B S Dv"}
    check_shapes(owner, {name: (shape, axes[name]) for name, shape in shapes.items()})
    return shapes["query"], shapes["value"]


def memory_shapes(owner: str, inputs_shape: Any, memory_shape: Any = None) -> tuple[Any, Any]:
    """Return the shapes of inputs and memory, given separately or as a list of two.

    Raises:
        ValueError: for arguments that are no shapes, and for a single shape.
    """
    expected = "inputs_shape and memory_shape, or a list of these"
    shapes = _separate(owner, ("inputs", "memory"), expected, inputs_shape, memory_shape)
    return shapes["inputs"], shapes["memory"]


def _separate(owner: str, names: tuple[str, ...], expected: str, first: Any, second: Any) -> dict[str, Any]:
    given = list(first) if second is None and _is_list_of_shapes(first) else [first, second]
    if not (2 <= len(given) <= len(names) and all(_is_shape(shape) for shape in given)):
        received = first if second is None else (first, second)
        raise ValueError(
            f"{owner} is built from the shapes of its tensors. Expected: {expected}. Received: {received!r}"
        )
    return dict(zip(names, given, strict=False))


def _is_list_of_shapes(given: Any) -> bool:
    return isinstance(given, list | tuple) and any(_is_shape(part) for part in given)


def _is_shape(given: Any) -> bool:
    """Return whether it is a tuple or a list, or a shape of TensorFlow."""
    return isinstance(given, list | tuple) or hasattr(given, "rank")


MEANINGS = {
    "B": "B the batch",
    "T": "T the steps",
    "S": "S the source positions",
    "E": "E the depth of the inputs",
    "Dq": "Dq the depth of the query",
    "Dv": "Dv the depth of the memory",
}


def _has_rank(shape: Any) -> bool:
    """Return whether a shape of known rank is given."""
    return shape is not None and getattr(shape, "rank", 0) is not None


def _explained(axes: list[str]) -> str:
    return ", ".join(MEANINGS[axis] for axis in axes if axis in MEANINGS)
