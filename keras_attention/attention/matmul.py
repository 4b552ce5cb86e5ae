"""Matrix products with a kernel that XLA can differentiate inside a loop."""

from collections.abc import Callable

import keras
from keras import ops

from keras_attention.types import Tensor


def linear(inputs: Tensor, kernel: Tensor) -> Tensor:
    """`inputs @ kernel`: `(..., D)` and `(D, N)` give `(..., N)`."""
    return by_rows(lambda rows: ops.matmul(rows, kernel), inputs)


def by_rows(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply `function` to the inputs `(..., D)` as a matrix of rows; the result is `(..., N)`.

    On TensorFlow the inputs are reshaped to a matrix. With more axes it multiplies by `tensordot`, which XLA cannot
    differentiate in a loop for unknown sizes: the permutation of its transposition is no constant there.
    """
    if keras.backend.backend() != "tensorflow" or len(inputs.shape) == 2:
        return function(inputs)
    outputs = function(ops.reshape(inputs, (-1, inputs.shape[-1])))
    return ops.reshape(outputs, (*ops.shape(inputs)[:-1], outputs.shape[-1]))
