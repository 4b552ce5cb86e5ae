"""Tables of log-probabilities as the `step` of a search, over an alphabet of four words with EOS among them."""

import functools

import keras
import numpy as np
from keras import ops

PAD, BOS, EOS, WORDS = 0, 1, 2, (2, 3, 4, 5)
VOCABULARY, STEPS, POSITIONS = 6, 4, 3


def numpy(result):
    return {name: ops.convert_to_numpy(value) for name, value in result.items()}


def table_step(token, state, memory):
    """Log-probabilities by row, step and previous word; the alignment names the previous word and the step."""
    tables, t = memory["tables"], state["t"]
    vocabulary, steps = tables.shape[1], tables.shape[2]
    rows = ops.arange(ops.shape(token)[0])
    flat = ops.reshape(tables, (-1, vocabulary))
    index = (rows * vocabulary + ops.cast(token, "int32")) * steps + ops.minimum(t, steps - 1)
    alignment = ops.stack([ops.cast(token, "float32"), ops.cast(t, "float32"), ops.ones_like(t, "float32")], axis=1)
    return ops.take(flat, index, axis=0), {"t": t + 1}, alignment


def attending_step(token, state, memory):
    """`table_step` with alignments that are weights: by row, previous word and step, zero for some positions."""
    log_probs, after, _ = table_step(token, state, memory)
    rows, steps = ops.arange(ops.shape(token)[0]), memory["attention"].shape[2]
    vocabulary = memory["tables"].shape[1]
    index = (rows * vocabulary + ops.cast(token, "int32")) * steps + ops.minimum(state["t"], steps - 1)
    weights = ops.take(ops.reshape(memory["attention"], (-1, POSITIONS)), index, axis=0)
    return log_probs, after, weights


def start(tables):
    """Tables `(B, previous, step, word)`; words outside the alphabet are impossible."""
    tables = np.array(tables, "float32")
    tables[..., [PAD, BOS]] = -np.inf
    return {"t": np.zeros(len(tables), "int32")}, {"tables": ops.convert_to_tensor(tables)}


def random_tables(seed, batch=1, integers=False, vocabulary=VOCABULARY, steps=STEPS):
    rng = np.random.default_rng(seed)
    shape = (batch, vocabulary, steps, vocabulary)
    if integers:
        return -rng.integers(0, 5, shape).astype("float32")
    values = rng.normal(size=shape).astype("float32") * 2
    return values - np.log(np.exp(values).sum(axis=-1, keepdims=True))


def random_attention(seed, batch=1):
    weights = np.random.default_rng([seed, 1]).exponential(size=(batch, VOCABULARY, STEPS, POSITIONS))
    weights[weights < 0.3] = 0
    return (weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)).astype("float32")


@functools.cache
def compiled(function, step=table_step, **fixed):
    """`run(state, memory, **tensors)`: a search over tables as one graph, or program, for each shape.

    Step by step TensorFlow takes ten times as long; outside of `jit`, JAX compiles the loop anew at each call.
    """

    def run(state, memory, **tensors):
        return function(step, state, memory, **tensors, **fixed)

    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(run)
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(run, autograph=False)
    return run
