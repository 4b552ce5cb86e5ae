"""AttentionRNN: one run = step by step, for every cell, mechanism and style; masks; models; training."""

import keras
import numpy as np
import pytest

from keras_attention import AttentionCell, AttentionRNN, BahdanauAttention, LuongAttention
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
from tests.support.layer_contract import check_layer
from tests.support.parts import fast

# The same float32 operations in another order, through three steps of functions that saturate.
FLOAT32 = {"rtol": 1e-5, "atol": 2e-6}

# Every mechanism in the ways that differ for it, every cell, every kind of input feeding.
EVERY = [
    *(("gru", attention, name) for attention in ATTENTIONS for name in ("attention after", "input feeding")),
    *((recurrent, "coverage", name) for recurrent in RECURRENT for name in ("attention after", "bahdanau")),
    *(("lstm", "general", name) for name in WAYS),
    ("stacked", "several", "bahdanau, attentional"),
]

INPUTS, MEMORY = normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, MEMORY_DEPTH)
MEMORY_MASK = source_mask(3, 5)


def layer_of(recurrent="lstm", attention="general", name="input feeding", **kwargs):
    cell = AttentionCell(RECURRENT[recurrent](), ATTENTIONS[attention](), **way(name))
    return AttentionRNN(cell, **{"return_sequences": True, "return_state": True, **kwargs})


def run(layer, inputs=INPUTS, memory=MEMORY, memory_mask=MEMORY_MASK, **kwargs):
    outputs, weights, state = layer(inputs, memory, memory_mask, return_attention_scores="all", **kwargs)
    return numpy(outputs), numpy(weights), {key: numpy(tensor) for key, tensor in state.items()}


def check_same(found, expected):
    for one, other in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(one, other, **FLOAT32)
    assert set(found[2]) == set(expected[2])
    for key, tensor in expected[2].items():
        np.testing.assert_allclose(found[2][key], tensor, **FLOAT32, err_msg=key)


@pytest.mark.parametrize(("recurrent", "attention", "name"), EVERY)
def test_one_run_equals_steps(recurrent, attention, name):
    layer = layer_of(recurrent, attention, name)
    whole = run(layer)
    cell = layer.cell
    memory = cell.prepare_memory(MEMORY, MEMORY_MASK)
    state = cell.initial_state(memory)
    for t in range(STEPS):
        output, state, alignment = cell(INPUTS[:, t], state, memory)
        np.testing.assert_allclose(numpy(output), whole[0][:, t], **FLOAT32)
        np.testing.assert_allclose(numpy(alignment), whole[1].mean(axis=1)[:, t], **FLOAT32)
    check_same((whole[0], whole[1], {key: numpy(tensor) for key, tensor in state.items()}), whole)
    # A run in two parts, the second from where the first ended.
    first = run(layer, INPUTS[:, :1])
    second = run(layer, INPUTS[:, 1:], initial_state=first[2])
    joined = [
        np.concatenate(parts, axis=axis)
        for parts, axis in zip(zip(first[:2], second[:2], strict=True), (1, 2), strict=True)
    ]
    check_same((*joined, second[2]), whole)
    # The loop that TFLite holds.
    for part in (layer, *cell.attentions, *(one.head for one in cell.attentions if hasattr(one, "head"))):
        part.recurrence = "loop"
    check_same(run(layer), whole)


@pytest.mark.parametrize(
    ("attention", "name"),
    [(attention, name) for attention in ATTENTIONS for name in ("attention after", "bahdanau")],
)
def test_padding_and_batch_order_change_nothing(attention, name):
    layer = layer_of("stacked", attention, name)
    whole = run(layer)
    heads = whole[1].shape[1]
    turned = run(layer, INPUTS[::-1].copy(), MEMORY[::-1].copy(), MEMORY_MASK[::-1].copy())
    check_same([turned[0][::-1], turned[1][::-1], {key: tensor[::-1] for key, tensor in turned[2].items()}], whole)
    # Three more positions of memory, full of noise.
    longer = run(
        layer,
        memory=np.concatenate([MEMORY, 9.0 * normal(BATCH, 3, MEMORY_DEPTH)], axis=1),
        memory_mask=np.pad(MEMORY_MASK, ((0, 0), (0, 3))),
    )
    assert not longer[1][..., POSITIONS:].any()
    cut = {
        key: tensor[..., :POSITIONS] if tensor.shape[-1] == POSITIONS + 3 else tensor
        for key, tensor in longer[2].items()
    }
    check_same((longer[0], longer[1][..., :POSITIONS], cut), whole)
    # Masked steps, also in the middle: as if they were not there; zeros in their place.
    mask = np.array([[True, False, True, False, False], [False, True, True, True, False]])
    masked = run(layer, normal(BATCH, 5, DEPTH, seed=8), mask=mask)
    assert masked[1].shape == (BATCH, heads, 5, POSITIONS)
    assert not masked[0][~mask].any()
    assert not np.moveaxis(masked[1], 1, 2)[~mask].any()
    layer.return_sequences = False
    last = run(layer, normal(BATCH, 5, DEPTH, seed=8), mask=mask)[0]
    layer.return_sequences = True
    for row in range(BATCH):
        inputs = normal(BATCH, 5, DEPTH, seed=8)[row : row + 1, mask[row]]
        alone = run(layer, inputs, MEMORY[row : row + 1], MEMORY_MASK[row : row + 1])
        found = [masked[0][row : row + 1, mask[row]], masked[1][row : row + 1][:, :, mask[row]]]
        check_same((*found, {key: tensor[row : row + 1] for key, tensor in masked[2].items()}), alone)
        np.testing.assert_allclose(last[row], alone[0][0, -1], **FLOAT32)


@pytest.mark.parametrize("name", ["attention after", "input feeding", "bahdanau"])
def test_rows_without_steps_or_memory(name):
    layer = layer_of("lstm", "coverage", name)
    outputs, weights, _ = run(layer, memory_mask=np.array([[False] * POSITIONS, [True] * POSITIONS]))
    assert np.isfinite(outputs).all()
    assert not weights[0].any()
    start = layer.cell.initial_state(layer.cell.prepare_memory(MEMORY), [normal(BATCH, UNITS), normal(BATCH, UNITS)])
    masked = run(layer, mask=np.zeros((BATCH, STEPS), "bool"), initial_state=start)
    assert not masked[0].any()
    check_same((masked[0], masked[1], masked[2]), (masked[0], masked[1], {key: numpy(start[key]) for key in start}))
    layer.return_sequences = False
    assert not run(layer, mask=np.zeros((BATCH, STEPS), "bool"))[0].any()


@pytest.mark.parametrize("name", ["attention after", "bahdanau"])
def test_forms_of_the_initial_state(name):
    layer = layer_of("lstm", name=name)
    h, c = normal(BATCH, UNITS, seed=1), normal(BATCH, UNITS, seed=2)
    expected = run(layer, initial_state=[h, c])
    for form in ((h, c), [[h], [c]], {"h_0": h, "c_0": c}, {"c_0": c, "h_0": h}):
        check_same(run(layer, initial_state=form), expected)
    whole = layer.cell.initial_state(layer.cell.prepare_memory(MEMORY, MEMORY_MASK), [h, c])
    check_same(run(layer, initial_state=whole), expected)
    single = layer_of("gru", name=name)
    check_same(run(single, initial_state=h), run(single, initial_state={"h_0": h}))
    assert np.abs(run(single, initial_state=h)[0] - run(single)[0]).max() > 1e-3  # far above what float32 rounds, 1e-6


def test_results_that_are_asked_for():
    layer = layer_of(attention="several", return_state=False)
    outputs = layer(INPUTS, MEMORY)
    assert outputs.shape == (BATCH, STEPS, SIZE)
    outputs, weights = layer(INPUTS, MEMORY, return_attention_scores=True)
    assert weights.shape == (BATCH, STEPS, POSITIONS)
    _, every = layer(INPUTS, MEMORY, return_attention_scores="all")
    np.testing.assert_allclose(numpy(every).mean(axis=1), numpy(weights), **FLOAT32)
    layer.return_sequences = False
    np.testing.assert_array_equal(numpy(layer(INPUTS, MEMORY)), numpy(outputs)[:, -1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones((BATCH, STEPS), "float32")}, r"`mask`.*Expected: dtype bool. Received: dtype float32"),
        ({"mask": np.ones((BATCH, 2), "bool")}, r"`mask`.*Expected: shape \(2, 3\).*Received: mask.shape=\(2, 2\)"),
        (
            {"memory_mask": np.ones((BATCH, STEPS), "bool")},
            r"`memory_mask`.*Expected: shape \(2, 5\).*Received.*\(2, 3\)",
        ),
        ({"memory_mask": np.ones((BATCH, POSITIONS), "int32")}, r"`memory_mask`.*Received: dtype int32"),
        ({"return_attention_scores": "al"}, r"return_attention_scores in \(True, False, 'all'\). Received: 'al'"),
        ({"initial_state": np.ones((BATCH, UNITS), "float32")}, r"Expected: 2 tensors, \['h_0', 'c_0'\]. Received: 1"),
    ],
)
def test_call_arguments_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        layer_of()(INPUTS, MEMORY, **arguments)


@pytest.mark.parametrize(
    ("recurrent", "attention", "name"),
    [
        ("simple", "general", "attention after"),
        ("stacked", "coverage", "input feeding"),
    ],
)
def test_layer_contract(recurrent, attention, name, tmp_path):
    def make(dtype=None, **kwargs):
        with_dtype(dtype)
        try:
            cell = AttentionCell(RECURRENT[recurrent](), ATTENTIONS[attention](), **way(name))
            return AttentionRNN(cell, return_sequences=True, **kwargs)
        finally:
            with_dtype(None)

    # TensorFlow has no QR in float16 and bfloat16, which the orthogonal initializer of Keras' own cells asks for.
    check_layer(
        make,
        lambda layer, tensors: layer(tensors[0], tensors[1]),
        [INPUTS, MEMORY],
        tmp_path,
        dtypes=("mixed_float16",),
    )


def with_dtype(dtype):
    keras.config.set_dtype_policy(dtype or "float32")


def model_of(layer, lengths=(STEPS, POSITIONS)):
    inputs, memory = (
        keras.Input((lengths[0], DEPTH), name="inputs"),
        keras.Input((lengths[1], MEMORY_DEPTH), name="memory"),
    )
    mask = keras.Input((lengths[1],), dtype="bool", name="memory_mask")
    outputs = layer(inputs, memory, mask)
    return keras.Model({"inputs": inputs, "memory": memory, "memory_mask": mask}, outputs)


BATCH_OF_MODEL = {"inputs": INPUTS, "memory": MEMORY, "memory_mask": MEMORY_MASK}


@pytest.mark.parametrize("how", fast(["eager", "graph", "xla"], "graph"))
def test_a_functional_model_trains_and_is_saved(how, tmp_path):
    """Dropout of all three kinds, with input feeding: what is random in one step must not reach the next."""
    if how == "xla" and keras.backend.backend() == "torch":
        pytest.skip("Keras compiles torch by another compiler, which a machine need not have")
    cells = [keras.layers.LSTMCell(UNITS, dropout=0.3, recurrent_dropout=0.2)]
    attentions = [LuongAttention(alignment="monotonic", dropout=0.2, sigmoid_noise=0.5)]
    if how == "eager":  # costs nothing to compile
        cells.insert(0, keras.layers.GRUCell(5, dropout=0.2))
        attentions.append(BahdanauAttention(use_coverage=True, dropout=0.2))
    cell = AttentionCell(cells, attentions, attentional_size=SIZE)
    layer = AttentionRNN(cell, return_sequences=True, dropout=0.3)
    # XLA needs to know how many steps there are; without it, lengths are free.
    model = model_of(layer, (STEPS, POSITIONS) if how == "xla" else (None, None))
    start = numpy(model(BATCH_OF_MODEL))
    np.testing.assert_array_equal(numpy(model(BATCH_OF_MODEL)), start)
    first, second = (numpy(model(BATCH_OF_MODEL, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3  # far above what float32 rounds, 1e-6
    model.compile("adam", "mse", run_eagerly=how == "eager", jit_compile=how == "xla")
    for _ in range(2):
        history = model.fit(BATCH_OF_MODEL, np.zeros((BATCH, STEPS, SIZE)), epochs=2, batch_size=BATCH, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
    expected = numpy(model(BATCH_OF_MODEL))
    assert np.abs(expected - start).max() > 1e-4  # far above what float32 rounds, 1e-6
    if how == "graph":  # compiled, sums are taken in another order
        # As said above, in float32.
        np.testing.assert_allclose(model.predict(BATCH_OF_MODEL, verbose=0), expected, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded(BATCH_OF_MODEL)), expected)
    copy = keras.models.model_from_json(model.to_json())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(numpy(copy(BATCH_OF_MODEL)), expected)


def test_masks_come_from_an_embedding():
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(23, MEMORY_DEPTH, mask_zero=True)
    layer = layer_of("gru", return_state=False)
    model = keras.Model([target, source], layer(embedding(target), embedding(source)))
    words, positions = np.array([[5, 3, 0], [7, 2, 4]]), np.array([[5, 6, 7, 0, 0], [8, 9, 4, 5, 6]])
    outputs = numpy(model([words, positions]))
    explicit = layer(embedding(words), embedding(positions), positions != 0, mask=words != 0)
    np.testing.assert_allclose(outputs, numpy(explicit), **FLOAT32)
    assert not outputs[0, 2].any()
    assert outputs[1, 2].all()


def test_states_are_inputs_and_outputs_of_a_model():
    layer = layer_of("list", "several", "bahdanau")
    inputs, memory = keras.Input((None, DEPTH)), keras.Input((None, MEMORY_DEPTH))
    states = [keras.Input((size,)) for size in (3, 5, UNITS, UNITS)]
    model = keras.Model([inputs, memory, *states], layer(inputs, memory, initial_state=states))
    given = [normal(BATCH, size, seed=size) for size in (3, 5, UNITS, UNITS)]
    outputs, state = model([INPUTS, MEMORY, *given])
    expected = layer(INPUTS, MEMORY, initial_state=given)
    np.testing.assert_allclose(numpy(outputs), numpy(expected[0]), **FLOAT32)
    for key, tensor in expected[1].items():
        np.testing.assert_allclose(numpy(state[key]), numpy(tensor), **FLOAT32, err_msg=key)


def test_mixed_precision_trains():
    with_dtype("mixed_float16")
    try:
        layer = layer_of("lstm", "coverage", return_state=False)
        model = model_of(layer)
        model.compile("adam", "mse")
        width = model.output_shape[-1]
        history = model.fit(BATCH_OF_MODEL, np.zeros((BATCH, STEPS, width)), epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        assert keras.backend.standardize_dtype(model(BATCH_OF_MODEL).dtype) == "float16"
        assert keras.backend.standardize_dtype(layer.cell.cell.kernel.dtype) == "float32"
    finally:
        with_dtype(None)


@pytest.mark.parametrize("name", ["attention after", "input feeding", "bahdanau"])
def test_output_dropout(name):
    """It drops outputs, not weights; with input feeding, what is fed back too."""
    layer = layer_of("gru", name=name, dropout=0.5)
    outputs, weights, state = run(layer, training=True)
    share = (outputs == 0.0).mean()
    assert 0.2 < share < 0.8  # of 42 to 78 numbers: five standard deviations to either side
    assert weights.all(where=np.broadcast_to(MEMORY_MASK[:, None, None], weights.shape))
    if name == "input feeding":
        np.testing.assert_array_equal(state["attentional"], outputs[:, -1])


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_options_of_kernels_hold_in_training(recurrent, tmp_path):
    """Of every part: recurrent cell, attention, attentional vector. In the loss, after a step, and when saved."""
    penalty, norm = keras.regularizers.L2(0.125), keras.constraints.MaxNorm(0.5)
    options = {"kernel_initializer": "ones", "kernel_regularizer": penalty, "kernel_constraint": norm}
    cell = AttentionCell(RECURRENT[recurrent](), LuongAttention(**options), SIZE, **options)
    layer = AttentionRNN(cell, return_sequences=True)
    tensors = [keras.Input((STEPS, DEPTH)), keras.Input((POSITIONS, MEMORY_DEPTH))]
    model = keras.Model(tensors, layer(*tensors))
    error = np.square(numpy(layer(INPUTS, MEMORY))).mean()
    kernels = UNITS * MEMORY_DEPTH + (MEMORY_DEPTH + UNITS) * SIZE
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    target = np.zeros((BATCH, STEPS, SIZE), "float32")
    history = model.fit([INPUTS, MEMORY], target, batch_size=BATCH, verbose=0).history
    np.testing.assert_allclose(history["loss"], [error + 0.125 * kernels], rtol=1e-5)  # as `FLOAT32`
    for kernel in (cell.attentions[0].kernel, cell.attentional.kernel):
        np.testing.assert_allclose(np.linalg.norm(numpy(kernel), axis=0), 0.5, rtol=1e-5)  # Keras adds 1e-7
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].get_config() == layer.get_config()
    assert [float(loss) for loss in loaded.losses] == [float(loss) for loss in model.losses]
    np.testing.assert_array_equal(numpy(loaded([INPUTS, MEMORY])), numpy(model([INPUTS, MEMORY])))
