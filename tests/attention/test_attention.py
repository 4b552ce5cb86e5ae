"""`LuongAttention` and `BahdanauAttention` against the NumPy reference and closed forms; what they refuse."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import BahdanauAttention, LuongAttention
from keras_attention.attention.choices import ALIGNMENTS, SCORES
from tests.support import mechanisms
from tests.support.gradients import gradient
from tests.support.mechanisms import EVERY, FLOAT32, assert_same, attend, expect, inputs, make, numpy

# Weights and inputs are numbers that both types hold, so that only the computation rounds. float16 keeps 11 bits:
# 5e-4 for each product, a few times that for sums of 17 and the softmax of their scores. bfloat16 keeps 8 bits.
LOW = {"float16": {"rtol": 1e-2, "atol": 5e-3}, "bfloat16": {"rtol": 8e-2, "atol": 4e-2}}

IN_LOW_PRECISION = (
    *(f"scaled-{score}-global-softmax" for score in mechanisms.SCORES if score != "normalized_additive"),
    "normalized_additive-global-softmax",
    "general-local_m-softmax",
    "dot-local_p-softmax",
    "scaled-additive-local_p-sparsemax",
    "cosine-global-sparsemax",
    "scaled-general-global-monotonic",
    "normalized_additive-global-monotonic",
    "concat-global-softmax-coverage",
    "additive-local_m-softmax-coverage",
)


def test_the_names_are_those_of_the_documentation():
    assert set(SCORES) == set(mechanisms.SCORES)
    assert set(ALIGNMENTS) == {*mechanisms.NORMALISERS, *mechanisms.MONOTONIC}


@pytest.mark.parametrize("name", EVERY)
def test_equals_the_reference(name):
    layer = make(EVERY[name])
    query, value, mask = inputs(EVERY[name])
    query_mask = np.ones(query.shape[:2], bool)
    query_mask[0, 0] = query_mask[1, 1] = False
    found = attend(layer, query, value, mask, query_mask=query_mask)
    assert_same(found, expect(layer, query, value, mask, query_mask=query_mask))
    assert found[1].any()


@pytest.mark.parametrize("name", [name for name in EVERY if "coverage" not in name and "scaled" not in name])
def test_a_causal_mask_equals_the_reference(name):
    layer = make(EVERY[name])
    query, value, mask = inputs(EVERY[name])
    found = attend(layer, query, value, mask, use_causal_mask=True)
    assert_same(found, expect(layer, query, value, mask, causal=True))
    later = np.arange(value.shape[1]) > np.arange(query.shape[1])[:, None]
    assert not found[1][:, later].any()


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", IN_LOW_PRECISION)
def test_low_precision_equals_the_reference(name, dtype):
    layer = make(EVERY[name], dtype=dtype)
    query, value, mask = inputs(EVERY[name], seed=1)
    assert_same(attend(layer, query, value, mask), expect(layer, query, value, mask), **LOW[dtype])
    context, weights = layer(query, value, value_mask=mask, return_attention_scores=True)
    assert {keras.backend.standardize_dtype(tensor.dtype) for tensor in (context, weights)} == {dtype}


BEYOND_FLOAT16 = {
    "dot": {"scale": 4.0},
    "scaled_dot": {},
    "general": {"kernel": np.eye(8)},
    "additive": {
        "query_kernel": np.zeros((8, 1009)),
        "key_kernel": np.full((8, 1009), 1 / 4096),
        "vector": [100] * 1009,
    },
    "location": {"kernel": np.tile([16.0, 64, 128, 32, 0, 0, 0], (8, 1))},
}


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
@pytest.mark.parametrize("window", [None, "local_m"])
@pytest.mark.parametrize("score", BEYOND_FLOAT16)
def test_scores_beyond_the_range_of_float16(score, window, dtype):
    """All scores pass 65504, and lie so far apart that the largest has the whole weight."""
    arguments = {"score": score, "window": window, "half_width": 1, "use_scale": "scale" in BEYOND_FLOAT16[score]}
    arguments |= {"units": 1009} if score == "additive" else {"max_source_length": 7} if score == "location" else {}
    layer = LuongAttention(**arguments, dtype=dtype)
    value = np.tile(np.array([[[64.0], [256.0], [128.0], [512.0]]], "float32"), (1, 1, 8))
    query = np.full((1, 1, 8), 256.0, "float32")
    layer.build(query.shape, value.shape)
    for weight in layer.weights:
        weight.assign(BEYOND_FLOAT16[score][weight.name])
    # A window about position 0 ends at 1.
    best = 1 if window else 2 if score == "location" else 3
    context, weights = layer(query, value, return_attention_scores=True)
    np.testing.assert_array_equal(numpy(weights)[0, 0], np.eye(4)[best])
    np.testing.assert_array_equal(numpy(context)[0, 0], value[0, best])
    slopes = gradient(lambda query: ops.sum(ops.cast(layer(query, value), "float32")), query)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_bahdanau_attention_is_the_additive_score(normalize):
    score = "normalized_additive" if normalize else "additive"
    layer = BahdanauAttention(units=17, normalize=normalize, window="local_p", half_width=2, use_coverage=True)
    query, value, mask = inputs({"score": score})
    layer.build(query.shape, value.shape)
    mechanisms.randomise(layer)
    assert_same(attend(layer, query, value, mask), expect(layer, query, value, mask))
    again = BahdanauAttention.from_config(layer.get_config())
    assert (again.score, again.get_config()) == (score, layer.get_config())


def test_first_values_of_the_weights():
    layer = LuongAttention("normalized_additive", units=16, alignment="monotonic", score_bias_init=-3.5)
    layer.build((2, 3, 5), (2, 7, 11))
    weights = mechanisms.weights_of(layer)
    assert (weights["factor"], weights["score_bias"]) == (0.25, -3.5)  # 1 / sqrt(16)
    assert not weights["bias"].any()
    scaled = LuongAttention("general", use_scale=True)
    scaled.build((2, 3, 5), (2, 7, 11))
    assert mechanisms.weights_of(scaled)["scale"] == 1.0
    plain = LuongAttention("additive")
    plain.build((2, 3, 5), (2, 7, 11))
    assert {weight.name: tuple(weight.shape) for weight in plain.weights} == {
        "query_kernel": (5, 5),
        "key_kernel": (11, 5),
        "vector": (5,),
    }


def test_vectors_start_with_a_variance_of_one_over_their_depth():
    layer = LuongAttention("additive", units=1009, window="local_p", use_coverage=True)
    layer.build((2, 3, 997), (2, 7, 11))
    weights = mechanisms.weights_of(layer)
    for name, depth in (("vector", 1009), ("coverage_vector", 1009), ("position_vector", 997)):
        # Uniform, so that the variance of a variance of n numbers is 0.8 / n of its square: four deviations.
        assert np.var(weights[name]) * depth == pytest.approx(1.0, abs=4 * (0.8 / depth) ** 0.5), name


def test_closed_forms():
    one, zero = np.ones((1, 1, 4), "float32"), np.zeros((1, 3, 4), "float32")
    zero[0, 1] = 0.25 * np.log(3.0)  # dot scores 0, ln 3, 0 -> weights 1/5, 3/5, 1/5
    _, alignment = LuongAttention("dot")(one, zero, return_attention_scores=True)
    np.testing.assert_allclose(numpy(alignment)[0, 0], [0.2, 0.6, 0.2], **FLOAT32)
    zero[0, 1] *= 2  # divided by sqrt(4)
    _, alignment = LuongAttention("scaled_dot")(one, zero, return_attention_scores=True)
    np.testing.assert_allclose(numpy(alignment)[0, 0], [0.2, 0.6, 0.2], **FLOAT32)


def test_the_worked_example():
    words, query = np.array([[[-0.76, 0.75], [0.01, -0.01]]], "float32"), np.array([[[0.91, 0.38]]], "float32")
    weights = LuongAttention("dot")(query, words, return_attention_scores=True)[1]
    np.testing.assert_allclose(numpy(weights)[0, 0], [0.40, 0.60], atol=5e-3)  # given to two places


def test_cosine_ignores_length_and_survives_zero_vectors():
    layer = LuongAttention("cosine")
    query, value, mask = inputs({"score": "cosine"})
    value[0, 0] = 0.0
    once = numpy(layer(query, value, value_mask=mask, return_attention_scores=True)[1])
    louder = numpy(layer(query * 100, value, value_mask=mask, return_attention_scores=True)[1])
    np.testing.assert_allclose(louder, once, **FLOAT32)
    quiet = numpy(layer(query * 1e-4, value * 1e-4, value_mask=mask, return_attention_scores=True)[1])
    np.testing.assert_allclose(quiet, once, **FLOAT32)
    slopes = gradient(lambda v: ops.sum(ops.square(layer(query, v, value_mask=mask))), value)
    assert np.isfinite(slopes).all()


def test_masks_of_keras_are_honoured():
    ids = np.array([[3, 4, 0], [5, 0, 0]])
    embedding = keras.layers.Embedding(9, 7, mask_zero=True)
    value = embedding(ids)
    _, alignment = LuongAttention("dot")(np.ones((2, 1, 7), "float32"), value, return_attention_scores=True)
    assert not numpy(alignment)[:, 0][ids == 0].any()


def test_every_other_combination_is_refused():
    for choice in mechanisms.every_choice():
        if not mechanisms.is_allowed(*choice):
            with pytest.raises(ValueError, match=r"Expected: .*Received: "):
                LuongAttention(**mechanisms.arguments_of(*choice))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": "dott"}, r"Expected: one of .*'dot'.*Received: score='dott'"),
        ({"window": "local"}, r"Expected: None or one of \('local_m', 'local_p'\).*Received: window='local'"),
        ({"alignment": "argmax"}, r"Expected: one of .*'hardmax'.*Received: alignment='argmax'"),
        ({"score": "location"}, r"max_source_length.*Received: score='location', max_source_length=None"),
        ({"score": "dot", "max_source_length": 3}, r"belongs to score='location'"),
        ({"score": "location", "max_source_length": 0}, r"Expected: max_source_length >= 1"),
        ({"score": "dot", "units": 3}, r"hidden layer.*Received: score='dot', units=3"),
        ({"score": "additive", "units": 0}, r"Expected: a positive int.*Received: score='additive', units=0"),
        ({"score": "normalized_additive", "use_scale": True}, r"Expected: use_scale=False"),
        ({"score": "dot", "dropout": 1.0}, r"Expected: 0 <= dropout < 1. Received: dropout=1.0"),
        ({"window": "local_m", "half_width": 0}, r"Expected: half_width >= 1. Received: half_width=0"),
        ({"score": "dot", "use_coverage": True}, r"Expected: score in .*'additive'.*Received: score='dot'"),
        ({"alignment": "monotonic", "window": "local_p"}, r"Expected: window=None and .*Received: window='local_p'"),
        (
            {"score": "concat", "alignment": "hard_monotonic", "use_coverage": True},
            r"alignment='hard_monotonic'.*use_coverage=False. Received: .*use_coverage=True",
        ),
        ({"sigmoid_noise": 1.0}, r"alignment='monotonic'.*Received: sigmoid_noise=1.0, alignment='softmax'"),
        ({"alignment": "hard_monotonic", "sigmoid_noise": 0.5}, r"Received: sigmoid_noise=0.5, alignment='hard_mono"),
        ({"alignment": "monotonic", "sigmoid_noise": -1.0}, r"Expected: 0, or more.*Received: sigmoid_noise=-1.0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LuongAttention(**arguments)


@pytest.mark.parametrize("score", mechanisms.SAME_DEPTH)
def test_depths_that_do_not_match(score):
    with pytest.raises(ValueError, match=r"Expected: query depth == value depth. Received: query_shape=\(2, 3, 7\)"):
        LuongAttention(score)(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 11), "float32"))


@pytest.mark.parametrize("built", [False, True])
def test_a_source_longer_than_the_location_score(built):
    layer = LuongAttention("location", max_source_length=4)
    if built:
        layer.build((None, None, 7), (None, None, 11))
    with pytest.raises(ValueError, match=r"max_source_length=4\. Received: source_length=5"):
        layer(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 11), "float32"))
    with pytest.raises(ValueError, match=r"max_source_length=4\. Received: source_length=5"):
        LuongAttention("location", max_source_length=4).build((None, None, 7), (None, 5, 11))


def test_a_source_as_long_as_the_location_score():
    arguments = {"score": "location", "max_source_length": 7}
    query, value, mask = inputs(arguments, positions=7)
    layer = make(arguments)
    assert_same(attend(layer, query, value, mask), expect(layer, query, value, mask))


SHAPES = r"Expected: shape \(2, {n}\), \(batch, length\), for a tensor of shape \(2, {n}, 7\)\. Received: {name}"


@pytest.mark.parametrize("window", [None, "local_m"])
@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"value_mask": np.ones((2, 3, 5), bool)}, SHAPES.format(n=5, name=r"value_mask.shape=\(2, 3, 5\)")),
        ({"value_mask": np.ones((2, 4), bool)}, SHAPES.format(n=5, name=r"value_mask.shape=\(2, 4\)")),
        ({"value_mask": np.ones((5,), bool)}, SHAPES.format(n=5, name=r"value_mask.shape=\(5,\)")),
        ({"query_mask": np.ones((2, 5), bool)}, SHAPES.format(n=3, name=r"query_mask.shape=\(2, 5\)")),
        ({"value_mask": np.ones((2, 5), "float32")}, r"`value_mask`.*Expected: dtype bool. Received: dtype float32"),
        ({"query_mask": np.ones((2, 3), "int32")}, r"`query_mask`.*Expected: dtype bool. Received: dtype int32"),
    ],
)
def test_wrong_masks(masks, message, window):
    layer = LuongAttention("dot", window=window, half_width=1)
    with pytest.raises(ValueError, match=message):
        layer(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 7), "float32"), **masks)


@pytest.mark.parametrize(
    ("arguments", "state", "message"),
    [
        ({}, {"step": np.zeros(2, "int32")}, r"Expected: a dict of \[\]\. Received: \['step'\]"),
        ({"window": "local_m"}, {}, r"Expected: a dict of \['step'\]\. Received: \[\]"),
        ({"alignment": "monotonic"}, [np.zeros((2, 5))], r"Expected: a dict of \['alignment'\]\. Received: list"),
    ],
)
def test_a_state_of_wrong_names(arguments, state, message):
    layer = LuongAttention("dot", **arguments)
    with pytest.raises(ValueError, match=message):
        layer(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 7), "float32"), state=state)


def test_coverage_is_no_companion_of_a_causal_mask():
    layer = LuongAttention("additive", use_coverage=True)
    with pytest.raises(ValueError, match=r"Expected: use_causal_mask=False with use_coverage=True"):
        layer(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 7), "float32"), use_causal_mask=True)


KERNELS = {
    "general": ({"score": "general"}, {"kernel"}),
    "location": ({"score": "location", "max_source_length": 7}, {"kernel"}),
    "dot, local-p": (
        {"score": "dot", "window": "local_p", "half_width": 2, "use_scale": True},
        {"position_kernel", "position_vector"},
    ),
    "normalized additive, coverage": (
        {"score": "normalized_additive", "units": 13, "use_coverage": True},
        {"query_kernel", "key_kernel", "vector", "coverage_vector"},
    ),
}
"""Mechanisms with the names of what is a kernel in them; together, every such name."""


def model_of(layer, depth=5):
    query, value = keras.Input((3, 5)), keras.Input((7, depth))
    return keras.Model([query, value], layer(query, value))


def two_inputs(depth=5):
    rng = np.random.default_rng(29)
    return [rng.normal(size=(2, 3, 5)).astype("float32"), rng.normal(size=(2, 7, depth)).astype("float32")]


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("initializer", ["ones", keras.initializers.Constant(1.0), keras.initializers.Ones])
def test_an_initializer_of_kernels(kind, initializer):
    arguments, kernels = KERNELS[kind]
    layer, plain = LuongAttention(**arguments, kernel_initializer=initializer), LuongAttention(**arguments)
    for one in (layer, plain):
        one.build((2, 3, 5), (2, 7, 5))
    found, others = ({weight.name: numpy(weight) for weight in one.weights} for one in (layer, plain))
    assert {name for name, values in found.items() if (values == 1.0).all()} - {"scale"} == kernels
    for name in set(found) - kernels:
        np.testing.assert_array_equal(found[name], others[name])


def test_a_kernel_of_ones_multiplies_sums():
    query, value = two_inputs(11)
    scores = query.sum(-1)[:, :, None] * value.sum(-1)[:, None, :]
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    layer = LuongAttention("general", kernel_initializer="ones")
    np.testing.assert_allclose(numpy(layer(query, value)), expected @ value, rtol=1e-4, atol=1e-5)  # exp of sums of 55


def test_kernels_of_one_initializer_differ():
    """An unseeded instance draws the same numbers each time; each kernel has its own copy."""
    layer = LuongAttention("additive", kernel_initializer=keras.initializers.RandomNormal())
    layer.build((2, 3, 5), (2, 7, 5))
    weights = mechanisms.weights_of(layer)
    assert (weights["query_kernel"] != weights["key_kernel"]).all()


@pytest.mark.parametrize("kind", KERNELS)
def test_no_option_leaves_the_first_weights_as_they_were(kind):
    """Those of `add_weight` without an initializer, drawn at `build` in the order of the weights."""
    arguments, _ = KERNELS[kind]
    config = LuongAttention(**arguments).get_config()
    without = {name: value for name, value in config.items() if not name.startswith(("kernel_", "bias_"))}
    assert len(config) == len(without) + 6
    keras.utils.set_random_seed(31)
    layer = LuongAttention.from_config(without)
    layer.build((2, 3, 5), (2, 7, 5))
    keras.utils.set_random_seed(31)
    plain = keras.layers.Layer()
    for weight in layer.weights:
        first = None if "kernel" in weight.name else "zeros"
        if "vector" in weight.name:
            limit = (3.0 / weight.shape[0]) ** 0.5
            first = keras.initializers.RandomUniform(-limit, limit)
        expected = plain.add_weight(shape=weight.shape, initializer=first, name=weight.name)
        if "kernel" in weight.name or "vector" in weight.name:
            np.testing.assert_array_equal(numpy(weight), numpy(expected), err_msg=weight.name)


@pytest.mark.parametrize("kind", KERNELS)
def test_a_regularizer_is_in_the_loss(kind):
    arguments, kernels = KERNELS[kind]
    layer = LuongAttention(**arguments, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.25))
    model, arrays = model_of(layer), two_inputs()
    squares = sum(np.square(mechanisms.weights_of(layer)[name]).sum() for name in kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in layer.losses), 0.25 * squares, **FLOAT32)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    error = np.square(numpy(layer(*arrays))).mean()
    history = model.fit(arrays, np.zeros((2, 3, 5), "float32"), verbose=0).history
    np.testing.assert_allclose(history["loss"], [error + 0.25 * squares], **FLOAT32)


def test_the_options_of_the_bias():
    penalty, arrays = keras.regularizers.L1(0.5), two_inputs()
    layer = BahdanauAttention(
        13, normalize=True, bias_initializer=keras.initializers.Constant(-2.0), bias_regularizer=penalty
    )
    model = model_of(layer)
    np.testing.assert_array_equal(numpy(layer.bias), np.full(13, -2.0))
    assert [float(loss) for loss in layer.losses] == [13.0]  # 0.5 * 13 * 2
    layer = BahdanauAttention(13, normalize=True, bias_initializer="ones", bias_constraint="non_neg")
    model = model_of(layer)
    layer.bias.assign(np.full(13, -2.0))
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(arrays, np.zeros((2, 3, 5), "float32"), verbose=0)
    np.testing.assert_array_equal(numpy(layer.bias), np.zeros(13))


@pytest.mark.parametrize("kind", KERNELS)
def test_a_constraint_holds_after_a_step(kind):
    """`MaxNorm` is of columns: of a vector as a whole, but of each number of `w_c`, which has one input."""
    arguments, kernels = KERNELS[kind]
    layer = LuongAttention(**arguments, kernel_initializer="ones", kernel_constraint=keras.constraints.MaxNorm(0.5))
    model = model_of(layer)
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    model.fit(two_inputs(), np.zeros((2, 3, 5), "float32"), verbose=0)
    for name, values in mechanisms.weights_of(layer).items():
        if name in kernels:
            norms = np.linalg.norm(values.reshape(1 if name == "coverage_vector" else len(values), -1), axis=0)
            # All norms were above 0.5; float32, and the 1e-7 that Keras adds to a norm.
            np.testing.assert_allclose(norms, 0.5, rtol=1e-5)


@pytest.mark.parametrize("kind", KERNELS)
def test_options_of_weights_are_saved(kind, tmp_path):
    arguments, kernels = KERNELS[kind]
    layer = LuongAttention(
        **arguments,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.25, seed=3),
        kernel_regularizer="l1",
        kernel_constraint=keras.constraints.MaxNorm(0.75),
        bias_initializer="ones",
        bias_regularizer=keras.regularizers.L2(0.125),
        bias_constraint="non_neg",
    )
    model, arrays = model_of(layer), two_inputs()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    (again,) = (one for one in loaded.layers if isinstance(one, LuongAttention))
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(numpy(loaded(arrays)), numpy(model(arrays)))
    assert len(again.losses) == len(layer.losses) == len(kernels) + (layer.score == "normalized_additive")
    np.testing.assert_array_equal([float(one) for one in again.losses], [float(one) for one in layer.losses])
    assert (again.kernel_constraint.max_value, again.bias_regularizer.get_config()["l2"]) == (0.75, 0.125)
    fresh = LuongAttention.from_config(layer.get_config())
    fresh.build((2, 3, 5), (2, 7, 5))
    for name in kernels:  # the seed is in the config
        np.testing.assert_array_equal(mechanisms.weights_of(fresh)[name], mechanisms.weights_of(layer)[name])


@pytest.mark.parametrize("name", ["initializer", "regularizer", "constraint"])
def test_options_that_keras_does_not_know(name):
    for owner in ("kernel", "bias"):
        for wrong in ("nonsense", 3):
            with pytest.raises(ValueError, match=rf"^Could not interpret {name} identifier: {wrong}$"):
                LuongAttention(**{f"{owner}_{name}": wrong})
