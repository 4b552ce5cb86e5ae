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


def attention_shapes(owner: str, query_shape: Any, value_shape: Any = None) -> tuple[Any, Any]:
    """The shapes of query and value, from the forms in which `build` of Keras' attention layers takes them.

    Args:
        owner: the layer's name, for the message.
        query_shape: the shape of the query, and of the value where `value_shape` is `None`; or a list of the shapes of
            query, value and, maybe, key.
        value_shape: the shape of the value.

    Raises:
        ValueError: for what is no shape, and for shapes that do not fit.
    """
    if value_shape is None and _is_shape(query_shape) and not _is_list_of_shapes(query_shape):
        value_shape = query_shape
    expected = "query_shape and value_shape, a list of these and maybe key_shape, or one shape of both"
    shapes = _separate(owner, ("query", "value", "key"), expected, query_shape, value_shape)
    axes = {"query": "B T Dq", "value": "B S Dv", "key": "B S Dv"}
    check_shapes(owner, {name: (shape, axes[name]) for name, shape in shapes.items()})
    return shapes["query"], shapes["value"]


def memory_shapes(owner: str, inputs_shape: Any, memory_shape: Any = None) -> tuple[Any, Any]:
    """The shapes of inputs and memory, given one by one or as a list of two.

    Raises:
        ValueError: for what is no shape, and for one shape alone.
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
    """Whether it is a tuple or a list, or a shape of TensorFlow."""
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
    """Whether there is a shape, with a rank that is known."""
    return shape is not None and getattr(shape, "rank", 0) is not None


def _explained(axes: list[str]) -> str:
    return ", ".join(MEANINGS[axis] for axis in axes if axis in MEANINGS)
