"""GRU layers in a form that the ONNX converter recognises: one `GRU` node each, in place of a loop.

The converter recognises a loop whose weights are read outside of it and whose two biases are separate tensors;
stock Keras reads them inside.
"""

import contextlib
from typing import Any

import keras
import tensorflow as tf

from keras_attention.types import Tensor

from .loops import looping, recurrent_layers


def recognised(model: keras.Model) -> contextlib.AbstractContextManager[None]:
    """Context in which the GRU layers with an ONNX node run as loops that the converter recognises."""
    return looping([layer for layer in recurrent_layers(model) if is_standard(layer)], _Loop)


def is_standard(layer: Any) -> bool:
    """Return whether ONNX has a node for a layer: a GRU with standard activations, biases, and `reset_after`."""
    if type(layer) is not keras.layers.GRU:  # a subclass may step differently
        return False
    names = tuple(getattr(kind, "__name__", "") for kind in (layer.activation, layer.recurrent_activation))
    return names == ("tanh", "sigmoid") and layer.use_bias and layer.reset_after


class _Loop:
    """The `inner_loop` of one GRU layer: `h_t = z h_{t-1} + (1 - z) tanh(x_h + r rec_h)` (Cho et al. 2014).

    z and r are the sigmoids of the sums of the other parts of `x = x_t K + b` and `rec = h_{t-1} R + b'`. Sums and
    products are in the order that the converter matches.
    """

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(
        self, sequences: Tensor, initial_state: list[Tensor], mask: Tensor | None, training: bool | None = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        if mask is not None:
            stock: tuple[Tensor, Tensor, list[Tensor]] = type(self.layer).inner_loop(
                self.layer, sequences, initial_state, mask, training
            )
            return stock
        cell = self.layer.cell
        kernel, recurrent = tf.identity(cell.kernel), tf.identity(cell.recurrent_kernel)
        bias, recurrent_bias = tf.unstack(cell.bias)
        sequences = tf.reverse(sequences, [1]) if self.layer.go_backwards else sequences
        length = tf.shape(sequences)[1]
        inputs = tf.TensorArray(sequences.dtype, size=length).unstack(tf.transpose(sequences, (1, 0, 2)))
        outputs = tf.TensorArray(sequences.dtype, size=length, element_shape=(None, cell.units))

        def body(step: Tensor, outputs: Any, state: Tensor) -> tuple[Tensor, Any, Tensor]:
            x_z, x_r, x_h = tf.split(tf.nn.bias_add(tf.matmul(inputs.read(step), kernel), bias), 3, axis=1)
            from_z, from_r, from_h = tf.split(tf.nn.bias_add(tf.matmul(state, recurrent), recurrent_bias), 3, axis=1)
            update, reset = tf.sigmoid(x_z + from_z), tf.sigmoid(x_r + from_r)
            state = update * state + (1.0 - update) * tf.tanh(x_h + reset * from_h)
            return step + 1, outputs.write(step, state), state

        _, outputs, state = tf.while_loop(
            lambda step, *_: step < length, body, (0, outputs, initial_state[0]), maximum_iterations=length
        )
        return state, tf.transpose(outputs.stack(), (1, 0, 2)), [state]
