"""Products with a kernel that XLA can differentiate inside a loop."""

from collections.abc import Callable

import keras
from keras import ops

from keras_attention.types import Tensor


def linear(inputs: Tensor, kernel: Tensor) -> Tensor:
    """`inputs @ kernel`: `(..., D)` and `(D, N)` give `(..., N)`."""
    return by_rows(lambda rows: ops.matmul(rows, kernel), inputs)


def by_rows(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """`function` of the inputs `(..., D)`, each row by itself, as `(..., N)`.

    TensorFlow is given a matrix. It multiplies more axes than two by `tensordot`, and where their sizes are unknown XLA
    has no gradient of that in a loop: what it transposes by is no constant there.
    """
    if keras.backend.backend() != "tensorflow" or len(inputs.shape) == 2:
        return function(inputs)
    outputs = function(ops.reshape(inputs, (-1, inputs.shape[-1])))
    return ops.reshape(outputs, (*ops.shape(inputs)[:-1], outputs.shape[-1]))
