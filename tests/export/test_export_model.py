"""`export` of a user's own model: any functional model, its call as the one signature."""

import pathlib
from typing import Any

import keras
import numpy as np
import pytest

from keras_attention import AttentionCell, AttentionRNN, LuongAttention, MultiHeadLuongAttention, UserError
from keras_attention.export import export
from keras_attention.export.errors import ConversionError
from keras_attention.export.graphs.functional import model_graph, partitions
from keras_attention.export.graphs.loops import recurrent_layers, run_masked_cell, stepped, stepping_layers
from tests.support.export_models import cheap
from tests.support.parts import fast

__all__ = ["cheap"]


def classifier() -> keras.Model:
    words = keras.Input((None,), dtype="int32", name="words")
    mask = keras.ops.not_equal(words, 0)
    states = keras.layers.Bidirectional(keras.layers.LSTM(7, return_sequences=True))(
        keras.layers.Embedding(13, 5)(words)
    )
    query = keras.layers.GlobalAveragePooling1D(keepdims=True)(states)
    context, weights = LuongAttention(score="general")(query, states, value_mask=mask, return_attention_scores=True)
    classes = keras.layers.Dense(3, activation="softmax", name="classes")(context[:, 0])
    return keras.Model({"words": words}, {"classes": classes, "weights": weights[:, 0]})


def test_a_classifier_in_three_formats(tmp_path: pathlib.Path, cheap: None) -> None:
    samples = [{"words": np.array([[3, 4, 5, 0], [7, 0, 0, 0]])}, {"words": np.array([[1, 2, 3, 4, 5, 6, 7]])}]
    report = export(classifier(), tmp_path / "artefact", samples=samples)
    assert {parity.format: parity.cases for parity in report.parities} == {"saved_model": 2, "tflite": 2, "onnx": 2}
    onnx = next(parity for parity in report.parities if parity.format == "onnx").operators["call"]
    assert (onnx["LSTM"], onnx.get("Loop", 0)) == (1, 0)
    assert not (tmp_path / "artefact" / "runtime").exists()


def test_masked_recurrent_layers(tmp_path: pathlib.Path, cheap: None) -> None:
    """Embedding masks, a GRU, a backward LSTM with its states: all within TFLite's built-in operators."""
    words = keras.Input((None,), dtype="int32", name="words")
    states = keras.layers.Embedding(13, 5, mask_zero=True)(words)
    states = keras.layers.Bidirectional(keras.layers.GRU(7, return_sequences=True))(states)
    states, h, c = keras.layers.LSTM(11, return_sequences=True, return_state=True, go_backwards=True)(states)
    model = keras.Model(words, {"attended": LuongAttention("concat")(states, states), "h": h, "c": c})
    samples = [np.array([[3, 4, 5, 0, 0], [7, 8, 9, 1, 2]]), np.array([[3, 0], [7, 6], [5, 0]])]
    report = export(model, tmp_path / "artefact", "litert", samples=samples)
    assert report.parities[0].operators["custom"] == {}
    assert not any("inner_loop" in vars(layer) for layer in recurrent_layers(model))


ATTENTIONS = {
    "coverage": lambda: LuongAttention("additive", use_coverage=True),
    "monotonic heads": lambda: MultiHeadLuongAttention(2, 3, alignment="monotonic"),
    "local-p and sparsemax": lambda: [
        LuongAttention(window="local_p", half_width=2),
        LuongAttention(alignment="sparsemax"),
    ],
}


@pytest.mark.parametrize(
    ("name", "feeding"),
    fast([("coverage", False), ("monotonic heads", True), ("local-p and sparsemax", True)], ("coverage", False)),
)
def test_attention_rnn_in_a_model(name: str, feeding: bool, tmp_path: pathlib.Path, cheap: None) -> None:
    """Whole sequences through recurrent attention: TFLite's built-in operators, ONNX, the same numbers."""
    words = keras.Input((None, 5), name="words")
    memory, mask = keras.Input((None, 7), name="memory"), keras.Input((None,), dtype="bool", name="memory_mask")
    cell = AttentionCell(
        [keras.layers.LSTMCell(11), keras.layers.GRUCell(3)], ATTENTIONS[name](), 13, input_feeding=feeding
    )
    outputs, weights = AttentionRNN(cell, return_sequences=True, name="decoder")(
        words, memory, memory_mask=mask, return_attention_scores=True
    )
    model = keras.Model([words, memory, mask], {"outputs": outputs, "weights": weights})
    report = export(model, tmp_path / "artefact", ["tflite", "onnx"])
    assert report.parities[0].operators["custom"] == {}
    assert all("recurrence" not in vars(layer) for layer in stepping_layers(model))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_without_masks_are_nodes_of_onnx(kind: str, tmp_path: pathlib.Path, cheap: None) -> None:
    """Both directions, sequences and final states; the layers are afterwards what they were."""
    layer = {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU}[kind]
    words = keras.Input((None, 3), name="words")
    states = keras.layers.Bidirectional(layer(7, return_sequences=True))(words)
    sequence, final, *_ = layer(5, return_sequences=True, return_state=True)(states)
    model = keras.Model(words, {"sequence": sequence, "final": final})
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape))
    report = export(model, tmp_path / "artefact", "onnx")
    counts = report.parities[0].operators["call"]
    assert (counts[kind], counts.get("Loop", 0)) == (2, 0)  # one node reads in both directions
    assert not any("inner_loop" in vars(layer) for layer in recurrent_layers(model))


@pytest.mark.parametrize(
    "arguments", [{"reset_after": False}, {"activation": keras.layers.LeakyReLU()}, {"use_bias": False}]
)
def test_other_grus_stay_loops(arguments: dict[str, Any], tmp_path: pathlib.Path, cheap: None) -> None:
    words = keras.Input((None, 3), name="words")
    model = keras.Model(words, {"final": keras.layers.GRU(5, **arguments)(words)})
    report = export(model, tmp_path / "artefact", "onnx")
    assert report.parities[0].operators["call"]["Loop"] == 1


@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_stepped_cell_equals_the_layer(backwards: bool, zero_output: bool) -> None:
    layer = keras.layers.GRU(
        7, return_sequences=True, return_state=True, go_backwards=backwards, zero_output_for_mask=zero_output
    )
    inputs = np.random.default_rng(1).normal(size=(3, 5, 2)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    expected, state = layer(inputs, mask=mask)
    last, outputs, states = run_masked_cell(
        layer.cell, inputs, [np.zeros((3, 7), "float32")], mask, backwards, zero_output
    )
    np.testing.assert_allclose(outputs, expected, atol=1e-6)  # float32 sums of seven products
    np.testing.assert_allclose(states[0], state, atol=1e-6)  # likewise
    assert last.shape == (3, 7)


def test_stepping_ends_with_its_context() -> None:
    model = classifier()
    words = np.array([[3, 4, 5, 0]])
    expected = model({"words": words})["classes"]
    with stepped(model):
        # The same float32 sums, step by step.
        np.testing.assert_allclose(model({"words": words})["classes"], expected, atol=1e-6)
    assert not any("inner_loop" in vars(layer) for layer in recurrent_layers(model))


def test_inputs_that_share_a_length_share_its_name() -> None:
    query, memory = keras.Input((None, 3), name="query"), keras.Input((None, 5), name="memory")
    mask = keras.Input((None,), dtype="bool", name="memory_mask")
    outputs = LuongAttention(name="attention")(query, memory, value_mask=mask, return_attention_scores=True)
    graph = model_graph(keras.Model([query, memory, mask], outputs))
    assert [port.axes for port in graph.inputs] == [
        ("batch", "query_length", 3),
        ("batch", "memory_length", 5),
        ("batch", "memory_length"),
    ]
    assert [(port.name, port.axes) for port in graph.outputs] == [
        ("attention", ("batch", "query_length", 5)),
        ("attention_1", ("batch", "query_length", "memory_length")),
    ]


def test_partitions() -> None:
    assert len(list(partitions(list("abcd")))) == 15  # the fourth Bell number
    assert list(partitions(["a", "b"])) == [[["a"], ["b"]], [["a", "b"]]]


def test_what_is_not_functional() -> None:
    class Subclassed(keras.Model):  # type: ignore[misc]
        def call(self, inputs: object) -> object:
            return inputs

    with pytest.raises(UserError, match="Only a functional model"):
        model_graph(Subclassed())
    text = keras.Input((), dtype="string", name="text")
    with pytest.raises(UserError, match="holds text"):
        model_graph(keras.Model(text, keras.layers.Identity()(text)))


def test_lower_precisions_are_refused(tmp_path: pathlib.Path) -> None:
    inputs = keras.Input((3,), name="features")
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="mixed_float16")(inputs))
    with pytest.raises(UserError, match=r"computes in float16. Expected: float32 in every layer"):
        export(model, tmp_path / "artefact", "tflite")
    assert list(tmp_path.iterdir()) == []


def test_an_operator_without_a_builtin_form(tmp_path: pathlib.Path) -> None:
    """The converter's refusal is one line that names the operator, and leaves nothing behind."""
    inputs = keras.Input((3,), name="features")
    model = keras.Model(inputs, keras.ops.erfinv(inputs))
    with pytest.raises(ConversionError, match=r"TFLite converter refused the model: .*Erfinv"):
        export(model, tmp_path / "artefact", "tflite")
    assert list(tmp_path.iterdir()) == []
