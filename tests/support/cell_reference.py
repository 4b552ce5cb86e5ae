"""A decoder step with attention in plain NumPy float64, written from the papers and from Keras' gate conventions.

Also the recurrent cells and attentions that the tests of `AttentionCell` and `AttentionRNN` share.
"""

import keras
import numpy as np
from keras import ops

from keras_attention import BahdanauAttention, LuongAttention, MultiHeadLuongAttention, RecurrentStack

# A different prime for every size: rows, steps, source positions, units, depths of memory, output and inputs.
BATCH, STEPS, POSITIONS, UNITS, MEMORY_DEPTH, SIZE, DEPTH = 2, 3, 5, 7, 11, 13, 17


def _softmax(scores):
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm_step(x, states, kernel, recurrent_kernel, bias):
    """Keras' order of gates: i, f, g, o."""
    h, c = states
    i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    h = _sigmoid(o) * np.tanh(c)
    return h, [h, c]


def gru_step(x, states, kernel, recurrent_kernel, bias):
    """Keras' order of gates: z, r, candidate; `reset_after=True`, so that there are two biases."""
    (h,) = states
    xz, xr, xh = np.split(x @ kernel + bias[0], 3)
    hz, hr, hh = np.split(h @ recurrent_kernel + bias[1], 3)
    z = _sigmoid(xz + hz)
    h = z * h + (1.0 - z) * np.tanh(xh + _sigmoid(xr + hr) * hh)
    return h, [h]


def simple_step(x, states, kernel, recurrent_kernel, bias):
    h = np.tanh(x @ kernel + states[0] @ recurrent_kernel + bias)
    return h, [h]


STEPS_OF = {"LSTMCell": lstm_step, "GRUCell": gru_step, "SimpleRNNCell": simple_step}


def attend(mechanism, query, memory, length):
    """One query vector over the first `length` rows of one memory `(S, Dv)`: context and weights `(S,)`."""
    kind, weights = mechanism
    weights_of_source, scores = np.zeros(len(memory)), []
    for value in memory[:length]:
        if kind == "general":
            scores.append(query @ weights[0] @ value)
        else:
            query_kernel, key_kernel, vector = weights
            scores.append(vector @ np.tanh(query @ query_kernel + value @ key_kernel))
    weights_of_source[:length] = _softmax(np.array(scores))
    return sum(weight * value for weight, value in zip(weights_of_source, memory, strict=True)), weights_of_source


def run_row(cells, mechanisms, attentional_kernel, style, feeding, inputs, memory, length, states):
    """All steps of one row.

    Args:
        cells: (step, weights) of each recurrent cell, the bottom first.
        mechanisms: ("general" or "additive", weights) of each attention.
        attentional_kernel: `W_c`, or None.
        style: "luong" or "bahdanau".
        feeding: whether Luong's style feeds the attentional vector.
        inputs: `(T, E)`.
        memory: `(S, Dv)`.
        length: number of real rows of the memory.
        states: a list of states for each cell; the output before the first step is the top cell's first.

    Returns:
        Outputs, mean alignments, and the last states.
    """
    states = [list(state) for state in states]
    size = len(mechanisms) * memory.shape[1] if attentional_kernel is None else attentional_kernel.shape[1]
    fed, hidden = np.zeros(size), states[-1][0]
    outputs, alignments = [], []

    def recur(x):
        for number, (step, weights) in enumerate(cells):
            x, states[number] = step(x, states[number], *weights)
        return x

    def attentional_vector(query):
        found = [attend(mechanism, query, memory, length) for mechanism in mechanisms]
        alignments.append(np.mean([weights for _, weights in found], axis=0))
        context = np.concatenate([context for context, _ in found])
        if attentional_kernel is None:
            return context
        return np.tanh(np.concatenate([context, query]) @ attentional_kernel)

    for x in inputs:
        if style == "luong":
            hidden = recur(np.concatenate([x, fed]) if feeding else x)
            fed = attentional_vector(hidden)
            outputs.append(fed)
        else:
            hidden = recur(np.concatenate([x, attentional_vector(hidden)]))
            outputs.append(hidden)
    return np.array(outputs), np.array(alignments), states


class LeakyCell:
    """A user's own cell, no Keras layer: `h = 0.5 h + 0.5 x W`."""

    state_size = UNITS

    def __init__(self):
        self.kernel = None

    def __call__(self, inputs, states):
        if self.kernel is None:
            generator = np.random.default_rng(3)
            self.kernel = (generator.normal(size=(inputs.shape[-1], UNITS)) / 5.0).astype("float32")
        new = 0.5 * states[0] + 0.5 * ops.matmul(inputs, self.kernel)
        return new, [new]


@keras.saving.register_keras_serializable(package="tests")
class CountingCell(keras.layers.Layer):
    """A user's own layer with two states, an output of another depth than either, and a `training` argument."""

    def __init__(self, units=UNITS, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [3, 1]
        self.output_size = units

    def build(self, inputs_shape):
        self.into = self.add_weight(shape=(inputs_shape[-1], 3), name="into")
        self.out = self.add_weight(shape=(4, self.units), name="out")
        self.built = True

    def call(self, inputs, states, training=None):
        memory, count = states
        memory, count = ops.tanh(memory + ops.matmul(inputs, self.into)), count + (0.5 if training else 0.25)
        return ops.tanh(ops.matmul(ops.concatenate([memory, count], axis=-1), self.out)), [memory, count]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="tests")
def gated_sum(inputs, attentional):
    """A user's own input feeding."""
    return inputs * ops.mean(ops.sigmoid(attentional), axis=-1, keepdims=True)


@keras.saving.register_keras_serializable(package="tests")
class ProjectedFeeding(keras.layers.Layer):
    """A user's own input feeding with weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(DEPTH, "tanh", dtype=self.dtype_policy)

    def call(self, inputs, attentional):
        return inputs + self.dense(attentional)


RECURRENT = {
    "lstm": lambda: keras.layers.LSTMCell(UNITS),
    "gru": lambda: keras.layers.GRUCell(UNITS),
    "simple": lambda: keras.layers.SimpleRNNCell(UNITS),
    "stacked": lambda: keras.layers.StackedRNNCells([keras.layers.LSTMCell(3), keras.layers.GRUCell(UNITS)]),
    "list": lambda: [keras.layers.GRUCell(3), keras.layers.SimpleRNNCell(5), keras.layers.LSTMCell(UNITS)],
    "own": LeakyCell,
    "own layer": CountingCell,
    "recurrent stack": lambda: RecurrentStack("lstm", UNITS, num_layers=2, return_cell_state=True),
    "recurrent stack, gru": lambda: RecurrentStack("gru", UNITS),
}

ATTENTIONS = {
    "general": LuongAttention,
    "coverage": lambda: BahdanauAttention(units=3, use_coverage=True),
    "monotonic": lambda: LuongAttention("general", alignment="monotonic"),
    "hard monotonic": lambda: BahdanauAttention(normalize=True, alignment="hard_monotonic", score_bias_init=0.2),
    "local-m": lambda: LuongAttention("general", window="local_m", half_width=1),
    "local-p": lambda: LuongAttention("concat", window="local_p", half_width=2),
    "heads": lambda: MultiHeadLuongAttention(3, head_size=2, score="additive", use_coverage=True),
    "several": lambda: [
        LuongAttention("general", window="local_m", half_width=1),
        MultiHeadLuongAttention(2, head_size=3, alignment="monotonic"),
        BahdanauAttention(use_coverage=True),
    ],
}

WAYS = {
    "attention after": {"input_feeding": False, "attentional_size": SIZE},
    "input feeding": {"attentional_size": SIZE},
    "input feeding of the context": {},
    "own feeding": {"input_feeding": gated_sum, "attentional_size": SIZE, "activation": "relu"},
    "own feeding layer": {"input_feeding": ProjectedFeeding, "attentional_size": SIZE},
    "bahdanau": {"style": "bahdanau"},
    "bahdanau, attentional": {"style": "bahdanau", "attentional_size": SIZE},
}


def way(name):
    """The arguments of an `AttentionCell`, with layers of their own."""
    arguments = dict(WAYS[name])
    if arguments.get("input_feeding") is ProjectedFeeding:
        arguments["input_feeding"] = ProjectedFeeding()
    return arguments


def normal(*shape, seed=5):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def source_mask(*lengths, positions=POSITIONS):
    return np.arange(positions) < np.array(lengths)[:, None]


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))
