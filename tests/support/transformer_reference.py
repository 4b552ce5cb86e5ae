"""The encoder-decoder without recurrence in plain NumPy float64, one row at a time, from the papers alone.

Vaswani et al. 2017 (arXiv 1706.03762) throughout. Three things are otherwise, on purpose: the normalisation stands
before each part and once more at the end (Xiong et al. 2020, arXiv 2002.04745, figure 1 b), projections of heads have
no bias, and a dense layer stands between embeddings and the stack, whose depths may differ.
"""

import numpy as np

from tests.support.reference import softmax

EPSILON = 1e-3
"""Of Keras' `LayerNormalization`; the papers name none."""


def positions(length, depth):
    """Section 3.5: sines at even and cosines at odd places; here all sines come first, the same up to their order."""
    found = np.zeros((length, depth))
    for pos in range(length):
        for i in range(depth // 2):
            found[pos, 2 * i] = np.sin(pos / 10000 ** (2 * i / depth))
            found[pos, 2 * i + 1] = np.cos(pos / 10000 ** (2 * i / depth))
    return np.concatenate([found[:, 0::2], found[:, 1::2]], axis=1)


def place(embedded, weights, scaled):
    """Sections 3.4 and 3.5, `(T, E)` to `(T, D)`."""
    depth = weights["input_projection/bias"].shape[0]
    factor = np.sqrt(depth) if scaled else 1.0
    projected = factor * embedded @ weights["input_projection/kernel"] + weights["input_projection/bias"]
    return projected + positions(len(embedded), depth)


def normalise(x, weights, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return weights[f"{name}/gamma"] * normal + weights[f"{name}/beta"]


def attend(query, value, allowed, weights, name):
    """Section 3.2: contexts `(T, D)` and the heads' mean weights `(T, S)`; `allowed[t, s]`."""
    count, _, size = weights[f"{name}/value_kernel"].shape
    heads, seen = [], []
    for h in range(count):
        part = slice(h * size, (h + 1) * size)
        queries, keys = query @ weights[f"{name}/query_kernel"][:, part], value @ weights[f"{name}/key_kernel"][:, part]
        seen.append(softmax(np.where(allowed, queries @ keys.T / np.sqrt(size), -np.inf)))
        heads.append(seen[-1] @ (value @ weights[f"{name}/value_kernel"][h]))
    return np.concatenate(heads, axis=-1) @ weights[f"{name}/output_kernel"], np.mean(seen, axis=0)


def feed_forward(x, weights, name):
    """Section 3.3."""
    hidden = np.maximum(x @ weights[f"{name}/hidden/kernel"] + weights[f"{name}/hidden/bias"], 0.0)
    return hidden @ weights[f"{name}/projection/kernel"] + weights[f"{name}/projection/bias"]


def encode(embedded, weights, layers, scaled=True):
    """The real words of one row `(S, E)`: inputs of the first layer, outputs of each, and the memory."""
    found = [place(embedded, weights, scaled)]
    everywhere = np.ones((len(embedded), len(embedded)), bool)
    for name in (f"block_{index}" for index in range(layers)):
        normal = normalise(found[-1], weights, f"{name}/self_norm")
        x = found[-1] + attend(normal, normal, everywhere, weights, f"{name}/self_attention")[0]
        found.append(x + feed_forward(normalise(x, weights, f"{name}/feed_forward_norm"), weights, name))
    return [*found, normalise(found[-1], weights, "norm")]


def decode(embedded, memory, weights, layers, scaled=True):
    """One row `(T, E)` and its memory `(S, D)`: what `encode` gives, and the mean alignment `(T, S)`."""
    found, alignments = [place(embedded, weights, scaled)], []
    steps = len(embedded)
    before = np.array([[s <= t for s in range(steps)] for t in range(steps)])
    everywhere = np.ones((steps, len(memory)), bool)
    for name in (f"block_{index}" for index in range(layers)):
        normal = normalise(found[-1], weights, f"{name}/self_norm")
        x = found[-1] + attend(normal, normal, before, weights, f"{name}/self_attention")[0]
        normal = normalise(x, weights, f"{name}/attention_norm")
        contexts, alignment = attend(normal, memory, everywhere, weights, f"{name}/attention")
        x, alignments = x + contexts, [*alignments, alignment]
        found.append(x + feed_forward(normalise(x, weights, f"{name}/feed_forward_norm"), weights, name))
    return [*found, normalise(found[-1], weights, "norm")], np.mean(alignments, axis=0)
