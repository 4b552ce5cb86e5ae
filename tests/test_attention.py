"""`LuongAttention` against the NumPy reference, closed forms, and laws."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import LuongAttention
from keras_attention.arguments import SCORES
from tests import reference
from tests.gradients import gradient

BATCH, STEPS, POSITIONS, DEPTH, VALUE_DEPTH, UNITS = 2, 3, 5, 7, 11, 13

# The reference runs in float64; float32 sums of at most 13 products of numbers near 1 round to about 1e-6.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}
# float16 keeps 11 bits: 5e-4 for each product, a few times that for sums of 13 and the softmax of their scores.
FLOAT16 = {"rtol": 1e-2, "atol": 1e-2}
# bfloat16 keeps 8 bits.
BFLOAT16 = {"rtol": 8e-2, "atol": 8e-2}


def make(score, dtype="float32", **arguments):
    extra = {"concat": {"units": UNITS}, "location": {"max_source_length": 17}}.get(score, {})
    return LuongAttention(score=score, dtype=dtype, **extra, **arguments)


def inputs(score, seed=0):
    rng = np.random.default_rng(seed)
    depth = DEPTH if score in ("dot", "scaled_dot", "cosine") else VALUE_DEPTH
    query = rng.normal(size=(BATCH, STEPS, DEPTH)).astype("float32")
    value = rng.normal(size=(BATCH, POSITIONS, depth)).astype("float32")
    mask = np.array([[True, True, True, False, False], [True] * POSITIONS])
    return query, value, mask


def weights_of(layer):
    return {weight.name: np.asarray(ops.convert_to_numpy(weight), "float64") for weight in layer.weights}


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", FLOAT32), ("float16", FLOAT16), ("bfloat16", BFLOAT16)])
def test_equals_the_reference(score, use_scale, dtype, tolerance):
    layer = make(score, dtype, use_scale=use_scale)
    query, value, mask = inputs(score)
    layer.build(query.shape, value.shape)
    if use_scale:
        layer.scale.assign(1.7)
    context, alignment = layer(query, value, value_mask=mask, return_attention_scores=True)
    expected_context, expected = reference.attention(score, query, value, mask, weights_of(layer))
    np.testing.assert_allclose(numpy(alignment), expected, **tolerance)
    np.testing.assert_allclose(numpy(context), expected_context, **tolerance)
    assert keras.backend.standardize_dtype(context.dtype) == dtype


@pytest.mark.parametrize("score", SCORES)
def test_cached_keys_and_stepping_give_the_same_numbers(score):
    layer = make(score)
    query, value, mask = inputs(score)
    whole = numpy(layer(query, value, value_mask=mask))
    key = layer.project_keys(value)
    for t in range(STEPS):
        step = layer(query[:, t : t + 1], value, key=key, value_mask=mask)
        np.testing.assert_allclose(numpy(step)[:, 0], whole[:, t], **FLOAT32)


@pytest.mark.parametrize("score", SCORES)
def test_longer_padding_changes_nothing(score):
    layer = make(score)
    query, value, mask = inputs(score)
    context = numpy(layer(query, value, value_mask=mask))
    junk = np.full((BATCH, 4, value.shape[-1]), 1e3, "float32")
    longer, longer_mask = np.concatenate([value, junk], axis=1), np.pad(mask, ((0, 0), (0, 4)))
    np.testing.assert_allclose(numpy(layer(query, longer, value_mask=longer_mask)), context, **FLOAT32)


@pytest.mark.parametrize("score", SCORES)
def test_permuting_the_batch_permutes_the_output(score):
    layer = make(score)
    query, value, mask = inputs(score)
    context = numpy(layer(query, value, value_mask=mask))
    turned = numpy(layer(query[::-1], value[::-1], value_mask=mask[::-1]))
    np.testing.assert_allclose(turned[::-1], context, **FLOAT32)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("score", SCORES)
def test_a_wholly_masked_row_is_zero_with_a_finite_gradient(score, dtype):
    layer = make(score, dtype)
    query, value, mask = inputs(score)
    query = query * 50  # scores far below zero are where float16 softmax over a mask of large numbers turns to NaN
    mask[0] = False
    context, alignment = layer(query, value, value_mask=mask, return_attention_scores=True)
    assert not numpy(context)[0].any()
    assert not numpy(alignment)[0].any()
    np.testing.assert_allclose(numpy(alignment)[1].sum(axis=-1), 1.0, rtol=5e-3)  # float16 rounds each weight
    slopes = gradient(lambda q: ops.sum(ops.square(layer(q, value, value_mask=mask))), query)
    assert np.isfinite(slopes).all()


def test_a_masked_query_gives_zeros():
    query, value, mask = inputs("general")
    query_mask = np.array([[True, False, True], [False, True, True]])
    context, alignment = make("general")(
        query, value, query_mask=query_mask, value_mask=mask, return_attention_scores=True
    )
    assert not numpy(context)[~query_mask].any()
    assert not numpy(alignment)[~query_mask].any()
    assert (numpy(alignment)[query_mask].sum(axis=-1) > 0.99).all()


def test_closed_forms():
    one, zero = np.ones((1, 1, 4), "float32"), np.zeros((1, 3, 4), "float32")
    zero[0, 1] = 0.25 * np.log(3.0)  # dot scores 0, ln 3, 0 -> weights 1/5, 3/5, 1/5
    _, alignment = LuongAttention("dot")(one, zero, return_attention_scores=True)
    np.testing.assert_allclose(numpy(alignment)[0, 0], [0.2, 0.6, 0.2], **FLOAT32)
    zero[0, 1] *= 2  # divided by sqrt(4)
    _, alignment = LuongAttention("scaled_dot")(one, zero, return_attention_scores=True)
    np.testing.assert_allclose(numpy(alignment)[0, 0], [0.2, 0.6, 0.2], **FLOAT32)


def test_cosine_ignores_length_and_survives_zero_vectors():
    layer = LuongAttention("cosine")
    query, value, mask = inputs("cosine")
    value[0, 0] = 0.0
    once = numpy(layer(query, value, value_mask=mask, return_attention_scores=True)[1])
    louder = numpy(layer(query * 100, value, value_mask=mask, return_attention_scores=True)[1])
    np.testing.assert_allclose(louder, once, **FLOAT32)
    slopes = gradient(lambda v: ops.sum(ops.square(layer(query, v, value_mask=mask))), value)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("score", SCORES)
def test_gradient_equals_finite_differences(score):
    layer = make(score)
    query, value, mask = inputs(score)
    direction = np.random.default_rng(5).normal(size=query.shape).astype("float32")

    def loss(q):
        return ops.sum(ops.square(layer(q, value, value_mask=mask)))

    slope = float((gradient(loss, query) * direction).sum())
    step = 1e-2
    rise = float(loss(query + step * direction)) - float(loss(query - step * direction))
    # Central differences: an error of order step**2 = 1e-4 of the third derivative, and float32 noise over the step.
    assert rise / (2 * step) == pytest.approx(slope, rel=2e-2, abs=2e-2)


def test_dropout_is_for_training_alone():
    layer = LuongAttention("dot", dropout=0.5)
    query, value = np.ones((2, 3, 7), "float32"), np.ones((2, 50, 7), "float32")
    quiet, noisy = layer(query, value), layer(query, value, training=True)
    np.testing.assert_allclose(numpy(quiet), 1.0, **FLOAT32)
    assert np.abs(numpy(noisy) - 1.0).max() > 1e-3


def test_masks_of_keras_are_honoured():
    ids = np.array([[3, 4, 0], [5, 0, 0]])
    embedding = keras.layers.Embedding(9, 7, mask_zero=True)
    value = embedding(ids)
    _, alignment = LuongAttention("dot")(np.ones((2, 1, 7), "float32"), value, return_attention_scores=True)
    assert not numpy(alignment)[:, 0][ids == 0].any()


def test_state_goes_in_and_comes_out():
    query, value, _ = inputs("dot")
    layer = LuongAttention("dot")
    assert layer(query, value, return_state=True)[1] == {}
    context, alignment, state = layer(query, value, state={}, return_attention_scores=True, return_state=True)
    assert (tuple(context.shape), tuple(alignment.shape), state) == ((2, 3, 7), (2, 3, 5), {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score": "dott"}, "Expected: one of .*'dot'.*Received: score='dott'"),
        ({"score": "location"}, "max_source_length.*Received: score='location', max_source_length=None"),
        ({"score": "dot", "max_source_length": 3}, "belongs to score='location'"),
        ({"score": "location", "max_source_length": 0}, "Expected: max_source_length >= 1"),
        ({"score": "dot", "units": 3}, "hidden layer.*Received: score='dot', units=3"),
        ({"score": "dot", "dropout": 1.0}, "Expected: 0 <= dropout < 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LuongAttention(**arguments)


@pytest.mark.parametrize("score", ["dot", "scaled_dot", "cosine"])
def test_depths_that_do_not_match(score):
    with pytest.raises(ValueError, match=r"Expected: query depth == value depth. Received: query_shape=\(2, 3, 7\)"):
        LuongAttention(score)(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 11), "float32"))


def test_a_source_longer_than_the_location_score():
    layer = LuongAttention("location", max_source_length=4)
    with pytest.raises(ValueError, match=r"max_source_length=4\. Received: source_length=5"):
        layer(np.ones((2, 3, 7), "float32"), np.ones((2, 5, 11), "float32"))


def test_a_mask_of_a_wrong_rank():
    with pytest.raises(ValueError, match=r"`value_mask`.*Received: value_mask.shape=\(2, 3, 5\)"):
        LuongAttention("dot")(np.ones((2, 3, 7)), np.ones((2, 5, 7)), value_mask=np.ones((2, 3, 5), bool))
