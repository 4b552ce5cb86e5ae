"""AttentionCell against NumPy; its states, its config, and what it refuses."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import AttentionCell, AttentionRNN, BahdanauAttention, LuongAttention, RecurrentStack
from tests.support import cell_reference
from tests.support.cell_reference import (
    ATTENTIONS,
    BATCH,
    DEPTH,
    MEMORY_DEPTH,
    POSITIONS,
    RECURRENT,
    SIZE,
    STEPS,
    UNITS,
    WAYS,
    normal,
    numpy,
    source_mask,
    way,
)

# The reference runs in float64; float32 sums of at most 30 products of numbers near 1, through three steps of
# saturating functions, round to about 1e-6.
FLOAT32 = {"rtol": 1e-5, "atol": 3e-6}

KERAS_CELLS = {
    "lstm": [("LSTMCell", UNITS)],
    "gru": [("GRUCell", UNITS)],
    "stacked": [("GRUCell", 3), ("LSTMCell", 5), ("SimpleRNNCell", UNITS)],
}
SIMPLE_ATTENTIONS = {
    "general": [("general", LuongAttention)],
    "additive": [("additive", lambda: BahdanauAttention(units=19))],
    "both": [("general", LuongAttention), ("additive", lambda: BahdanauAttention(units=19))],
}
REFERENCE_WAYS = [
    "attention after",
    "input feeding",
    "input feeding of the context",
    "bahdanau",
    "bahdanau, attentional",
]


def cell_of(recurrent="lstm", attention="general", name="input feeding", **kwargs):
    return AttentionCell(RECURRENT[recurrent](), ATTENTIONS[attention](), **way(name), **kwargs)


def double(weights):
    return [numpy(weight).astype("float64") for weight in weights]


def walk(cell, inputs, state, memory):
    outputs, alignments = [], []
    for t in range(inputs.shape[1]):
        output, state, alignment = cell(inputs[:, t], state, memory)
        outputs.append(numpy(output))
        alignments.append(numpy(alignment))
    return np.stack(outputs, axis=1), np.stack(alignments, axis=1), state


@pytest.mark.parametrize("name", REFERENCE_WAYS)
@pytest.mark.parametrize("attention", SIMPLE_ATTENTIONS)
@pytest.mark.parametrize("recurrent", KERAS_CELLS)
def test_steps_equal_numpy(recurrent, attention, name):
    made = [getattr(keras.layers, kind)(units) for kind, units in KERAS_CELLS[recurrent]]
    attentions = [make() for _, make in SIMPLE_ATTENTIONS[attention]]
    cell = AttentionCell(made, attentions, **way(name))
    inputs, values, mask = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, MEMORY_DEPTH), source_mask(3, 5)
    given = [normal(BATCH, size, seed=n) for n, size in enumerate(cell.state_sizes.values())]
    memory = cell.prepare_memory(values, mask)
    rnn = AttentionRNN(cell, return_sequences=True, return_state=True)
    whole = rnn(inputs, values, mask, initial_state=given, return_attention_scores=True)
    stepped = walk(cell, inputs, cell.initial_state(memory, given), memory)
    counts = [2 if kind == "LSTMCell" else 1 for kind, _ in KERAS_CELLS[recurrent]]
    for row in range(BATCH):
        rest = [state[row].astype("float64") for state in given]
        states = [[rest.pop(0) for _ in range(count)] for count in counts]
        outputs, alignments, last = cell_reference.run_row(
            [(cell_reference.STEPS_OF[type(one).__name__], double(one.weights)) for one in made],
            [
                (kind, double(one.weights))
                for (kind, _), one in zip(SIMPLE_ATTENTIONS[attention], attentions, strict=True)
            ],
            None if cell.attentional is None else double(cell.attentional.weights)[0],
            cell.style,
            cell.feeds,
            inputs[row].astype("float64"),
            values[row].astype("float64"),
            int(mask[row].sum()),
            states,
        )
        last = [tensor for state in last for tensor in state]
        for found_outputs, found_alignments, state in (whole, stepped):
            np.testing.assert_allclose(numpy(found_outputs)[row], outputs, **FLOAT32)
            np.testing.assert_allclose(numpy(found_alignments)[row], alignments, **FLOAT32)
            for state_name, expected in zip(cell.state_sizes, last, strict=True):
                np.testing.assert_allclose(numpy(state[state_name])[row], expected, **FLOAT32)


def test_names_and_depths_of_states():
    cell = cell_of("list", "several")
    assert cell.state_sizes == {"h_0": 3, "h_1": 5, "h_2": UNITS, "c_2": UNITS}
    state = cell.initial_state(cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH)))
    assert set(state) == {"h_0", "h_1", "h_2", "c_2", "attentional", "step_0", "alignment_1", "coverage_2"}
    assert state["attentional"].shape == (BATCH, SIZE)
    assert all(not numpy(tensor).any() for name, tensor in state.items() if name != "alignment_1")
    assert cell_of("own layer").state_sizes == {"h_0": 3, "s1_0": 1}
    assert cell_of("recurrent stack").state_sizes == dict.fromkeys(["h_0", "c_0", "h_1", "c_1"], UNITS)


def test_bahdanau_asks_first_with_the_state_of_the_top_cell():
    """By its name, in whatever order a dict comes: Keras sorts dicts, and then `c` is before `h`."""
    for recurrent, top in (("lstm", "h_0"), ("list", "h_2"), ("recurrent stack", "h_1")):
        cell = cell_of(recurrent, name="bahdanau")
        memory = cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH))
        given = {name: normal(BATCH, size, seed=n) for n, (name, size) in enumerate(cell.state_sizes.items())}
        for order in (given, dict(sorted(given.items())), list(given.values())):
            np.testing.assert_array_equal(numpy(cell.initial_state(memory, order)["output"]), given[top])
    # A state that is no output cannot stand for one.
    cell = cell_of("own layer", name="bahdanau")
    memory = cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH))
    assert not numpy(cell.initial_state(memory, [normal(BATCH, 3), normal(BATCH, 1)])["output"]).any()


def test_the_initial_state_of_the_users_cell_is_asked_for():
    class Cell(keras.layers.GRUCell):
        def get_initial_state(self, batch_size=None):
            return [ops.ones((batch_size, self.units)) * 0.5]

    cell = AttentionCell(Cell(UNITS), LuongAttention(), style="bahdanau")
    state = cell.initial_state(cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH)))
    for name in ("h_0", "output"):
        np.testing.assert_array_equal(numpy(state[name]), np.full((BATCH, UNITS), 0.5, "float32"))


@pytest.mark.parametrize("name", WAYS)
def test_config_survives_json(name):
    cell = cell_of("list", "several", name)
    inputs, values = normal(BATCH, DEPTH), normal(BATCH, POSITIONS, MEMORY_DEPTH)
    memory = cell.prepare_memory(values)
    output, _, alignment = cell(inputs, cell.initial_state(memory), memory)
    config = cell.get_config()
    copy = AttentionCell.from_config(json.loads(json.dumps(config)))
    assert copy.get_config() == config
    AttentionCell.from_config(config)
    assert cell.get_config() == config  # reading it left it whole
    memory = copy.prepare_memory(values)
    copy(inputs, copy.initial_state(memory), memory)
    copy.set_weights(cell.get_weights())
    memory = copy.prepare_memory(values)
    again, _, again_alignment = copy(inputs, copy.initial_state(memory), memory)
    np.testing.assert_array_equal(numpy(again), numpy(output))
    np.testing.assert_array_equal(numpy(again_alignment), numpy(alignment))


@pytest.mark.parametrize("name", ["input feeding", "bahdanau"])
def test_parts_of_other_dtypes(name):
    """Cell and attention compute as they were told, between them the dtype is that of the AttentionCell."""
    recurrent = [keras.layers.LSTMCell(3, dtype="float32"), keras.layers.GRUCell(UNITS, dtype="mixed_float16")]
    cell = AttentionCell(
        recurrent, BahdanauAttention(use_coverage=True, dtype="float32"), dtype="mixed_float16", **way(name)
    )
    rnn = AttentionRNN(cell, return_sequences=True, dtype="mixed_float16")
    outputs = rnn(normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, MEMORY_DEPTH))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    assert np.isfinite(numpy(outputs)).all()


def test_dropout_of_a_keras_cell_holds_for_one_call():
    cell = AttentionCell(keras.layers.LSTMCell(UNITS, dropout=0.5, recurrent_dropout=0.5), LuongAttention())
    memory = cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH))
    inputs, state = normal(BATCH, DEPTH), cell.initial_state(memory)
    first, second = (numpy(cell(inputs, state, memory, training=True)[0]) for _ in range(2))
    assert (first != second).any()
    np.testing.assert_array_equal(*(numpy(cell(inputs, state, memory)[0]) for _ in range(2)))
    with pytest.raises(ValueError, match="The state does not match"):
        cell(inputs, {}, memory, training=True)
    with pytest.raises(Exception, match=r"."):  # the depth of the inputs is wrong, in the middle of a step
        cell(normal(BATCH, DEPTH + 2), state, memory, training=True)
    assert cell.cell._dropout_mask is None
    assert cell.cell._recurrent_dropout_mask is None


def stack(*arguments, **kwargs):
    return lambda: AttentionCell(RecurrentStack(*arguments, **kwargs), LuongAttention())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionCell(keras.layers.Dense(3), LuongAttention()), r"no recurrent cell.*Received: Dense with"),
        (lambda: AttentionCell(keras.layers.LSTM(3), LuongAttention()), r"Expected: an object called as.*LSTM"),
        (lambda: AttentionCell([], LuongAttention()), r"no recurrent cell.*Expected: .*Received: "),
        (lambda: AttentionCell(None, LuongAttention()), r"no recurrent cell.*Received: NoneType"),
        (
            lambda: AttentionCell(RECURRENT["lstm"](), LuongAttention(), style="loung"),
            r"Expected: style in \('luong', 'bahdanau'\).*Received: style='loung'",
        ),
        (
            lambda: AttentionCell(RECURRENT["lstm"](), LuongAttention(), style="bahdanau", input_feeding=False),
            r"input_feeding=True, or a function. Received: input_feeding=False",
        ),
        (lambda: AttentionCell(RECURRENT["lstm"](), LuongAttention(), 0), r"attentional_size >= 1.*attentional_size=0"),
        (
            lambda: AttentionCell(RECURRENT["lstm"](), keras.layers.Attention()),
            r"Expected: attention, a Luong.*Received",
        ),
        (lambda: AttentionCell(RECURRENT["lstm"](), []), r"Expected: attention, a Luong.*Received: \[\]"),
        (lambda: AttentionCell(RECURRENT["lstm"](), "general"), r"Expected: attention.*Received: 'general'"),
        (
            lambda: AttentionCell(RECURRENT["lstm"](), LuongAttention(), input_feeding="yes"),
            r"Expected: input_feeding, True, False, or a function.*Received: 'yes'",
        ),
        (stack("lstm", 3, return_cell_state=True, bidirectional=True), r"one direction.*bidirectional=True"),
        (stack("gru", 3, bidirectional=True), r"one direction.*Expected: bidirectional=False.*bidirectional=True"),
        (stack("lstm", 3), r"its whole state. Expected: .*return_cell_state=True for an LSTM.*return_cell_state=False"),
        (lambda: AttentionRNN(keras.layers.LSTMCell(3)), r"Expected: cell, an AttentionCell.*Received: LSTMCell"),
        (lambda: AttentionRNN(cell_of(), dropout=1.0), r"Expected: 0 <= dropout < 1. Received: dropout=1.0"),
    ],
)
def test_arguments_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([], r"Expected: 3 tensors, \['h_0', 'h_1', 'c_1'\]. Received: 0"),
        ([(BATCH, 3), (BATCH, UNITS)], r"Expected: 3 tensors.*Received: 2"),
        (
            [(BATCH, 3), (BATCH, UNITS), (BATCH, 5)],
            r"depths {c_1: 7, h_0: 3, h_1: 7}. Received: {c_1: 5, h_0: 3, h_1: 7}",
        ),
        ({"h_0": (BATCH, 3), "h_1": (BATCH, UNITS)}, r"Expected: .*c_1: 7.*Received: {h_0: 3, h_1: 7}"),
        ({"h_0": (BATCH, 3), "h_1": (BATCH, UNITS), "s": (BATCH, 1)}, r"Expected: .*c_1: 7.*Received: .*s: 1}"),
        ({"h_0": (), "h_1": (BATCH, UNITS), "c_1": (BATCH, UNITS)}, r"Expected: .*Received: {c_1: 7, h_0: 0"),
        ((BATCH, 3), r"Expected: 3 tensors.*Received: 1"),
    ],
)
def test_a_state_that_does_not_match(state, message):
    cell = AttentionCell(
        [keras.layers.GRUCell(3), keras.layers.LSTMCell(UNITS)], BahdanauAttention(use_coverage=True), SIZE
    )
    values = normal(BATCH, POSITIONS, MEMORY_DEPTH)
    memory = cell.prepare_memory(values)
    if isinstance(state, tuple):
        given = np.zeros(state, "float32")
    elif isinstance(state, dict):
        given = {name: np.zeros(shape, "float32") for name, shape in state.items()}
    else:
        given = [np.zeros(shape, "float32") for shape in state]
    with pytest.raises(ValueError, match=message):
        cell.initial_state(memory, given)
    with pytest.raises(ValueError, match=r"Expected: .*Received: "):
        AttentionRNN(cell)(normal(BATCH, STEPS, DEPTH), values, initial_state=given)
    with pytest.raises(ValueError, match=r"Expected: names and depths {attentional: 13, c_1: 7, coverage: any"):
        cell(normal(BATCH, DEPTH), given, memory)


def test_masks_of_a_memory():
    cell = cell_of()
    values = normal(BATCH, POSITIONS, MEMORY_DEPTH)
    with pytest.raises(ValueError, match=r"`mask`.*Expected: shape \(2, 5\).*Received: mask.shape=\(2, 3\)"):
        cell.prepare_memory(values, np.ones((2, 3), "bool"))
    with pytest.raises(ValueError, match=r"Expected: dtype bool. Received: dtype float32"):
        cell.prepare_memory(values, np.ones((2, 5), "float32"))
    with pytest.raises(ValueError, match=r"score='dot'.*Expected: query depth == value depth"):
        AttentionCell(RECURRENT["lstm"](), LuongAttention("dot")).prepare_memory(values)


def test_options_of_the_kernel_of_the_attentional_vector():
    cell = cell_of(
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.25),
        kernel_constraint=keras.constraints.NonNeg(),
    )
    cell.build((BATCH, DEPTH), (BATCH, POSITIONS, MEMORY_DEPTH))
    shape = (MEMORY_DEPTH + UNITS, SIZE)
    np.testing.assert_array_equal(numpy(cell.attentional.kernel), np.ones(shape))
    assert [float(loss) for loss in cell.losses] == [0.25 * shape[0] * shape[1]]
    again = AttentionCell.from_config(json.loads(json.dumps(cell.get_config())))
    assert again.get_config() == cell.get_config()
    assert isinstance(again.attentional.kernel_constraint, keras.constraints.NonNeg)
    config = cell_of().get_config()
    assert (
        config.pop("kernel_initializer") is config.pop("kernel_regularizer") is config.pop("kernel_constraint") is None
    )
    old = AttentionCell.from_config(config)  # of a version without these
    assert isinstance(old.attentional.kernel_initializer, keras.initializers.GlorotUniform)
    with pytest.raises(ValueError, match=r"`W_c`.*Expected: attentional_size set, .*Received: kernel_regularizer"):
        AttentionCell(RECURRENT["lstm"](), LuongAttention(), kernel_regularizer="l2")
    with pytest.raises(ValueError, match=r"^Could not interpret constraint identifier: nonsense$"):
        cell_of(kernel_constraint="nonsense")
