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


DIGESTS, PLACES, RECALLED = 31, 5, (2, 3, 4, 5, 6)
"""States, source positions and words, EOS among them, of `recalling_step`; padding and BOS come before the words."""


def recalling_step(token, state, memory):
    """Log-probabilities and alignments by row and by all words read so far, whose digest is the state."""
    digest = ops.mod(state["digest"] * memory["factor"] + 5 * ops.cast(token, "int32") + 1, DIGESTS)
    index = ops.arange(ops.shape(token)[0], dtype="int32") * DIGESTS + digest
    found = [
        ops.take(ops.reshape(memory[name], (-1, memory[name].shape[2])), index, axis=0)
        for name in ("answers", "weights")
    ]
    return found[0], {"digest": digest}, found[1]


def digest_of(read, factor):
    """The state of `recalling_step` after these words, in plain Python."""
    digest = 0
    for word in read:
        digest = (digest * factor + 5 * int(word) + 1) % DIGESTS
    return digest


def recalling(seed, batch, factor=7, padding=3.0):
    """State and memory of `recalling_step`. Padding is the likeliest word of all as a rule; BOS is impossible."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(batch, DIGESTS, max(RECALLED) + 1)) * 1.5
    values[..., PAD] += padding
    values[..., BOS] = -np.inf
    weights = rng.exponential(size=(batch, DIGESTS, PLACES))
    memory = {
        "answers": (values - np.log(np.exp(values).sum(axis=-1, keepdims=True))).astype("float32"),
        "weights": (weights / weights.sum(axis=-1, keepdims=True)).astype("float32"),
        "factor": np.full(batch, factor, "int32"),
    }
    return {"digest": np.zeros(batch, "int32")}, memory


def recalled(memory, row):
    """`answers(read) -> log_probs, weights`: what `recalling_step` says of one row after all these words, in NumPy."""

    def answers(read):
        digest = digest_of(read, int(memory["factor"][row]))
        return memory["answers"][row, digest].astype("float64"), memory["weights"][row, digest].astype("float64")

    return answers


def tensors(tree):
    return keras.tree.map_structure(ops.convert_to_tensor, tree)
