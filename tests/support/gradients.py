"""Gradients of a scalar function of arrays, on whatever backend Keras runs."""

import keras
import numpy as np


def gradient(function, array):
    """`d function / d array`, as NumPy float32; zeros where the function does not depend on it."""
    return gradients(function, [array])[0]


def gradients(function, arrays):
    """`gradient` by each of the arrays, which `function(*arrays)` takes."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tensors = [tf.convert_to_tensor(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        found = tape.gradient(value, tensors, unconnected_gradients="zero")
        return [np.asarray(tf.convert_to_tensor(slopes), "float32") for slopes in found]
    if backend == "jax":
        import jax

        places = tuple(range(len(arrays)))
        found = jax.grad(function, places)(*(jax.numpy.asarray(array) for array in arrays))
        return [np.asarray(slopes, "float32") for slopes in found]
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    value = function(*tensors)
    if value.requires_grad:
        value.backward()
    return [np.zeros_like(tensor.detach()) if tensor.grad is None else tensor.grad.numpy() for tensor in tensors]
