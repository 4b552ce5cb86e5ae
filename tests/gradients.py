"""The gradient of a scalar function of one array, on whatever backend Keras runs."""

import keras
import numpy as np


def gradient(function, array):
    """`d function / d array`, as NumPy float32."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(array)
        with tf.GradientTape() as tape:
            value = function(tf.convert_to_tensor(variable))
        return np.asarray(tape.gradient(value, variable), "float32")
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: function(x))(jax.numpy.asarray(array)), "float32")
    import torch

    tensor = torch.tensor(array, requires_grad=True)
    function(tensor).backward()
    return tensor.grad.numpy()
