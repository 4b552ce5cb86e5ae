"""Initializers, regularizers and constraints of a layer's weights, as in Keras' layers."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_attention.types import Shape, Tensor

KERNEL_OPTIONS = ("kernel_initializer", "kernel_regularizer", "kernel_constraint")
BIAS_OPTIONS = ("bias_initializer", "bias_regularizer", "bias_constraint")
OPTIONS = (*KERNEL_OPTIONS, *BIAS_OPTIONS)

_READERS = {"initializer": keras.initializers, "regularizer": keras.regularizers, "constraint": keras.constraints}


def set_options(layer: Any, names: Sequence[str], *given: Any) -> None:
    """Set the attributes `names` of a layer from names, configs or instances.

    Raises:
        ValueError: for a name or a config that Keras does not know.
    """
    for name, value in zip(names, given, strict=True):
        setattr(layer, name, _reader(name).get(value))


def given_options(layer: Any) -> dict[str, Any]:
    """Return the kernel options given to the layer, as arguments of a Keras layer."""
    options = {name: getattr(layer, name) for name in KERNEL_OPTIONS}
    return {name: value for name, value in options.items() if value is not None}


def options_config(layer: Any, names: Sequence[str] = OPTIONS) -> dict[str, Any]:
    """Return the layer's options as plain data, for `get_config`."""
    return {name: _reader(name).serialize(getattr(layer, name)) for name in names}


def add_kernel(
    layer: Any,
    name: str,
    shape: Shape,
    initializer: Any = None,
    matrix: tuple[int, int] | None = None,
    order: tuple[int, ...] | None = None,
) -> Any:
    """Add a weight to the layer with its kernel options.

    Args:
        layer: a layer with the attributes `KERNEL_OPTIONS`.
        name: name of the weight.
        shape: shape of the weight.
        initializer: default initializer of the weight; Glorot's rule if `None`.
        matrix: the kernel `(inputs, outputs)` to which the options apply, for a weight of another rank.
        order: permutation of the weight's axes for that matrix; it must be its own inverse.
    """
    options = [_unseeded_anew(layer.kernel_initializer), layer.kernel_regularizer, layer.kernel_constraint]
    if matrix is not None:
        options = _seen_as_matrix(options, shape, matrix, order or tuple(range(len(shape))))
    start, regularizer, constraint = options
    start = initializer if start is None else start
    return layer.add_weight(shape=shape, name=name, initializer=start, regularizer=regularizer, constraint=constraint)


def add_bias(layer: Any, name: str, units: int) -> Any:
    """Add a bias `(units,)` to the layer with its bias options."""
    start, regularizer, constraint = (getattr(layer, option) for option in BIAS_OPTIONS)
    options = {"initializer": start, "regularizer": regularizer, "constraint": constraint}
    return layer.add_weight(shape=(units,), name=name, **options)


def _seen_as_matrix(options: list[Any], shape: Shape, matrix: tuple[int, int], order: tuple[int, ...]) -> list[Any]:
    initializer, regularizer, constraint = options

    def flat(weight: Tensor) -> Tensor:
        return ops.reshape(ops.transpose(weight, order), matrix)

    def back(kernel: Tensor) -> Tensor:
        return ops.transpose(ops.reshape(kernel, [shape[axis] for axis in order]), order)

    return [
        None if initializer is None else lambda _, dtype=None: back(initializer(matrix, dtype=dtype)),
        None if regularizer is None else lambda weight: regularizer(flat(weight)),
        None if constraint is None else lambda weight: back(constraint(flat(weight))),
    ]


def _unseeded_anew(initializer: Any) -> Any:
    """Copy an initializer, with a seed of its own if none was set: a reused instance draws the same numbers."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    return type(initializer).from_config(config) if config.get("seed", "none to choose") is None else initializer


def _reader(name: str) -> Any:
    return _READERS[name.rpartition("_")[2]]
