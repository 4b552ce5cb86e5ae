"""`MultiHeadLuongAttention` against the NumPy reference, and its laws."""

import keras
import numpy as np
import pytest

from keras_attention import MultiHeadLuongAttention
from tests.support import mechanisms, reference
from tests.support.gradients import gradient
from tests.support.mechanisms import BATCH, FLOAT32, STEPS, assert_same, numpy

HEADS, SIZE, POSITIONS, DEPTH, VALUE_DEPTH = 5, 3, 7, 11, 13

MECHANISMS = {
    "dot": {"score": "dot"},
    "scaled dot": {"score": "scaled_dot", "use_scale": True},
    "concat": {"score": "concat", "units": 17},
    "normalised, local-p": {"score": "normalized_additive", "window": "local_p", "half_width": 2},
    "cosine, local-m": {"score": "cosine", "window": "local_m", "half_width": 1, "use_scale": True},
    "additive, coverage": {"score": "additive", "use_coverage": True, "alignment": "sparsemax"},
    "coverage, local-m": {"score": "additive", "use_coverage": True, "window": "local_m", "half_width": 1},
    "monotonic": {"score": "scaled_dot", "alignment": "monotonic"},
    "hard monotonic": {"score": "dot", "alignment": "hard_monotonic"},
    "hardmax": {"score": "cosine", "alignment": "hardmax"},
}


def make(name, dtype="float32", **arguments):
    layer = MultiHeadLuongAttention(HEADS, SIZE, **{**MECHANISMS[name], **arguments}, dtype=dtype)
    layer.build((BATCH, STEPS, DEPTH), (BATCH, POSITIONS, VALUE_DEPTH))
    mechanisms.randomise(layer)
    return layer


def attend(layer, query, value, mask, **arguments):
    arguments = {"return_attention_scores": "all", "return_state": True, **arguments}
    context, weights, state = layer(query, value, value_mask=mask, **arguments)
    return numpy(context), numpy(weights), {name: keras.ops.convert_to_numpy(part) for name, part in state.items()}


def expect(layer, query, value, mask):
    head = layer.head
    return reference.multi_head(
        HEADS,
        layer.score,
        query.astype("float64"),
        value.astype("float64"),
        mechanisms.weights_of(layer),
        mask,
        window=head.window,
        half_width=head.half_width,
        alignment=head.alignment,
        use_coverage=head.use_coverage,
    )


def inputs():
    return mechanisms.inputs({"score": "general"})


@pytest.mark.parametrize("name", MECHANISMS)
def test_equals_the_reference(name):
    layer = make(name)
    query, value, mask = inputs()
    found = attend(layer, query, value, mask)
    assert_same(found, expect(layer, query, value, mask), rtol=1e-4, atol=1e-5)  # four float32 products in a row
    mean = numpy(layer(query, value, value_mask=mask, return_attention_scores=True)[1])
    np.testing.assert_allclose(mean, found[1].mean(axis=1), **FLOAT32)


def test_one_head_is_plain_attention_between_projections():
    layer = MultiHeadLuongAttention(1, score="scaled_dot")
    query, value, mask = inputs()
    layer.build(query.shape, value.shape)
    for _ in range(5):  # what reads past its memory does not do so each time
        found = numpy(layer(query, value, value_mask=mask))
        kernels = [
            numpy(getattr(layer, f"{name}_kernel")).astype("float64") for name in ("query", "key", "value", "output")
        ]
        for b in range(BATCH):
            scores = (query[b] @ kernels[0]) @ (value[b] @ kernels[1]).T / np.sqrt(VALUE_DEPTH)
            weights = reference.softmax(np.where(mask[b], scores, -1e30))
            expected = weights @ value[b] @ kernels[2][0] @ kernels[3] if mask[b].any() else 0.0
            # Float32 through four sums of products.
            np.testing.assert_allclose(found[b], np.broadcast_to(expected, found[b].shape), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["dot", "concat", "monotonic"])
def test_low_precision_equals_the_reference(name):
    query, value, mask = inputs()
    layer = make(name, dtype="float16")
    # 11 bits, through four products of up to 15 numbers each.
    assert_same(attend(layer, query, value, mask), expect(layer, query, value, mask), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("name", MECHANISMS)
def test_stepping_with_cached_keys_gives_the_same_numbers(name):
    layer = make(name)
    query, value, mask = inputs()
    whole = attend(layer, query, value, mask)
    key, state, parts = layer.project_keys(value), layer.initial_state(value), []
    for first, last in ((0, 1), (1, STEPS)):
        parts.append(attend(layer, query[:, first:last], value, mask, key=key, state=state))
        state = parts[-1][2]
    contexts, weights = (np.concatenate([part[n] for part in parts], axis=n + 1) for n in (0, 1))
    assert_same((contexts, weights, state), whole)


@pytest.mark.parametrize("name", MECHANISMS)
def test_padding_batch_order_and_a_wholly_masked_row(name):
    layer = make(name)
    query, value, mask = inputs()
    mask[0] = False
    mask[1, -1] = False  # the last real position is then inside of both, whatever the padding
    plain = attend(layer, query, value, mask)
    padding = ((0, 0), (0, 4))
    junk = np.pad(value, (*padding, (0, 0)), constant_values=100.0)[::-1]
    context, weights, _ = attend(layer, query[::-1], junk, np.pad(mask, padding)[::-1])
    np.testing.assert_allclose(context[::-1], plain[0], **FLOAT32)
    np.testing.assert_allclose(weights[::-1, :, :, :POSITIONS], plain[1], **FLOAT32)
    assert not plain[0][0].any()
    assert not plain[1][0].any()
    slopes = gradient(lambda q: keras.ops.sum(keras.ops.square(layer(q, value, value_mask=mask))), query)
    assert np.isfinite(slopes).all()


def test_masked_queries_and_a_causal_mask():
    layer = make("scaled dot")
    query, value, mask = inputs()
    query_mask = np.arange(STEPS) < np.array([[2], [3]])
    context, weights, _ = attend(layer, query, value, mask, query_mask=query_mask, use_causal_mask=True)
    assert not context[~query_mask].any()
    later = np.arange(POSITIONS) > np.arange(STEPS)[:, None]
    assert not weights[:, :, later].any()
    np.testing.assert_allclose(weights[1].sum(axis=-1), 1.0, **FLOAT32)


def test_one_head_of_one_projection_is_attention_without_heads():
    layer = MultiHeadLuongAttention(1, score="dot")
    query, value, mask = mechanisms.inputs({"score": "dot"})
    layer.build(query.shape, value.shape)
    eye = np.eye(DEPTH, dtype="float32")
    layer.set_weights([eye[None] if len(weight.shape) == 3 else eye for weight in layer.weights])
    single = mechanisms.make(mechanisms.arguments_of("dot"))
    context, weights, _ = attend(layer, query, value, mask)
    expected = mechanisms.attend(single, query, value, mask)
    np.testing.assert_allclose(context, expected[0], **FLOAT32)
    np.testing.assert_allclose(weights[:, 0], expected[1], **FLOAT32)


def test_dropout_and_noise_are_for_training_alone():
    query, value, mask = inputs()
    for name, noise in (("dot", {"dropout": 0.5}), ("monotonic", {"sigmoid_noise": 2.0})):
        layer, quiet = make(name, **noise, seed=5), make(name)
        plain = attend(quiet, query, value, mask)
        assert_same(attend(layer, query, value, mask), plain)
        # Far above what float32 rounds, 1e-6.
        assert np.abs(attend(layer, query, value, mask, training=True)[0] - plain[0]).max() > 1e-3


def test_the_state_stays_in_float32():
    query, value, mask = inputs()
    for name in ("monotonic", "additive, coverage"):
        state = attend(make(name, dtype="mixed_float16"), query, value, mask)[2]
        assert [part.dtype.name for part in state.values()] == ["float32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 0}, r"Expected: num_heads >= 1 and head_size >= 1. Received: num_heads=0"),
        ({"head_size": 0}, r"Expected: num_heads >= 1 and head_size >= 1. Received: .*head_size=0"),
        ({"score": "general"}, r"Expected: score in .*'scaled_dot'.*Received: score='general'"),
        ({"score": "location", "max_source_length": 7}, r"Expected: score in .*Received: score='location'"),
        ({"window": "local_m", "half_width": 0}, r"Expected: half_width >= 1. Received: half_width=0"),
        ({"units": 3}, r"hidden layer.*Received: score='scaled_dot', units=3"),
        ({"alignment": "argmax"}, r"Expected: one of .*Received: alignment='argmax'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiHeadLuongAttention(**arguments)


def test_wrong_calls():
    query, value = np.ones((2, 3, 11), "float32"), np.ones((2, 7, 13), "float32")
    with pytest.raises(ValueError, match=r"Expected: a depth that num_heads divides.*num_heads=5, value_shape=\(2, 7"):
        MultiHeadLuongAttention(5)(query, value)
    layer = MultiHeadLuongAttention(5, 3)
    with pytest.raises(ValueError, match=r"Expected: shape \(2, 7\).*Received: value_mask.shape=\(2, 5\)"):
        layer(query, value, value_mask=np.ones((2, 5), bool))
    with pytest.raises(ValueError, match=r"Expected: dtype bool. Received: dtype float32"):
        layer(query, value, query_mask=np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"Expected: return_attention_scores in \(True, False, 'all'\)"):
        layer(query, value, return_attention_scores="mean")
    with pytest.raises(ValueError, match=r"Expected: a dict of \[\]\. Received: \['step'\]"):
        layer(query, value, state={"step": np.zeros((2, 5), "int32")})


def flat_weights(layer):
    weights = mechanisms.weights_of(layer)
    head = weights.pop("head")
    head.pop("head", None)
    return {**head, **{f"projection {name}": values for name, values in weights.items()}}


def fitted(layer, depth=VALUE_DEPTH, rate=1e-3):
    """The loss of one step of a model around the layer, and its weights after it."""
    query, value, _ = inputs()
    model = keras.Model(tensors := [keras.Input(query.shape[1:]), keras.Input(value.shape[1:])], layer(*tensors))
    before, error = flat_weights(layer), np.square(numpy(layer(query, value))).mean()
    model.compile(keras.optimizers.SGD(rate), "mse")
    history = model.fit([query, value], np.zeros((BATCH, STEPS, depth)), batch_size=BATCH, verbose=0).history
    return model, before, error, history["loss"][0]


def test_kernels_of_heads_lie_side_by_side():
    """To an initializer, which makes one matrix of them."""
    layer = MultiHeadLuongAttention(HEADS, SIZE, kernel_initializer=keras.initializers.Identity(2.0))
    layer.build((BATCH, STEPS, DEPTH), (BATCH, POSITIONS, VALUE_DEPTH))
    weights, inner = mechanisms.weights_of(layer), HEADS * SIZE
    np.testing.assert_array_equal(weights["query_kernel"], 2 * np.eye(DEPTH, inner))
    np.testing.assert_array_equal(weights["key_kernel"], 2 * np.eye(VALUE_DEPTH, inner))
    np.testing.assert_array_equal(np.concatenate(weights["value_kernel"], axis=1), 2 * np.eye(VALUE_DEPTH, inner))
    np.testing.assert_array_equal(weights["output_kernel"], 2 * np.eye(inner, VALUE_DEPTH))


def test_the_penalty_is_of_projections_and_of_the_heads_kernels():
    arguments = {"score": "additive", "window": "local_p", "half_width": 2, "units": 17}
    layer = MultiHeadLuongAttention(HEADS, SIZE, **arguments, kernel_regularizer=keras.regularizers.L1(0.125))
    _, before, error, loss = fitted(layer)
    assert len(layer.losses) == len(before) == 4 + 5
    expected = 0.125 * sum(np.abs(values).sum() for values in before.values())
    np.testing.assert_allclose(loss, error + expected, rtol=1e-5)  # a float32 sum of 1,000 numbers


def test_a_constraint_is_of_all_heads_side_by_side(tmp_path):
    layer = MultiHeadLuongAttention(
        HEADS, SIZE, kernel_constraint=keras.constraints.UnitNorm(), kernel_regularizer="orthogonal_regularizer"
    )
    model, before, _, _ = fitted(layer, rate=0.0)
    for name, values in flat_weights(layer).items():
        norms = np.linalg.norm(before[name], axis=1 if name == "projection value_kernel" else 0, keepdims=True)
        # float32, and the 1e-7 that Keras adds to a norm
        np.testing.assert_allclose(values, before[name] / norms, rtol=1e-5, atol=1e-6, err_msg=name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.layers[-1]
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal([float(one) for one in again.losses], [float(one) for one in layer.losses])
    query, value, _ = inputs()
    np.testing.assert_array_equal(numpy(loaded([query, value])), numpy(model([query, value])))


def test_no_option_leaves_the_first_weights_as_they_were():
    config = MultiHeadLuongAttention(HEADS, SIZE).get_config()
    assert config["kernel_initializer"] is config["kernel_regularizer"] is config["kernel_constraint"] is None
    old = {name: value for name, value in config.items() if not name.startswith(("kernel_", "bias_"))}
    keras.utils.set_random_seed(37)
    layer = MultiHeadLuongAttention.from_config(old)
    layer.build((BATCH, STEPS, DEPTH), (BATCH, POSITIONS, VALUE_DEPTH))
    keras.utils.set_random_seed(37)
    plain, limit = keras.layers.Layer(), (6.0 / (VALUE_DEPTH + HEADS * SIZE)) ** 0.5
    for weight in layer.weights:
        first = keras.initializers.RandomUniform(-limit, limit) if weight.name == "value_kernel" else None
        np.testing.assert_array_equal(numpy(weight), numpy(plain.add_weight(shape=weight.shape, initializer=first)))
