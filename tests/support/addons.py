"""`tfa.seq2seq` in plain NumPy float64, one row at a time, and the code of the page about it.

TensorFlow Addons needs Keras 2, so that it cannot be installed beside Keras 3. This is written from its sources
(attention_wrapper.py and loss.py of tensorflow_addons/seq2seq), not from our layers.
"""

import functools
import pathlib
import re
from typing import Any

import numpy as np

from tests.support import reference

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "migrating-from-tfa.md"


def luong_score(query, values, arrays):
    keys = values @ arrays["memory_kernel"]
    return arrays.get("attention_g", 1.0) * (keys @ query) + arrays.get("attention_score_bias", 0.0)


def bahdanau_score(query, values, arrays):
    keys, vector = values @ arrays["memory_kernel"], arrays["attention_v"]
    if "attention_g" in arrays:
        vector = arrays["attention_g"] * vector / np.sqrt(np.sum(vector**2))
    hidden = np.tanh(keys + query @ arrays["query_kernel"] + arrays.get("attention_b", 0.0))
    return hidden @ vector + arrays.get("attention_score_bias", 0.0)


def recursive(chosen, previous):
    """`monotonic_attention(mode="recursive")`."""
    attention, q = np.zeros_like(chosen), 0.0
    for s in range(len(chosen)):
        q = (1.0 - chosen[s - 1] if s else 1.0) * q + previous[s]
        attention[s] = chosen[s] * q
    return attention


def parallel(chosen, previous):
    """`monotonic_attention(mode="parallel")`, Addons' default."""
    passed = np.concatenate([[1.0], np.cumprod(1.0 - chosen)[:-1]])
    return chosen * passed * np.cumsum(previous / np.clip(passed, 1e-10, 1.0))


def hard(chosen, previous):
    """`monotonic_attention(mode="hard")`."""
    chosen = chosen * np.cumsum(previous)
    return chosen * np.concatenate([[1.0], np.cumprod(1.0 - chosen)[:-1]])


PROBABILITY = {
    "softmax": lambda score, previous: reference.softmax(score),
    "hardmax": lambda score, previous: np.eye(len(score))[np.argmax(score)],
    "recursive": lambda score, previous: recursive(1.0 / (1.0 + np.exp(-score)), previous),
    "hard": lambda score, previous: hard((score > 0).astype(float), previous),
}


class Mechanism:
    """One row's attention: `(query, previous alignment) -> alignment, context`."""

    def __init__(self, score, arrays, probability, values):
        self.score, self.arrays, self.probability, self.values = score, arrays, probability, values
        self.first = np.eye(len(values))[0] if probability in ("recursive", "hard") else np.zeros(len(values))

    def __call__(self, query, previous):
        alignment = PROBABILITY[self.probability](self.score(query, self.values, self.arrays), previous)
        return alignment, alignment @ self.values


def wrapper(inputs, h, c, cell, mechanisms, kernels, output_attention=True, cell_input_fn=None, attention=None):
    """`AttentionWrapper` around an LSTM cell, over one row's inputs `(T, D)`: outputs, and alignments by mechanism."""
    join = cell_input_fn or (lambda inputs, attention: np.concatenate([inputs, attention]))
    states = [one.first for one in mechanisms]
    if attention is None:
        depths = [
            len(one.values[0]) if kernel is None else kernel.shape[1]
            for one, kernel in zip(mechanisms, kernels, strict=True)
        ]
        attention = np.zeros(sum(depths))
    outputs, alignments = [], []
    for x in inputs:
        hidden, c = reference.lstm(join(x, attention)[None], *cell, h, c)
        h = hidden[0]
        parts = []
        for number, (mechanism, kernel) in enumerate(zip(mechanisms, kernels, strict=True)):
            states[number], context = mechanism(h, states[number])
            parts.append(context if kernel is None else np.concatenate([h, context]) @ kernel)
        attention = np.concatenate(parts)
        outputs.append(attention if output_attention else h)
        alignments.append(list(states))
    return np.array(outputs), np.array(alignments)


def sequence_loss(logits, targets, weights, timesteps, batch):
    """`tfa.seq2seq.sequence_loss`: `timesteps` and `batch` are "average", "sum" or None."""
    crossent = np.zeros(targets.shape)
    for b, t in np.ndindex(targets.shape):
        crossent[b, t] = -np.log(reference.softmax(logits[b, t]))[targets[b, t]] * weights[b, t]
    counted = (weights != 0).astype(float) if "sum" in (timesteps, batch) else weights
    if timesteps and batch:
        return crossent.sum() / counted.sum()
    axis = 1 if timesteps else 0
    return crossent.sum(axis) / counted.sum(axis)


@functools.cache
def page_code() -> dict[str, Any]:
    """What the code of docs/migrating-from-tfa.md leaves behind, when run from top to bottom."""
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(PAGE), "exec"), found)
    return found
