"""The call forms and names of `keras.layers.Attention` and `MultiHeadAttention`, and constructors' refusals."""

import pathlib
import re

import keras
import numpy as np
import pytest

from keras_attention import (
    AttentionCell,
    AttentionEncoder,
    AttentionRNN,
    BahdanauAttention,
    Bridge,
    Decoder,
    Encoder,
    LuongAttention,
    MultiHeadLuongAttention,
    PointerGenerator,
    RecurrentStack,
    VocabularyShortlist,
)
from keras_attention.models.gnmt_layers import UpperLayers
from keras_attention.recurrent.layer_norm_lstm import LayerNormLSTMCell
from tests.support.cell_reference import numpy

QUERY, VALUE = np.ones((2, 3, 8), "float32"), np.ones((2, 5, 8), "float32")
ATTENTIONS = [lambda: LuongAttention("dot"), lambda: BahdanauAttention(5), lambda: MultiHeadLuongAttention(2)]


@pytest.mark.parametrize("make", ATTENTIONS)
def test_tensors_come_one_by_one(make):
    layer = make()
    for inputs in ([QUERY, VALUE], (QUERY, VALUE, VALUE)):
        with pytest.raises(ValueError, match=r"one by one. Expected: layer\(query, value\), .*Received: a \w+ of [23]"):
            layer(inputs)
    with pytest.raises(ValueError, match=r"mask for each tensor. Expected: query_mask=.*Received: mask=list"):
        layer(QUERY, VALUE, mask=[None, np.ones((2, 5), bool)])
    assert layer(QUERY, VALUE, value_mask=np.ones((2, 5), bool)).shape == (2, 3, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LuongAttention(score_mode="concat"), r"`score_mode`.*Expected: LuongAttention with score=.*'concat'"),
        (lambda: BahdanauAttention(score_mode="concat"), r"`score_mode`.*Expected: BahdanauAttention with score="),
        (lambda: MultiHeadLuongAttention(2, key_dim=4), r"`key_dim`.*Expected: .* with head_size.*Received: key_dim=4"),
        (lambda: MultiHeadLuongAttention(2, use_bias=True), r"`use_bias`.*no bias"),
    ],
)
def test_names_of_keras(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# The same float32 products in another order.
FLOAT32 = {"rtol": 1e-5, "atol": 2e-6}


@pytest.mark.parametrize("use_causal_mask", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
def test_dot_is_that_of_keras(use_scale, use_causal_mask):
    query, value = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    masks = [np.array([[True, True, False]] * 2), np.array([[True] * 5, [True, True, True, False, False]])]
    own, other = LuongAttention("dot", use_scale=use_scale), keras.layers.Attention(use_scale=use_scale)
    own.build(query.shape, value.shape)
    other.build([query.shape, value.shape])
    for weight in [*own.weights, *other.weights]:
        weight.assign(0.5)
    more = {"return_attention_scores": True, "use_causal_mask": use_causal_mask}
    context, weights = own(query, value, query_mask=masks[0], value_mask=masks[1], **more)
    expected, expected_weights = other([query, value], mask=masks, **more)
    np.testing.assert_allclose(numpy(context), numpy(expected), **FLOAT32)
    # Keras leaves the weights of masked queries as they are.
    np.testing.assert_allclose(numpy(weights), numpy(expected_weights) * masks[0][:, :, None], **FLOAT32)


def test_additive_is_that_of_keras_without_projections():
    query, value = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    own, other = BahdanauAttention(), keras.layers.AdditiveAttention()
    own.build(query.shape, value.shape)
    other.build([query.shape, value.shape])
    for kernel in (own.query_kernel, own.key_kernel):
        kernel.assign(np.eye(8))
    for vector in (own.vector, other.scale):
        vector.assign(normal(8, seed=2))
    np.testing.assert_allclose(numpy(own(query, value)), numpy(other([query, value])), **FLOAT32)


def test_heads_are_those_of_keras():
    query, value = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    mask = np.array([[True] * 5, [True, True, True, False, False]])
    own, other = MultiHeadLuongAttention(2, 3), keras.layers.MultiHeadAttention(2, 3, use_bias=False)
    other.build(query.shape, value.shape)
    own.build(query.shape, value.shape)
    by_name = {weight.path.split("/")[-2]: numpy(weight) for weight in other.weights}
    own.query_kernel.assign(by_name["query"].reshape(8, 6))
    own.key_kernel.assign(by_name["key"].reshape(8, 6))
    own.value_kernel.assign(by_name["value"].transpose(1, 0, 2))
    own.output_kernel.assign(by_name["attention_output"].reshape(6, 8))
    found, weights = own(query, value, value_mask=mask, return_attention_scores="all")
    expected, expected_weights = other(query, value, value_mask=mask, return_attention_scores=True)
    np.testing.assert_allclose(numpy(found), numpy(expected), **FLOAT32)
    np.testing.assert_allclose(numpy(weights), numpy(expected_weights), **FLOAT32)


def allowed():
    mask = np.random.default_rng(5).uniform(size=(2, 3, 5)) < 0.6
    mask[..., 0] = True
    return mask


def test_an_attention_mask_is_that_of_keras():
    """Of `MultiHeadAttention`, which has one; its heads are ours, see above."""
    query, value = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    other = keras.layers.MultiHeadAttention(1, 8, use_bias=False)
    other.build(query.shape, value.shape)
    for weight in other.weights:
        weight.assign(np.eye(8).reshape(weight.shape))
    more = {"value_mask": np.array([[True] * 5, [True] * 4 + [False]]), "attention_mask": allowed()}
    expected, weights = other(query, value, return_attention_scores=True, **more)
    found, own = LuongAttention("scaled_dot")(query, value, return_attention_scores=True, **more)
    np.testing.assert_allclose(numpy(own), numpy(weights)[:, 0], **FLOAT32)
    np.testing.assert_allclose(numpy(found), numpy(expected), **FLOAT32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BahdanauAttention(use_coverage=True),
        lambda: LuongAttention("general", window="local_m", half_width=1),
        lambda: LuongAttention("dot", alignment="monotonic"),
        lambda: MultiHeadLuongAttention(2, score="additive", use_coverage=True),
    ],
    ids=["coverage", "window", "monotonic", "heads"],
)
def test_an_attention_mask_with_one_row_for_all_queries_is_a_value_mask(make):
    query, value = normal(2, 3, 8), normal(2, 5, 8, seed=1)
    layer, mask = make(), np.array([[True, True, False, True, False]] * 2)
    layer(query, value)
    expected = layer(query, value, value_mask=mask, return_attention_scores=True)
    wide = np.broadcast_to(mask[:, None], (2, 3, 5)).copy()
    # A window ends at the last real position, which the mask of values tells.
    found = layer(
        query,
        value,
        value_mask=mask | [True, True, True, True, False],
        attention_mask=wide,
        return_attention_scores=True,
    )
    for one, each in zip(found, expected, strict=True):
        np.testing.assert_allclose(numpy(one), numpy(each), **FLOAT32)
    hidden = layer(query, value, attention_mask=allowed(), return_attention_scores=True)[1]
    assert not numpy(hidden)[np.logical_not(allowed())].any()


def test_attention_masks_that_do_not_fit():
    for wrong in (np.ones((2, 5, 3), bool), np.ones((2, 5), bool), np.ones((2, 3, 5), "float32")):
        for layer in (LuongAttention("dot"), MultiHeadLuongAttention(2)):
            with pytest.raises(
                ValueError, match=r"`attention_mask`.*Expected: dtype bool, shape \(2, 3, 5\).*Received: "
            ):
                layer(QUERY, VALUE, attention_mask=wrong)


def test_loading_before_the_import_is_in_the_page_of_troubles(monkeypatch):
    """The text of Keras that the page quotes, for a layer that nothing registered."""
    config = keras.saving.serialize_keras_object(LuongAttention("dot"))
    monkeypatch.delitem(keras.saving.get_custom_objects(), "keras_attention>LuongAttention")
    with pytest.raises(TypeError) as found:
        keras.saving.deserialize_keras_object(config)
    page = pathlib.Path(__file__).parents[2] / "docs" / "troubleshooting.md"
    quoted = re.search(r"^\*\*Keras: `(Could not locate .*?) …`\*\*$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert quoted
    assert quoted[1] in str(found.value)


def test_output_shapes_without_a_call():
    """Each is that of a call."""
    for make in ATTENTIONS:
        assert make().compute_output_shape((2, 3, 8), (2, 5, 8)) == make()(QUERY, VALUE).shape
        assert make().compute_output_shape((None, None, 8), (None, None, 8)) == (None, None, 8)
        context, weights = make()(keras.Input((3, 8)), keras.Input((5, 8)), return_attention_scores=True)
        assert (context.shape, weights.shape) == ((None, 3, 8), (None, 3, 5))
    for attentional_size, depth in ((None, 8), (7, 7)):
        for sequences in (False, True):
            cell = AttentionCell(keras.layers.GRUCell(4), LuongAttention(), attentional_size)
            layer = AttentionRNN(cell, return_sequences=sequences)
            expected = (2, 3, depth) if sequences else (2, depth)
            assert layer.compute_output_shape((2, 3, 8), (2, 5, 8)) == expected
            assert layer(QUERY, VALUE).shape == expected


CELL = keras.layers.GRUCell
WHOLE = {
    "half_width": lambda n: LuongAttention(window="local_m", half_width=n),
    "units": lambda n: LuongAttention("additive", units=n),
    "max_source_length": lambda n: LuongAttention("location", max_source_length=n),
    "num_heads": lambda n: MultiHeadLuongAttention(n),
    "head_size": lambda n: MultiHeadLuongAttention(2, n),
    "attentional_size": lambda n: AttentionCell(CELL(3), LuongAttention(), n),
    "RecurrentStack units": lambda n: RecurrentStack("gru", n),
    "num_layers": lambda n: RecurrentStack("gru", 3, n),
    "Encoder units": lambda n: Encoder("gru", n),
    "Decoder units": lambda n: Decoder("gru", n),
    "UpperLayers num_layers": lambda n: UpperLayers("gru", 3, n),
    "Bridge units": lambda n: Bridge("dense", "mean", ["h_0"], n),
    "LayerNormLSTMCell units": lambda n: LayerNormLSTMCell(n),
    "AttentionEncoder num_layers": lambda n: AttentionEncoder(8, n),
    "AttentionEncoder units": lambda n: AttentionEncoder(n, 1),
    "feed_forward_units": lambda n: AttentionEncoder(8, 1, feed_forward_units=n),
    "copy_words": lambda n: PointerGenerator(n),
    "candidates": lambda n: VocabularyShortlist(5, 5, n),
    "source_vocabulary": lambda n: VocabularyShortlist(n, 5, 2),
}


@pytest.mark.parametrize("name", WHOLE)
def test_numbers_that_are_whole(name):
    for wrong in (2.5, "3", True, 4.0):
        with pytest.raises(ValueError, match=rf"Expected: {name.split()[-1]}, a whole number. Received: .*={wrong!r}"):
            WHOLE[name](wrong)
    for wrong in () if name == "source_vocabulary" else (0, -1):
        with pytest.raises(ValueError, match=r"Expected: .*Received: "):
            WHOLE[name](wrong)


SHARES = {
    "LuongAttention": lambda share: LuongAttention(dropout=share),
    "MultiHeadLuongAttention": lambda share: MultiHeadLuongAttention(2, dropout=share),
    "AttentionRNN": lambda share: AttentionRNN(AttentionCell(CELL(3), LuongAttention()), dropout=share),
    "RecurrentStack": lambda share: RecurrentStack("gru", 3, dropout=share),
    "Encoder": lambda share: Encoder("gru", 3, dropout=share),
    "Decoder": lambda share: Decoder("gru", 3, dropout=share),
    "UpperLayers": lambda share: UpperLayers("gru", 3, 2, dropout=share),
    "AttentionEncoder": lambda share: AttentionEncoder(8, 1, dropout=share),
}


@pytest.mark.parametrize("name", SHARES)
def test_shares_of_dropout(name):
    for wrong in (-0.1, 1.0, 2):
        with pytest.raises(ValueError, match=rf"Expected: 0 <= dropout < 1. Received: dropout={wrong}"):
            SHARES[name](wrong)
    with pytest.raises(ValueError, match=r"Expected: dropout, a number. Received: dropout='0.1'"):
        SHARES[name]("0.1")


def test_numbers_that_are_none():
    with pytest.raises(ValueError, match=r"Expected: score_bias_init, a number. Received: score_bias_init='-1'"):
        LuongAttention(alignment="monotonic", score_bias_init="-1")
    with pytest.raises(ValueError, match=r"Expected: sigmoid_noise, a number. Received: sigmoid_noise=None"):
        LuongAttention(alignment="monotonic", sigmoid_noise=None)
