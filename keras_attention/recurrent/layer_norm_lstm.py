"""An LSTM cell with layer normalisation."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_whole
from keras_attention.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_attention")
class LayerNormLSTMCell(keras.layers.Layer):
    """The LSTM of Ba, Kiros and Hinton 2016 (arXiv 1607.06450, equations 20 to 22), as a cell of `keras.layers.RNN`.

        i, f, g, o = n(W h) + n(U x) + b      c = sigmoid(f) c + sigmoid(i) tanh(g)      h = sigmoid(o) tanh(n(c))

    with `n(z) = gain (z - mean z) / sqrt(var z + 1e-5)`. Each n has its own gain over all its elements, and that of c
    a shift (the gates' shift is b). Gates in the order i, f, g, o; the bias of f starts at 1.

    Args:
        units: U.

    Call arguments: inputs `(B, D)` and the states `[h, c]`, each `(B, U)`. Returns h and `[h, c]`.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole(units=units)
        if units < 1:
            raise ValueError(f"Expected: units >= 1. Received: {units=}")
        self.units = units
        self.state_size = [units, units]
        self.output_size = units

    def build(self, inputs_shape: Shape) -> None:
        units = self.units
        self.kernel = self.add_weight(shape=(inputs_shape[-1], 4 * units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(units, 4 * units), name="recurrent_kernel", initializer="orthogonal"
        )
        self.bias = self.add_weight(shape=(4 * units,), name="bias", initializer=_forget_at_first(units))
        self.input_gain = self.add_weight(shape=(4 * units,), name="input_gain", initializer="ones")
        self.recurrent_gain = self.add_weight(shape=(4 * units,), name="recurrent_gain", initializer="ones")
        self.cell_gain = self.add_weight(shape=(units,), name="cell_gain", initializer="ones")
        self.cell_shift = self.add_weight(shape=(units,), name="cell_shift", initializer="zeros")
        self.built = True

    def call(self, inputs: Tensor, states: list[Tensor], training: bool | None = None) -> tuple[Tensor, list[Tensor]]:
        hidden, memory = states
        gates = _normalise(ops.matmul(inputs, self.kernel)) * self.input_gain
        gates = gates + _normalise(ops.matmul(hidden, self.recurrent_kernel)) * self.recurrent_gain + self.bias
        i, f, g, o = ops.split(gates, 4, axis=-1)
        memory = ops.sigmoid(f) * memory + ops.sigmoid(i) * ops.tanh(g)
        hidden = ops.sigmoid(o) * ops.tanh(_normalise(memory) * self.cell_gain + self.cell_shift)
        return hidden, [hidden, memory]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def _normalise(z: Tensor) -> Tensor:
    values = ops.cast(z, "float32")  # squares exceed the range of float16 from 256 on
    centred = values - ops.mean(values, axis=-1, keepdims=True)
    return ops.cast(centred * ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + 1e-5), z.dtype)


def _forget_at_first(units: int) -> Any:
    def initialise(shape: Shape, dtype: Any = None) -> Tensor:
        places = ops.arange(4 * units)
        return ops.cast(ops.logical_and(places >= units, places < 2 * units), dtype or "float32")

    return initialise
