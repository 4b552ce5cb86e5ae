"""Tensors of wrong ranks, depths and batch sizes are refused by every layer, before anything is broadcast."""

import keras
import numpy as np
import pytest

from keras_attention import (
    AttentionCell,
    AttentionDecoder,
    AttentionEncoder,
    AttentionRNN,
    BahdanauAttention,
    Decoder,
    Encoder,
    LuongAttention,
    MultiHeadLuongAttention,
    PointerGenerator,
    RecurrentStack,
)
from keras_attention.attention.shapes import check_shapes

BATCH, STEPS, POSITIONS, DEPTH = 4, 3, 5, 8


def ones(*shape):
    return np.ones(shape, "float32")


def encoded(batch=BATCH, depth=DEPTH):
    values = ones(batch, POSITIONS, depth)
    return {"values": values, "mask": np.ones(values.shape[:2], bool), "state": {"h_0": values[:, 0]}}


def rnn():
    return AttentionRNN(AttentionCell(keras.layers.GRUCell(DEPTH), LuongAttention("dot")))


def step(layer, inputs, *state, memory=BATCH):
    prepared = layer.prepare_memory(ones(memory, POSITIONS, DEPTH))
    return layer(inputs, layer.initial_state(prepared, *state), prepared)


QUERY, VALUE = ones(BATCH, STEPS, DEPTH), ones(BATCH, POSITIONS, DEPTH)
GOOD = {
    "dot": (lambda: LuongAttention("dot"), QUERY, VALUE),
    "general": (lambda: LuongAttention("general"), QUERY, VALUE),
    "location": (lambda: LuongAttention("location", max_source_length=7), QUERY, VALUE),
    "window": (lambda: LuongAttention("general", window="local_m", half_width=1), QUERY, VALUE),
    "heads": (lambda: MultiHeadLuongAttention(2), QUERY, VALUE),
    "AttentionRNN": (rnn, QUERY, VALUE),
    "AttentionCell": (lambda: AttentionCell(keras.layers.GRUCell(DEPTH), LuongAttention("dot")), ones(BATCH, 7), None),
    "RecurrentStack": (lambda: RecurrentStack("gru", 3), QUERY, None),
    "Encoder": (lambda: Encoder("gru", 3), QUERY, None),
    "AttentionEncoder": (lambda: AttentionEncoder(DEPTH, 1, {"num_heads": 2}), QUERY, None),
    "Decoder": (lambda: Decoder("gru", DEPTH, attention={"score": "dot"}), QUERY, encoded()),
    "AttentionDecoder": (lambda: AttentionDecoder(DEPTH, 1, {"num_heads": 2}), QUERY, encoded()),
}
WRONG = {
    "query of rank 2": (ones(BATCH, DEPTH), VALUE),
    "query of rank 4": (ones(BATCH, 1, STEPS, DEPTH), VALUE),
    "memory of rank 2": (QUERY, ones(POSITIONS, DEPTH)),
    "memory of rank 4": (QUERY, ones(BATCH, 1, POSITIONS, DEPTH)),
    "one memory for four": (QUERY, VALUE[:1]),
    "one query for four": (QUERY[:1], VALUE),
}


def call(layer, first, second):
    if isinstance(layer, AttentionCell):
        return step(layer, first)
    return layer(first) if second is None else layer(first, second)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("name", ["dot", "general", "location", "window", "heads", "AttentionRNN"])
def test_two_tensors(name, case, built):
    make, first, second = GOOD[name]
    layer = make()
    if built:
        call(layer, first, second)
    with pytest.raises(ValueError, match=r"cannot take a `\w+` of this shape. Expected: .* Received: .*shape="):
        layer(*WRONG[case])


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_the_first_tensor(name, built):
    make, first, second = GOOD[name]
    layer = make()
    if built:
        call(layer, first, second)
    for wrong in (first[:, 0], first[:, None]):
        with pytest.raises(ValueError, match=r"cannot take a `\w+` of this shape. Expected: .* Received: .*shape="):
            call(layer, wrong, second)
    if built:
        with pytest.raises(ValueError, match=r"Expected: .*, 7|Expected: .*, 8.* Received: .*9\)"):
            call(layer, np.concatenate([first, first[..., :1]], axis=-1), second)


@pytest.mark.parametrize("name", ["Decoder", "AttentionDecoder"])
def test_a_memory_of_another_batch_or_depth(name):
    make, first, second = GOOD[name]
    layer = make()
    call(layer, first, second)
    for wrong in (encoded(batch=1), encoded(depth=DEPTH + 1)):
        with pytest.raises(ValueError, match=rf"{name} cannot take a `values` of this shape. Expected: .* Received: "):
            layer(first, wrong)


def test_states_of_another_batch():
    layer = AttentionCell(keras.layers.GRUCell(DEPTH), LuongAttention("dot"))
    with pytest.raises(ValueError, match=r"cannot take a `state h_0`.*Expected: .*\(4, h_0\).*Received: .*\(1, 8\)"):
        step(layer, ones(BATCH, 7), [ones(1, DEPTH)])
    with pytest.raises(ValueError, match=r"cannot take a `memory`.*Received: inputs.shape=\(4, 7\).*\(1, 5, 8\)"):
        step(layer, ones(BATCH, 7), memory=1)
    with pytest.raises(ValueError, match=r"cannot take a `state h_0`.*Received: "):
        rnn()(QUERY, VALUE, initial_state=[ones(1, DEPTH)])
    with pytest.raises(ValueError, match=r"cannot take a `h_0`.*Expected: .*\(4, 3\).*Received: .*\(1, 3\)"):
        RecurrentStack("gru", 3)(QUERY, initial_state={"h_0": ones(1, 3)})
    with pytest.raises(ValueError, match=r"cannot take a `lengths`.*Received: .*\(1,\)"):
        RecurrentStack("gru", 3)(QUERY, np.ones(1, "int32"))


def test_copies():
    source = np.ones((BATCH, POSITIONS), "int32")
    PointerGenerator(2)(QUERY, QUERY, ones(BATCH, STEPS, POSITIONS), source)
    with pytest.raises(ValueError, match=r"cannot take a `source`.*Expected: .*\(4, 6\).*Received: .*\(4, 5\)"):
        PointerGenerator(2)(QUERY, QUERY, ones(BATCH, STEPS, POSITIONS + 1), source)


def test_at_build():
    for layer in (LuongAttention("general"), MultiHeadLuongAttention(2), rnn()):
        with pytest.raises(ValueError, match=r"Expected: .*\(B, T, \w+\).*Received: \w+.shape=\(4, 8\)"):
            layer.build((4, 8), (4, 5, 8))
        with pytest.raises(ValueError, match=r"Expected: memory|Expected: value.*Received: .*\(1, 5, 8\)"):
            layer.build((4, 3, 8), (1, 5, 8))


ATTENTIONS = {
    "general": lambda: LuongAttention("general"),
    "bahdanau": lambda: BahdanauAttention(7),
    "heads": lambda: MultiHeadLuongAttention(2),
}


@pytest.mark.parametrize("name", ATTENTIONS)
def test_forms_of_build(name):
    """Those of Keras' attention layers: one by one, as a list, and one shape of query and value alike."""
    one, other = (2, 3, 8), (2, 5, 6)
    tensors = np.ones(one, "float32"), np.ones(other, "float32")
    expected = ATTENTIONS[name]()
    expected(*tensors)
    for shapes in ((one, other), ([one, other],), ((one, list(other)),), ([one, other, other],)):
        layer = ATTENTIONS[name]()
        layer.build(*shapes)
        assert [weight.shape for weight in layer.weights] == [weight.shape for weight in expected.weights]
        assert layer.compute_output_shape(*shapes) == layer(*tensors).shape == (2, 3, 6)
    for shape in (one, list(one)):
        layer = ATTENTIONS[name]()
        layer.build(shape)
        assert layer.compute_output_shape(shape) == layer(tensors[0], tensors[0]).shape == one


@pytest.mark.parametrize("shapes", [(2, 3, 8), [(2, 3, 8), (2, 5, 8)]], ids=["one", "list"])
def test_a_layer_built_by_each_form_is_saved(shapes, tmp_path):
    layer = LuongAttention("general")
    layer.build(shapes)
    query, value = keras.Input((3, 8)), keras.Input((5, 8))
    model = keras.Model([query, value], layer(query, value))
    model.save(tmp_path / "model.keras")
    loaded, arrays = keras.models.load_model(tmp_path / "model.keras"), [ones(2, 3, 8), ones(2, 5, 8)]
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(one(arrays)) for one in (loaded, model)))


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ((3, 8), r"Expected: query of shape \(B, T, Dq\).*Received: query.shape=\(3, 8\)"),
        (8, r"Expected: query_shape and value_shape, a list of these.*or one shape of both. Received: 8"),
        (None, r"Expected: query_shape and value_shape.*Received: None"),
        ({"query": (2, 3, 8)}, r"Expected: query_shape and value_shape.*Received: {'query'"),
        ([(2, 3, 8)], r"Expected: query_shape and value_shape.*Received: \[\(2, 3, 8\)\]"),
        ([(2, 3, 8), None], r"Expected: query_shape and value_shape.*Received: \[\(2, 3, 8\), None\]"),
        ([(2, 3, 8), 5], r"Expected: query_shape and value_shape.*Received: \[\(2, 3, 8\), 5\]"),
        ([(2, 3, 8)] * 4, r"Expected: query_shape and value_shape.*Received: .*8\)\]"),
        ([(2, 3, 8), (4, 5, 8)], r"Expected: value of shape \(2, S, Dv\).*Received: .*value.shape=\(4, 5, 8\)"),
        ([(2, 3, 8), (2, 5, 8), (2, 5, 7)], r"Expected: key of shape \(2, 5, 8\).*Received: .*key.shape=\(2, 5, 7\)"),
    ],
)
def test_forms_of_build_that_are_none(name, shapes, message):
    for method in ("build", "compute_output_shape"):
        with pytest.raises(ValueError, match=message):
            getattr(ATTENTIONS[name](), method)(shapes)


def test_forms_of_build_with_a_memory():
    inputs, memory = (4, 3, 8), (4, 5, 8)
    layer = rnn()
    layer.build([inputs, memory])
    assert layer.compute_output_shape([inputs, memory]) == layer(QUERY, VALUE).shape == (4, 8)
    cell = rnn().cell
    cell.build([(4, 8), memory])
    assert cell.depths == {"E": 8, "Dv": 8}
    for one, shape in ((rnn(), inputs), (rnn().cell, (4, 8)), (rnn(), [inputs]), (rnn(), [inputs, memory, memory])):
        with pytest.raises(
            ValueError, match=r"Expected: inputs_shape and memory_shape, or a list of.*Received: .4|\[\("
        ):
            one.build(shape)


def test_the_message():
    with pytest.raises(
        ValueError, match=r"^Layer cannot take a `value` of this shape. Expected: value of shape \(4, S, 8"
    ) as found:
        check_shapes("Layer", {"query": ((4, None, 8), "B T Dq"), "value": ((1, 5, 7), "B S Dv")}, Dv=8)
    assert str(found.value).endswith("Received: query.shape=(4, None, 8), value.shape=(1, 5, 7)")
    check_shapes("Layer", {"query": ((None, None, 8), "B T Dq"), "value": (None, "B S Dv")}, Dq=None)
