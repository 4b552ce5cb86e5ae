"""Laws of every attention mechanism: stepping, padding, batch order, masks, gathered windows, precision, noise."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import LuongAttention
from tests.support import mechanisms
from tests.support.gradients import gradient
from tests.support.mechanisms import FLOAT32, LAWFUL, POSITIONS, STEPS, assert_same, attend, inputs, make, numpy

WINDOWED = {
    name: LAWFUL[name]
    for name in LAWFUL
    if "local" in name and ("scaled-general" in name or "normalized_additive" in name or "scaled-dot" in name)
}
"""Windows of one score of each kind: keys of the memory, keys in a hidden layer with coverage, no keys."""

LONG = [name for name in LAWFUL if "local" in name and "-softmax" in name and "coverage" not in name]
HUGE = [
    name
    for name in LAWFUL
    if ("scaled-dot" in name or "scaled-additive" in name) and "local_m" not in name and "coverage" not in name
]
LOCAL_P = [name for name in LAWFUL if "local_p-softmax" in name]


@pytest.mark.parametrize("name", LAWFUL)
def test_stepping_with_cached_keys_gives_the_same_numbers(name):
    layer = make(LAWFUL[name])
    query, value, mask = inputs(LAWFUL[name])
    whole = attend(layer, query, value, mask)
    key, state = layer.project_keys(value), layer.initial_state(value)
    contexts, weights = [], []
    # One query, and two at once: any cut of the queries is the same walk.
    for first, last in ((0, 1), (1, STEPS)):
        arguments = {"key": key, "value_mask": mask, "return_attention_scores": True, "return_state": True}
        context, alignment, state = layer(query[:, first:last], value, state=state, **arguments)
        contexts.append(numpy(context))
        weights.append(numpy(alignment))
    stepped = {part: numpy(tensor) for part, tensor in state.items()}
    assert_same((np.concatenate(contexts, axis=1), np.concatenate(weights, axis=1), stepped), whole)


@pytest.mark.parametrize("name", LAWFUL)
def test_longer_padding_changes_nothing_and_the_batch_order_neither(name):
    layer = make(LAWFUL[name])
    query, value, mask = inputs(LAWFUL[name])
    mask[1, 6] = False
    plain = attend(layer, query, value, mask)
    order, padding = np.array([1, 0]), ((0, 0), (0, 4))
    junk = np.pad(value, (*padding, (0, 0)), constant_values=100.0)[order]
    context, weights, state = attend(layer, query[order], junk, np.pad(mask, padding)[order])
    state = {part: tensor[:, :POSITIONS] if tensor.ndim > 1 else tensor for part, tensor in state.items()}
    expected = (plain[0][order], plain[1][order], {part: tensor[order] for part, tensor in plain[2].items()})
    assert_same((context, weights[:, :, :POSITIONS], state), expected)
    assert not weights[:, :, POSITIONS:].any()


@pytest.mark.parametrize("name", LAWFUL)
def test_a_wholly_masked_row_is_zero_with_a_finite_gradient(name):
    layer = make(LAWFUL[name])
    query, value, mask = inputs(LAWFUL[name])
    mask[0] = False

    def loss(query):
        context, weights = layer(query, value, value_mask=mask, return_attention_scores=True)
        found.append((numpy(ops.stop_gradient(context)), numpy(ops.stop_gradient(weights))))
        return ops.sum(ops.square(context))

    found = []
    slopes = gradient(loss, query)
    assert np.isfinite(slopes).all()
    assert not slopes[0].any()
    if keras.backend.backend() != "jax":  # where the arrays inside of a gradient are abstract
        context, weights = found[0]
        assert not context[0].any()
        assert not weights[0].any()
        assert weights[1].any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", HUGE)
def test_huge_scores_in_low_precision_stay_finite(name, dtype):
    layer = make(LAWFUL[name], dtype=dtype)
    query, value, mask = inputs(LAWFUL[name])
    mask[0] = False
    # Dot scores of +- 1e4, far from float16's largest, 65504, and far past where its exp overflows, at 11.
    context, weights, _ = attend(layer, query * 60.0, value * 60.0, mask)
    assert np.isfinite(context).all()
    assert not weights[0].any()
    slopes = gradient(
        lambda q: ops.sum(ops.cast(layer(q, value * 60.0, value_mask=mask), "float32") * 1e-3), query * 60.0
    )
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("name", WINDOWED)
def test_a_gathered_window_is_a_masked_one(name, monkeypatch):
    layer = make(WINDOWED[name])
    query, value, mask = inputs(WINDOWED[name])
    query_mask = np.ones(query.shape[:2], bool)
    query_mask[1, 1] = False
    found = {}
    for gathers in (False, True):
        monkeypatch.setattr(LuongAttention, "_gathers", lambda *_, gathers=gathers: gathers)
        # Coverage needs the weights of one query before the next one's.
        steps = range(STEPS) if layer.use_coverage else [slice(None)]
        state, parts = None, []
        for step in steps:
            cut = slice(step, step + 1) if isinstance(step, int) else step
            parts.append(attend(layer, query[:, cut], value, mask, state=state, query_mask=query_mask[:, cut]))
            state = parts[-1][2]
        contexts, weights = (np.concatenate([part[n] for part in parts], axis=1) for n in (0, 1))
        found[gathers] = (contexts, weights, state)
        alone = layer(query[:, :1], value, value_mask=mask)  # without weights to spread over the source
        np.testing.assert_allclose(numpy(alone), contexts[:, :1], **FLOAT32)
    assert_same(found[True], found[False])


def test_windows_are_gathered_where_the_source_is_long():
    long = np.zeros((2, 97, mechanisms.DEPTH), "float32")
    for score in ("dot", "additive"):
        layer = LuongAttention(score, window="local_m", half_width=1)
        assert layer._gathers(long[:, :1], long)
        assert layer._gathers(long[:, :5], long)
        assert not layer._gathers(long[:, :5], long[:, :6])
        assert not layer._gathers(long[:, :1], long[:, :3])
    assert not LuongAttention("location", max_source_length=97, window="local_m")._gathers(long[:, :1], long)
    assert not LuongAttention("dot")._gathers(long[:, :1], long)


@pytest.mark.parametrize("name", LONG)
def test_a_long_source_at_once_and_query_by_query(name):
    layer = make(LAWFUL[name] | ({"max_source_length": 43} if "location" in name else {}))
    query, value, mask = inputs(LAWFUL[name], positions=43)
    mask[0, :31] = True
    assert layer._gathers(query, value) == ("location" not in name)
    whole, state = attend(layer, query, value, mask), None
    # p_t is 43 times a float32 share, so off by 1e-5 at most, and the exponent of a Gaussian of sigma 0.5 changes by
    # 4 |s - p_t| <= 8 times that.
    tolerance = {"rtol": 1e-4, "atol": 1e-5}
    for t in range(STEPS):
        step = attend(layer, query[:, t : t + 1], value, mask, state=state)
        state = step[2]
        np.testing.assert_allclose(step[0][:, 0], whole[0][:, t], **tolerance)
        np.testing.assert_allclose(step[1][:, 0], whole[1][:, t], **tolerance)
    assert_same(whole, mechanisms.expect(layer, query, value, mask), **tolerance)


@pytest.mark.parametrize("name", LOCAL_P)
def test_local_p_is_not_normalised_again(name):
    layer = make(LAWFUL[name])
    query, value, mask = inputs(LAWFUL[name])
    sums = attend(layer, query, value, mask)[1].sum(axis=-1)
    assert (sums > 0).all()
    assert (sums < 1).all()


@pytest.mark.parametrize("steps", [1, 3])  # gathered, and masked
@pytest.mark.parametrize("window", ["local_p", "local_m"])
def test_windows_are_clamped_to_the_last_real_position(window, steps):
    layer = LuongAttention("dot", window=window, half_width=2)
    value, query = np.zeros((1, 11, 3), "float32"), np.ones((1, steps, 3), "float32")
    mask = np.arange(11)[None] < 7
    layer.build(query.shape, value.shape)
    state = None
    if window == "local_p":
        layer.position_kernel.assign(np.eye(3) * 9.0)
        layer.position_vector.assign(np.full(3, 50.0))  # sigmoid(150) is 1 in float32: p_t = S = 7
        shares = np.exp(-((np.array([4.0, 5.0, 6.0]) - 7.0) ** 2) / 2) / 3  # sigma = D / 2 = 1; a softmax of equals
    else:
        state, shares = {"step": np.array([100], "int32")}, np.full(3, 1 / 3)
    weights = attend(layer, query, value, mask, state=state)[1]
    np.testing.assert_allclose(weights[0], np.tile([0, 0, 0, 0, *shares, 0, 0, 0, 0], (steps, 1)), **FLOAT32)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_gaussian_keeps_its_gradient_where_the_window_is_clamped(steps):
    layer = LuongAttention("dot", window="local_p", half_width=2)
    value, query = np.ones((1, 11, 3), "float32"), np.ones((1, steps, 3), "float32")
    layer.build(query.shape, value.shape)
    layer.position_kernel.assign(np.eye(3))
    layer.position_vector.assign(np.full(3, 5.0))  # p_t = 11 sigmoid(11.4) = 10.9999: beyond the last position, 10

    def loss(query):
        return ops.sum(layer(query, value))

    slopes = gradient(loss, query)
    share = 1 / (1 + np.exp(-15 * np.tanh(1.0)))
    centre, places = 11 * share, np.array([8.0, 9.0, 10.0])
    gaussian = np.exp(-((places - centre) ** 2) / 2) / 3
    # d/dp of the Gaussian, times dp/dh = S p' v_p tanh'; the sum of 3 equal coordinates of the values
    expected = 3 * (gaussian * (places - centre)).sum() * 11 * share * (1 - share) * 5 * (1 - np.tanh(1.0) ** 2)
    assert expected < -1e-5  # not lost: its tolerance is relative
    # share * (1 - share) is 1.1e-5 and taken from a float32 next to 1, whose spacing is 6e-8.
    np.testing.assert_allclose(slopes, expected, rtol=2e-2)


@pytest.mark.parametrize("score", ["dot", "additive"])
def test_a_masked_query_gives_zeros(score):
    layer = make(mechanisms.arguments_of(score))
    query, value, mask = inputs({"score": score})
    query_mask = np.arange(STEPS) < np.array([[2], [3]])
    context, weights, _ = attend(layer, query, value, mask, query_mask=query_mask)
    assert not context[~query_mask].any()
    assert not weights[~query_mask].any()
    np.testing.assert_allclose(weights[query_mask].sum(axis=-1), 1.0, **FLOAT32)


@pytest.mark.parametrize(
    "name", [name for name in LAWFUL if "scaled-cosine" in name or "normalized_additive-local_m-softmax" in name]
)
def test_the_state_stays_in_float32(name):
    for dtype in ("mixed_float16", "bfloat16"):
        layer = make(LAWFUL[name], dtype=dtype)
        query, value, mask = inputs(LAWFUL[name])
        state = None
        for _ in range(2):
            arguments = {"return_attention_scores": True, "return_state": True}
            context, weights, state = layer(query, value, value_mask=mask, state=state, **arguments)
            types = {part: keras.backend.standardize_dtype(tensor.dtype) for part, tensor in state.items()}
            assert types == {part: "int32" if part == "step" else "float32" for part in layer.state_names}
            low = dtype.removeprefix("mixed_")
            assert {keras.backend.standardize_dtype(tensor.dtype) for tensor in (context, weights)} == {low}


def test_many_steps_of_a_monotonic_walk_survive_low_precision():
    layer = LuongAttention("dot", alignment="monotonic", dtype="mixed_bfloat16")
    query, value = np.zeros((1, 1, 3), "float32"), np.zeros((1, 401, 3), "float32")
    layer.build(query.shape, value.shape)
    layer.score_bias.assign(np.log(1 / 9))  # p = 0.1 at every position
    weights, state = attend(layer, query, value)[1:]
    # 1 - 0.9 ** 401: bfloat16 would keep 3 digits of each of the products, the state keeps them all. The bias itself is
    # float32.
    assert state["alignment"].sum() == pytest.approx(1.0, abs=1e-5)
    assert weights.sum() == pytest.approx(1.0, rel=1e-2)  # each weight is rounded to 8 bits


def test_a_hard_row_that_chooses_nothing_is_zero_and_the_next_goes_on():
    layer = LuongAttention("dot", alignment="hard_monotonic")
    value = np.eye(5, dtype="float32")[None]
    # Position 3 first; then only positions that are passed; then nothing; then 4.
    query = np.array([[[-1, -1, -1, 1, -1], [1, 1, 1, -1, -1], [-1] * 5, [1, -1, -1, -1, 1]]], "float32")
    for first, last in ((0, 4), (0, 1)):
        state, rows = None, []
        for start in range(first, 4, last):
            _, weights, state = attend(layer, query[:, start : start + last], value, state=state)
            rows.extend(weights[0])
        np.testing.assert_array_equal(rows, [np.eye(5)[3], np.zeros(5), np.zeros(5), np.eye(5)[4]])
        np.testing.assert_array_equal(state["alignment"][0], np.eye(5)[4])


@pytest.mark.parametrize("name", ["dot-local_m-softmax", "additive-global-softmax-coverage", "general-global-softmax"])
def test_dropout_is_for_training_alone(name):
    arguments = mechanisms.EVERY[name]
    layer, quiet = make(arguments | {"dropout": 0.5, "seed": 5}), make(arguments)
    query, value, mask = inputs(arguments)
    plain = attend(quiet, query, value, mask)
    assert_same(attend(layer, query, value, mask), plain)
    noisy = attend(layer, query, value, mask, training=True)
    assert np.abs(noisy[0] - plain[0]).max() > 1e-3  # far above what float32 rounds, 1e-6
    assert_same((plain[0], *noisy[1:]), plain)  # weights and state are those before dropout
    again = attend(layer, query, value, mask, training=True)
    assert np.abs(noisy[0] - again[0]).max() > 1e-3  # far above what float32 rounds, 1e-6
    # One query: gathered, with the factors that were drawn for the whole source.
    noise = layer.draw_noise(query[:, :1], value)
    context, weights, _ = attend(layer, query[:, :1], value, mask, noise=noise, training=True)
    np.testing.assert_allclose(context, (weights * numpy(noise["dropout"])) @ value, **FLOAT32)


def test_noise_of_the_energies_is_for_training_alone():
    arguments = mechanisms.EVERY["general-global-monotonic"]
    layer, quiet = make(arguments | {"sigmoid_noise": 2.0, "seed": 5}), make(arguments)
    query, value, mask = inputs(arguments)
    plain = attend(quiet, query, value, mask)
    assert_same(attend(layer, query, value, mask), plain)
    noisy = attend(layer, query, value, mask, training=True)
    assert np.abs(noisy[1] - plain[1]).max() > 1e-2  # far above what float32 rounds, 1e-6
    noise = {"energy": np.zeros((*query.shape[:2], POSITIONS), "float32")}
    assert_same(attend(layer, query, value, mask, noise=noise, training=True), plain)


def test_the_hard_alignment_is_the_soft_one_of_certain_probabilities():
    soft, hard = (make(mechanisms.EVERY[f"scaled-dot-global-{name}"]) for name in ("monotonic", "hard_monotonic"))
    query, value, mask = inputs({"score": "dot"})
    for layer in (soft, hard):
        layer.scale.assign(1e4)  # every sigmoid is 0 or 1
    found, expected = attend(soft, query, value, mask), attend(hard, query, value, mask)
    # The soft row that chooses nothing leaves nothing to the rows after it; up to there they are one.
    whole = np.cumprod(expected[1].any(axis=-1), axis=1).astype(bool)
    assert whole.any()
    np.testing.assert_allclose(found[1][whole], expected[1][whole], **FLOAT32)


@pytest.mark.parametrize(
    "arguments",
    [{"alignment": "monotonic"}, {"alignment": "hard_monotonic"}, {"window": "local_m", "half_width": 1}],
    ids=lambda arguments: arguments.get("alignment", "local_m"),
)
def test_masked_queries_leave_the_state_as_it_was(arguments):
    generator = np.random.default_rng(3)
    query, value = (generator.normal(size=(2, count, 7)).astype("float32") for count in (5, 11))
    layer = LuongAttention("dot", **arguments)
    _, expected = layer(query[:, :3], value, return_state=True)
    mask = np.array([[True] * 3 + [False] * 2] * 2)
    _, state = layer(query, value, query_mask=mask, return_state=True)
    for name, tensor in expected.items():  # the same steps; matrix products round by their shapes
        # Float32.
        np.testing.assert_allclose(ops.convert_to_numpy(state[name]), ops.convert_to_numpy(tensor), rtol=2e-6)
