"""Attention, recurrence and decoding in plain NumPy float64, written from the papers, not from the layers."""

import itertools
import math

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def score(name, query, value, weights):
    """The score of one query vector and one value vector (Luong et al. 2015, equation 8; location: see `location`)."""
    if name == "dot":
        return float(query @ value)
    if name == "scaled_dot":
        return float(query @ value) / math.sqrt(len(query))
    if name == "general":
        return float(query @ weights["kernel"] @ value)
    if name == "concat":
        # W_a [h_t ; h_s], with W_a the two kernels side by side
        stacked = np.concatenate([weights["query_kernel"], weights["key_kernel"]])
        return float(weights["vector"] @ np.tanh(np.concatenate([query, value]) @ stacked))
    if name == "cosine":
        norms = np.linalg.norm(query) * np.linalg.norm(value)
        return float(query @ value) / norms if norms > 0 else 0.0
    raise KeyError(name)


def attention(name, query, value, mask, weights):
    """Loops over rows, steps and positions: contexts `(B, T, Dv)` and weights `(B, T, S)`."""
    batch, steps, positions = len(query), query.shape[1], value.shape[1]
    alignment = np.zeros((batch, steps, positions))
    for b, t in itertools.product(range(batch), range(steps)):
        real = [s for s in range(positions) if mask[b, s]]
        if not real:
            continue
        if name == "location":
            by_position = query[b, t] @ weights["kernel"]
            scores = np.array([by_position[s] for s in real])
        else:
            scores = np.array([score(name, query[b, t], value[b, s], weights) for s in real])
        alignment[b, t, real] = softmax(scores * weights.get("scale", 1.0))
    return np.einsum("bts,bsd->btd", alignment, value), alignment


def lstm(inputs, kernel, recurrent_kernel, bias, h, c):
    """One row, `(S, D)`; gates in the order i, f, g, o. Returns all h, and the final c."""
    outputs = []
    for x in inputs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs), c


def length_penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def exhaustive_search(log_probs, max_length, alpha, eos, words):
    """All hypotheses over a table `log_probs[previous, step, word]`, best first: (score, ids, log-probability)."""
    found = []

    def extend(ids, total):
        if ids and (ids[-1] == eos or len(ids) == max_length):
            found.append((total / length_penalty(len(ids), alpha), ids, total))
            return
        previous = ids[-1] if ids else 1
        for word in words:
            extend((*ids, word), total + log_probs[previous, len(ids), word])

    extend((), 0.0)
    return sorted(found, key=lambda entry: -entry[0])
