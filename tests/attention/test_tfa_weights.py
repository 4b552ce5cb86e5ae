"""Importers for the weights of `tfa.seq2seq`: an independent NumPy form of Addons against our layers, step by step."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import (
    AttentionCell,
    AttentionRNN,
    BahdanauAttention,
    LuongAttention,
    length_mask,
    load_tfa_attention_layer,
    load_tfa_bahdanau,
    load_tfa_luong,
)
from tests.support import addons

BATCH, STEPS, POSITIONS, INPUT, UNITS, VALUE, HIDDEN, SIZE = 2, 5, 7, 3, 11, 13, 17, 19
LENGTHS = np.array([POSITIONS, 4])

# The reference runs in float64. Sums of at most 33 products of numbers near 1 round to about 1e-6 in float32, and five
# steps of a recurrence hand that on.
TOLERANCE = {"rtol": 1e-5, "atol": 5e-6}


def luong_arrays(rng, scale=False, bias=None):
    arrays = {"memory_kernel": rng.normal(size=(VALUE, UNITS)) / 3}
    if scale:
        arrays["attention_g"] = np.array(0.7)
    if bias is not None:
        arrays["attention_score_bias"] = np.array(bias)
    return arrays


def bahdanau_arrays(rng, normalize=False, bias=None):
    arrays = {
        "query_kernel": rng.normal(size=(UNITS, HIDDEN)),
        "memory_kernel": rng.normal(size=(VALUE, HIDDEN)),
        "attention_v": rng.normal(size=HIDDEN),
    }
    if normalize:
        arrays |= {"attention_g": np.array(1.3), "attention_b": rng.normal(size=HIDDEN)}
    if bias is not None:
        arrays["attention_score_bias"] = np.array(bias)
    return arrays


def luong_pair(rng, probability, scale=False):
    """Our layer, its loader, Addons' score and arrays."""
    arrays = luong_arrays(rng, scale, BIAS.get(probability))
    return (
        LuongAttention("general", use_scale=scale, alignment=ALIGNMENT[probability]),
        load_tfa_luong,
        addons.luong_score,
        arrays,
    )


def bahdanau_pair(rng, probability, normalize=False):
    arrays = bahdanau_arrays(rng, normalize, BIAS.get(probability))
    layer = BahdanauAttention(HIDDEN, normalize, alignment=ALIGNMENT[probability])
    return layer, load_tfa_bahdanau, addons.bahdanau_score, arrays


BIAS = {"recursive": -0.4, "hard": 3.0}  # hard: some position is chosen in nearly every step
ALIGNMENT = {"softmax": "softmax", "hardmax": "hardmax", "recursive": "monotonic", "hard": "hard_monotonic"}
MECHANISMS = [
    (make, probability, option)
    for make in (luong_pair, bahdanau_pair)
    for probability in addons.PROBABILITY
    for option in (False, True)
]


@pytest.fixture(name="rng")
def make_rng():
    return np.random.default_rng(7)


@pytest.fixture(name="values")
def make_values(rng):
    return rng.normal(size=(BATCH, POSITIONS, VALUE))


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def built(layer):
    layer.build((None, None, UNITS), (None, None, VALUE))
    return layer


@pytest.mark.parametrize(("make", "probability", "option"), MECHANISMS)
def test_mechanisms(make, probability, option, rng, values):
    """Alignments and contexts over several queries, each from the alignment before where it is monotonic."""
    layer, loader, score, arrays = make(rng, probability, option)
    loader(built(layer), **arrays)
    queries = rng.normal(size=(BATCH, STEPS, UNITS))
    contexts, weights = layer(
        queries.astype("float32"),
        values.astype("float32"),
        value_mask=length_mask(LENGTHS, POSITIONS),
        return_attention_scores=True,
    )
    for b, length in enumerate(LENGTHS):
        mechanism = addons.Mechanism(score, arrays, probability, values[b, :length])
        alignment = mechanism.first
        for t in range(STEPS):
            alignment, context = mechanism(queries[b, t], alignment)
            np.testing.assert_allclose(numpy(weights)[b, t, :length], alignment, **TOLERANCE)
            np.testing.assert_allclose(numpy(contexts)[b, t], context, **TOLERANCE)
            if not alignment.any():  # a hard step that chooses nothing: Addons' later steps are zero too; ours go on
                break
        assert t > 0
    assert not numpy(weights)[1, :, LENGTHS[1] :].any()


@pytest.fixture(name="lstm")
def make_lstm(rng):
    """`lstm(depth)` gives kernel, recurrent kernel and bias of an LSTM cell."""
    return lambda depth: [
        rng.normal(size=shape) / 2 for shape in [(depth, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)]
    ]


def run(cell, inputs, h, c, values):
    """Ours over all steps: outputs, alignments by mechanism `(B, M, T, S)`; checked against single steps."""
    rnn = AttentionRNN(cell, return_sequences=True)
    mask = length_mask(LENGTHS, POSITIONS)
    inputs, h, c, values = (array.astype("float32") for array in (inputs, h, c, values))
    outputs, alignments = rnn(inputs, values, memory_mask=mask, initial_state=[h, c], return_attention_scores="all")
    memory = cell.prepare_memory(values, mask)
    state = cell.initial_state(memory, [h, c])
    for t in range(STEPS):
        output, state, alignment = cell(inputs[:, t], state, memory)
        # The same float32 sums in another order.
        np.testing.assert_allclose(numpy(output), numpy(outputs)[:, t], rtol=1e-5, atol=1e-6)
        # Likewise.
        np.testing.assert_allclose(numpy(alignment), numpy(alignments)[:, :, t].mean(1), rtol=1e-5, atol=1e-6)
    return numpy(outputs), numpy(alignments)


def prepare(cell, pairs, weights, kernels):
    """Builds our cell and loads Addons' weights."""
    cell.build((None, INPUT), (None, None, VALUE))
    for layer, loader, _, arrays in pairs:
        loader(layer, **arrays)
    cell.cell.set_weights(weights)
    if kernels[0] is not None:
        load_tfa_attention_layer(cell, kernels if len(kernels) > 1 else kernels[0])


def compare(cell, pairs, probabilities, weights, kernels, rng, values, **arguments):
    """Our cell against `wrapper`, outputs and alignments of every mechanism, over padded sources."""
    inputs = rng.normal(size=(BATCH, STEPS, INPUT))
    h, c = rng.normal(size=(2, BATCH, UNITS))
    prepare(cell, pairs, weights, kernels)
    outputs, alignments = run(cell, inputs, h, c, values)
    for b, length in enumerate(LENGTHS):
        mechanisms = [
            addons.Mechanism(score, arrays, probability, values[b, :length])
            for (_, _, score, arrays), probability in zip(pairs, probabilities, strict=True)
        ]
        expected, aligned = addons.wrapper(inputs[b], h[b], c[b], weights, mechanisms, kernels, **arguments)
        np.testing.assert_allclose(outputs[b], expected, **TOLERANCE)
        np.testing.assert_allclose(alignments[b, ..., :length], aligned.transpose(1, 0, 2), **TOLERANCE)


@pytest.mark.parametrize("make", [luong_pair, bahdanau_pair])
@pytest.mark.parametrize("probability", ["softmax", "recursive"])
@pytest.mark.parametrize("size", [SIZE, None])
def test_attention_wrapper(make, probability, size, rng, values, lstm):
    """`attention_layer_size` given or not."""
    pair = make(rng, probability)
    kernels = [None if size is None else rng.normal(size=(UNITS + VALUE, size)) / 4]
    cell = AttentionCell(keras.layers.LSTMCell(UNITS), pair[0], attentional_size=size, activation=None)
    compare(cell, [pair], [probability], lstm(INPUT + (size or VALUE)), kernels, rng, values)


def test_several_mechanisms(rng, values, lstm):
    """`attention_layer_size=[SIZE, 2]`: a layer for each, here blocks of one."""
    pairs = [luong_pair(rng, "softmax", True), bahdanau_pair(rng, "recursive", True)]
    kernels = [rng.normal(size=(UNITS + VALUE, size)) / 4 for size in (SIZE, 2)]
    layers = [pair[0] for pair in pairs]
    cell = AttentionCell(keras.layers.LSTMCell(UNITS), layers, attentional_size=SIZE + 2, activation=None)
    compare(cell, pairs, ["softmax", "recursive"], lstm(INPUT + SIZE + 2), kernels, rng, values)


def test_cell_input_fn(rng, values, lstm):
    pair, kernels = luong_pair(rng, "softmax"), [rng.normal(size=(UNITS + VALUE, INPUT)) / 4]
    cell = AttentionCell(
        keras.layers.LSTMCell(UNITS), pair[0], attentional_size=INPUT, activation=None, input_feeding=ops.add
    )
    compare(cell, [pair], ["softmax"], lstm(INPUT), kernels, rng, values, cell_input_fn=np.add)


def test_output_attention_false(rng, values, lstm):
    """The page's `CellOutput` is exactly that."""
    pair, kernels = bahdanau_pair(rng, "softmax"), [rng.normal(size=(UNITS + VALUE, SIZE)) / 4]
    cell = addons.page_code()["CellOutput"](
        keras.layers.LSTMCell(UNITS), pair[0], attentional_size=SIZE, activation=None
    )
    compare(cell, [pair], ["softmax"], lstm(INPUT + SIZE), kernels, rng, values, output_attention=False)


@pytest.mark.parametrize("size", [SIZE, None])
def test_bahdanau_style_is_output_attention_false_but_for_its_first_step(size, rng, values, lstm):
    """The page's table: other at step 1, the same where that is fed the same; alignments one step later."""
    pair = bahdanau_pair(rng, "softmax")
    kernel = None if size is None else rng.normal(size=(UNITS + VALUE, size)) / 4
    weights = lstm(INPUT + (size or VALUE))
    cell = AttentionCell(keras.layers.LSTMCell(UNITS), pair[0], size, activation=None, style="bahdanau")
    prepare(cell, [pair], weights, [kernel])
    inputs, (h, c) = rng.normal(size=(BATCH, STEPS, INPUT)), rng.normal(size=(2, BATCH, UNITS))
    outputs, alignments = run(cell, inputs, h, c, values)
    for b, length in enumerate(LENGTHS):
        mechanism = addons.Mechanism(pair[2], pair[3], "softmax", values[b, :length])
        first, context = mechanism(h[b], mechanism.first)
        fed = context if kernel is None else np.concatenate([h[b], context]) @ kernel
        for attention in (fed, None):
            expected, aligned = addons.wrapper(
                inputs[b], h[b], c[b], weights, [mechanism], [kernel], output_attention=False, attention=attention
            )
            assert np.allclose(outputs[b], expected, **TOLERANCE) == (attention is fed)
            if attention is fed:
                later = np.concatenate([first[None], aligned[:-1, 0]])
                np.testing.assert_allclose(alignments[b, 0, :, :length], later, **TOLERANCE)


# What does not fit.


def test_bad_luong(rng):
    arrays = luong_arrays(rng)
    with pytest.raises(ValueError, match=r"another score. Expected: .*'general'.* Received: LuongAttention .*'dot'"):
        load_tfa_luong(LuongAttention("dot"), **arrays)
    with pytest.raises(ValueError, match=r"no weights yet. Expected: .*build.* Received: built=False"):
        load_tfa_luong(LuongAttention("general"), **arrays)
    with pytest.raises(ValueError, match=r"`memory_kernel` .*Expected: shape \(13, 11\). Received: shape \(11, 13\)"):
        load_tfa_luong(built(LuongAttention("general")), arrays["memory_kernel"].T)
    with pytest.raises(
        ValueError, match=r"Expected: \['attention_g', 'memory_kernel'\]. Received: \['memory_kernel'\]"
    ):
        load_tfa_luong(built(LuongAttention("general", use_scale=True)), **arrays)
    with pytest.raises(ValueError, match=r"Expected: \['memory_kernel'\]. Received: \['attention_score_bias', 'mem"):
        load_tfa_luong(built(LuongAttention("general")), **arrays, attention_score_bias=0.0)
    with pytest.raises(ValueError, match=r"`attention_g` .*Expected: shape \(\). Received: shape \(1,\)"):
        load_tfa_luong(built(LuongAttention("general", use_scale=True)), **arrays, attention_g=[1.0])
    with pytest.raises(ValueError, match=r"position_kernel \(not in tfa\)"):
        load_tfa_luong(built(LuongAttention("general", window="local_p")), **arrays)


def test_bad_bahdanau(rng):
    arrays = bahdanau_arrays(rng)
    with pytest.raises(ValueError, match=r"another score. Expected: .*'additive'.* Received: .*'general'"):
        load_tfa_bahdanau(built(LuongAttention("general")), **arrays)
    with pytest.raises(ValueError, match=r"`attention_v` .*Expected: shape \(17,\). Received: shape \(17, 1\)"):
        load_tfa_bahdanau(built(BahdanauAttention(HIDDEN)), **{**arrays, "attention_v": arrays["attention_v"][:, None]})
    with pytest.raises(
        ValueError, match=r"Expected: \['attention_b', 'attention_g', .* Received: \['attention_v', 'me"
    ):
        load_tfa_bahdanau(built(BahdanauAttention(HIDDEN, normalize=True)), **arrays)
    with pytest.raises(ValueError, match=r"Expected: .*'coverage_vector \(not in tfa\)'.* Received: "):
        load_tfa_bahdanau(built(BahdanauAttention(HIDDEN, use_coverage=True)), **arrays)


def test_nothing_is_assigned_where_one_array_does_not_fit(rng):
    layer, arrays = built(BahdanauAttention(HIDDEN)), bahdanau_arrays(rng)
    before = layer.get_weights()
    with pytest.raises(ValueError, match=r"`attention_v` does not fit"):
        load_tfa_bahdanau(layer, **{**arrays, "attention_v": np.ones(3)})
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_attention_layer(rng):
    kernel = rng.normal(size=(UNITS + VALUE, SIZE))

    def make(size=SIZE, activation=None, build=True):
        cell = AttentionCell(keras.layers.LSTMCell(UNITS), LuongAttention("general"), size, activation)
        if build:
            cell.build((None, INPUT), (None, None, VALUE))
        return cell

    with pytest.raises(ValueError, match=r"Expected: .*attentional_size.* Received: attentional_size=None, built=True"):
        load_tfa_attention_layer(make(size=None), kernel)
    with pytest.raises(ValueError, match=r"Expected: .*built. Received: attentional_size=19, built=False"):
        load_tfa_attention_layer(make(build=False), kernel)
    with pytest.raises(ValueError, match=r"Expected: .*activation=linear. Received: activation=tanh"):
        load_tfa_attention_layer(make(activation="tanh"), kernel)
    for wrong, shown in (
        (kernel.T, r"\[\(19, 24\)\]"),
        (kernel[:, :2], r"\[\(24, 2\)\]"),
        ([kernel, kernel], r"\[\(24, 19\), \(24, 19\)\]"),
    ):
        with pytest.raises(ValueError, match=rf"Expected: 1 of shape \(24, A\).*19 columns.* Received: shapes {shown}"):
            load_tfa_attention_layer(make(), wrong)
    load_tfa_attention_layer(make(activation="tanh"), kernel, activation="tanh")
