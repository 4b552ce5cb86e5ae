"""Artefacts of lower precision: what their files hold, what the loss is, and when it fails the export."""

import json
import pathlib
from typing import Any

import keras
import numpy as np
import onnx
import pytest

from keras_attention import UserError
from keras_attention.export import console as commands
from keras_attention.export import errors, export, runtime, verify
from keras_attention.export.formats.to_onnx import convert as to_onnx
from keras_attention.export.formats.to_onnx import weights as onnx_weights
from keras_attention.export.formats.to_onnx.contents import QUANTISED_LSTM
from keras_attention.export.formats.to_tflite import convert as litert
from keras_attention.export.parity import quality
from keras_attention.metrics.output_scores import score_outputs
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import train_tokenizer
from tests.export.test_export_artefact import dense_model, make_run
from tests.support.export_models import LINES, cheap, converters_here, tiny_model
from tests.support.parts import Made, fast

__all__ = ["cheap", "converters_here"]

SIZES = {"embedding_size": 48, "encoder_units": 32, "decoder_units": 64}
"""Large enough that converters find it worth while to quantise."""
PRECISIONS = ("float32", "float16", "dynamic_int8")
TOKENIZERS = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
VOCABULARIES = {
    "source_vocabulary": TOKENIZERS[0].vocabulary_size,
    "target_vocabulary": TOKENIZERS[1].vocabulary_size,
}


def export_at(precision: str, folder: pathlib.Path, **options: Any) -> Any:
    model = tiny_model(spread=0.2, **SIZES, **VOCABULARIES, **options.pop("config", {}))
    arguments: dict[str, Any] = {"samples": LINES, "references": LINES, "loss_limit": 100.0, "max_length": 11}
    return export(model, folder, precision=precision, tokenizers=TOKENIZERS, **arguments | options)


def large_constants(graph: onnx.GraphProto) -> dict[int, int]:
    """Numbers held by an ONNX graph's constants of more than 1024, by type."""
    counts: dict[int, int] = {}
    for constant in graph.initializer:
        if (count := int(np.prod(constant.dims))) > 1024:
            counts[constant.data_type] = counts.get(constant.data_type, 0) + count
    return counts


def tflite_constants(path: pathlib.Path) -> set[tuple[str, str]]:
    """The subgraph and the type of each constant of more than 1024 numbers."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    types = {number: name for name, number in vars(schema.TensorType).items() if not name.startswith("_")}
    return {
        (graph.name.decode(), types[tensor.type])
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None and np.prod(tensor.shape) > 1024
    }


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """The same model at every precision."""
    folder = tmp_path_factory.mktemp("precisions")

    def make(precision: str) -> pathlib.Path:
        with pytest.MonkeyPatch.context() as patch:
            cheap.__wrapped__(patch)
            export_at(precision, folder / precision, to=["tflite", "onnx"])
        return folder / precision

    return Made(make)


@pytest.mark.parametrize("backend", ["litert", "onnx"])
@pytest.mark.parametrize("precision", fast(["float16", "dynamic_int8"], "float16"))
def test_empty_slots_are_infinite(artefacts: dict[str, pathlib.Path], precision: str, backend: str) -> None:
    """No file stores the infinity that the graph writes where no word is allowed."""
    artefact = runtime.Artefact(artefacts[precision], backend)
    source = artefact.pad(artefact.encode(LINES[:2])) if artefact.source else np.array([[4, 5, 2]], np.int32)
    allowed = np.zeros(artefact.manifest["signatures"]["translate"]["inputs"]["allowed"]["axes"], bool)
    found = artefact.search(source, allowed=allowed)
    assert np.isneginf(found["scores"]).all()
    assert np.isneginf(found["log_probs"]).all()


def test_float16_files_hold_float16_alone(artefacts: dict[str, pathlib.Path]) -> None:
    assert {kind for _, kind in tflite_constants(artefacts["float16"] / "model.tflite")} == {"FLOAT16"}
    for name in ("encode", "decode_step", "translate"):
        graph = onnx.load(str(artefacts["float16"] / "onnx" / f"{name}.onnx")).graph
        assert set(large_constants(graph)) == {onnx.TensorProto.FLOAT16}


def test_int8_reaches_into_the_loops(artefacts: dict[str, pathlib.Path]) -> None:
    constants = tflite_constants(artefacts["dynamic_int8"] / "model.tflite")
    assert {kind for _, kind in constants} == {"INT8"}
    assert any("body" in name for name, _ in constants)
    graph = onnx.load(str(artefacts["dynamic_int8"] / "onnx" / "translate.onnx")).graph
    assert set(large_constants(graph)) == {onnx.TensorProto.INT8}
    (loop,) = [node for node in graph.node if node.op_type == "Loop"]
    body = loop.attribute[0].g
    quantised = [node for node in body.node if node.op_type == "MatMulInteger"]
    assert len(quantised) >= 4  # both products of the cell, the attentional layer, the output
    counts = to_onnx.operators(onnx.load(str(artefacts["dynamic_int8"] / "onnx" / "encode.onnx")).graph)
    assert counts[QUANTISED_LSTM] == 2


def tables(path: pathlib.Path, vocabulary: int) -> list[tuple[str, int, str]]:
    """Type, buffer and reader of each int8 constant with a row for each word, in a TFLite file."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found = []
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            for tensor in (graph.tensors[number] for number in operator.inputs if number >= 0):
                constant = model.buffers[tensor.buffer].data is not None and tensor.type == schema.TensorType.INT8
                if constant and len(tensor.shape) == 2 and tensor.shape[0] == vocabulary:
                    found.append((graph.name.decode(), tensor.buffer, names[code.builtinCode]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tie", ["all", "none"])
def test_tables_are_looked_up_in_int8(tmp_path: pathlib.Path, cheap: None, tie: str) -> None:
    """Rows are gathered as int8, in loops too, and none becomes floats as a whole; a tied table is stored once."""
    words = 211
    vocabularies = {"source_vocabulary": words, "target_vocabulary": words}
    model = tiny_model(**SIZES, **vocabularies, tie_embeddings=tie)
    # One loud row: a scale of the whole table would leave the others 1 of 127 steps each.
    layer = model.get_layer("embedding" if tie == "all" else "source_embedding")
    table = keras.ops.convert_to_numpy(layer.embeddings).copy()
    table[7] *= 100
    layer.embeddings.assign(table)
    former = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    export(model, tmp_path / "artefact", ["tflite", "onnx"], precision="dynamic_int8", max_length=11)
    for weight, value in zip(model.weights, former, strict=True):
        assert np.array_equal(np.asarray(weight), value)
    found = tables(tmp_path / "artefact" / "model.tflite", words)
    readers = {name for _, _, name in found}
    assert readers == {"GATHER", "FULLY_CONNECTED"}
    assert len({buffer for _, buffer, _ in found}) == (1 if tie == "all" else 3)
    assert any("body" in graph for graph, _, name in found if name == "GATHER")
    stored = {}
    for name in ("encode", "decode_step", "translate"):
        graph = onnx.load(str(tmp_path / "artefact" / "onnx" / f"{name}.onnx")).graph
        assert set(large_constants(graph)) == {onnx.TensorProto.INT8}
        matrices = [one for one in graph.initializer if len(one.dims) == 2 and one.data_type == onnx.TensorProto.INT8]
        stored[name] = sum(words in one.dims for one in matrices)
    assert stored == dict.fromkeys(stored, 1) | ({"decode_step": 2, "translate": 3} if tie == "none" else {})
    source = np.asarray([[4, 5, 6, 2]], np.int32)
    state, _ = EncoderDecoder(model).encode(source)
    for backend in ("litert", "onnx"):
        opened = runtime.Artefact(tmp_path / "artefact", backend)
        received = opened.backend.run("encode", {"source_ids": source})
        for name, value in state.items():
            # Steps of int8, each 1/127 of its row, through the layers: 0.03 seen.
            np.testing.assert_allclose(received[f"state_{name}"], np.asarray(value), atol=0.05)


def test_a_transposed_constant_is_stored_once() -> None:
    """A table, its transpose, and another of the same shape: two are kept, and the numbers stay."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    table, other = generator.normal(size=(2, 40, 9)).astype(np.float32)
    constants = {"table": table, "turned": np.ascontiguousarray(table.T), "other": np.ascontiguousarray(other.T)}
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"])]
    nodes += [helper.make_node("MatMul", ["rows", name], [f"{name}_logits"]) for name in ("turned", "other")]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [3])],
        [helper.make_tensor_value_info(f"{name}_logits", TensorProto.FLOAT, [3, 40]) for name in ("turned", "other")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx_weights.share_transposes(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [constant.name for constant in model.graph.initializer] == ["table", "other"]
    ids = np.asarray([7, 0, 39])
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"ids": ids})
    for logits, value in zip(found, (table, other), strict=True):
        np.testing.assert_allclose(logits, table[ids] @ value.T, rtol=1e-5, atol=1e-5)  # float32 sums of nine products


@pytest.mark.slow
def test_a_gru_is_stored_in_int8(tmp_path: pathlib.Path, cheap: None) -> None:
    model = tiny_model(**SIZES, cell="gru")
    export(model, tmp_path / "artefact", "onnx", precision="dynamic_int8", max_length=8, loss_limit=100.0)
    for name in ("encode", "translate"):
        graph = onnx.load(str(tmp_path / "artefact" / "onnx" / f"{name}.onnx")).graph
        assert sum(node.op_type == "GRU" for node in graph.node) == 2
        assert set(large_constants(graph)) == {onnx.TensorProto.INT8}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["dynamic_int8", "int8"])
def test_cell_states_are_handed_over_in_int8(tmp_path: pathlib.Path, cheap: None, precision: str) -> None:
    """LSTM nodes that know where rows end, and a loop that reads what stands around it, in whichever order."""
    model = tiny_model(**SIZES, bridge="copy")
    rows = [[4 + number % 9, *[5] * (number % 7), 2] for number in range(100)]
    ranges = {"calibration": rows} if precision == "int8" else {}
    options: dict[str, Any] = {"samples": rows[:9], "max_length": 8, "beam_size": 2, "loss_limit": 100.0}
    export(model, tmp_path / "artefact", "onnx", precision=precision, **options, **ranges)
    opened = runtime.Artefact(tmp_path / "artefact", "onnx")
    source = opened.pad(rows[:9])
    found, (state, _) = opened.backend.run("encode", {"source_ids": source}), EncoderDecoder(model).encode(source)
    for name in ("c_0", "h_0"):
        largest = np.abs(np.asarray(state[name])).max()
        # Steps of int8 through the layers and eight steps: half of it seen.
        np.testing.assert_allclose(found[f"state_{name}"], np.asarray(state[name]), atol=0.1 * largest)


@pytest.mark.slow
def test_files_shrink(artefacts: dict[str, pathlib.Path]) -> None:
    sizes = {
        name: (path / "onnx" / "decode_step.onnx").stat().st_size for name in PRECISIONS for path in [artefacts[name]]
    }
    assert sizes["float16"] < 0.65 * sizes["float32"]  # half the weights; the graph itself stays
    assert sizes["dynamic_int8"] < 0.5 * sizes["float32"]  # a quarter of the weights; the graph itself stays


@pytest.mark.parametrize("precision", ["float16", "dynamic_int8"])
def test_the_loss_is_measured_and_travels_with_the_artefact(artefacts: dict[str, pathlib.Path], precision: str) -> None:
    manifest = json.loads((artefacts[precision] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["precision"] == precision
    for parity in verify(artefacts[precision]):
        assert parity.loss is not None
        assert parity.loss.metric == "bleu"
        assert parity.loss.sentences == len(LINES)
        assert 0 < parity.loss.token_agreement <= 100
        assert parity.host_loop_sentences == len(LINES)
    report = (artefacts[precision] / "report.md").read_text(encoding="utf-8")
    assert f"Precision: {precision}." in report
    assert "of tokens as Keras" in report
    for parity in verify(artefacts[precision]):
        assert parity.loss is not None
        assert f"| {parity.loss.same} of {len(LINES)} |" in report


@pytest.mark.slow
def test_float32_has_no_loss(artefacts: dict[str, pathlib.Path]) -> None:
    strict = verify(artefacts["float32"])
    assert all(parity.loss is None and parity.identical == len(LINES) for parity in strict)


@pytest.mark.slow
def test_a_loss_above_the_limit_fails(
    tmp_path: pathlib.Path, converters_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights spoilt on the way into the file: the score tells, against what Keras itself translates."""
    model = tiny_model(spread=0.2, **SIZES, **VOCABULARIES)
    arguments: dict[str, Any] = {"samples": LINES, "tokenizers": TOKENIZERS, "max_length": 11, "task": "exact"}
    first = export(model, tmp_path / "first", "onnx", precision="float16", **arguments)
    assert any("no references were given" in warning for warning in first.warnings)
    best = [found[0].text for found in runtime.Artefact(tmp_path / "first").translate(LINES)]
    export(model, tmp_path / "second", "onnx", precision="float16", references=best, loss_limit=0.0, **arguments)
    spoil = onnx_weights.to_float16

    def spoilt(model: Any) -> Any:
        for constant in model.graph.initializer:
            if constant.data_type == onnx.TensorProto.FLOAT and np.prod(constant.dims) > 1024:
                values = onnx.numpy_helper.to_array(constant)
                constant.CopyFrom(onnx.numpy_helper.from_array(-values, constant.name))
        return spoil(model)

    monkeypatch.setattr(onnx_weights, "to_float16", spoilt)
    with pytest.raises(errors.VerificationError, match=r"Verification failed in \d+ places") as caught:
        export(model, tmp_path / "third", "onnx", precision="float16", references=best, **arguments)
    # Single graphs tell it, too: none is off by rounding alone.
    assert {"onnx encode", "onnx decode_step"} <= set(caught.value.places)
    assert not (tmp_path / "third").exists()


@pytest.mark.slow
def test_no_recurrence_and_tied_embeddings(tmp_path: pathlib.Path, cheap: None) -> None:
    """Tied embeddings give an output layer that is the transposed table: a constant too. Stacked kernels stay float."""
    config = {
        "cell": "self_attention",
        "attention": "scaled_dot",
        "attention_heads": 2,
        "encoder_units": 64,
        "tie_embeddings": "target",
    }
    model = tiny_model(spread=0.2, **SIZES | VOCABULARIES | config)
    export(model, tmp_path / "artefact", ["tflite", "onnx"], precision="dynamic_int8", max_length=11)
    graph = onnx.load(str(tmp_path / "artefact" / "onnx" / "translate.onnx")).graph
    counts = large_constants(graph)
    kernels = model.get_layer("encoder"), model.get_layer("decoder")
    stacked = sum(int(np.prod(w.shape)) for layer in kernels for w in layer.weights if w.name == "value_kernel")
    assert counts.pop(onnx.TensorProto.FLOAT) == stacked
    assert set(counts) == {onnx.TensorProto.INT8}


@pytest.mark.slow
def test_a_run_has_references_of_its_own(tmp_path: pathlib.Path, cheap: None) -> None:
    run = make_run(tmp_path / "run")
    samples = run.samples()
    assert run.references() == []
    accepted = [[text.replace("\t", " "), "other"] for text in samples]
    (run.path / "references.txt").write_text("".join("\t".join(row) + "\n" for row in accepted), encoding="utf-8")
    assert RunDirectory.open(run.path).references() == accepted
    folder = commands.export_run(run.path, None, tmp_path / "artefact", precision="float16", max_length=9)
    assert not (folder / "saved_model").exists()
    assert [parity.loss.metric for parity in verify(folder) if parity.loss] == ["bleu", "bleu"]
    (run.path / "references.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"does not fit samples.txt. Expected: \d+ lines. Received: 1"):
        commands.export_run(run.path, None, tmp_path / "other", precision="float16")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["litert", "onnx"])
@pytest.mark.parametrize("precision", ["float16", "dynamic_int8"])
def test_what_is_refused_stays_refused(precision: str, backend: str, tmp_path: pathlib.Path, cheap: None) -> None:
    """Tables of so large a vocabulary are constants of the file, and float16 cannot hold the score for "never"."""
    model = tiny_model(target_vocabulary=300)
    format_ = {"litert": "tflite", "onnx": "onnx"}[backend]
    export(model, tmp_path / "artefact", format_, precision=precision, beam_size=3, max_length=8)
    artefact = runtime.Artefact(tmp_path / "artefact", backend)
    source = [[4, 5, 6, 2]]
    for allowed, least, length in ((2, 3, 0), (2, 0, 1), (7, 0, 8)):
        knobs = {"allowed": np.arange(300) == allowed, "min_length": least}
        for host_loop in (False, True):
            found = artefact.search(source, host_loop=host_loop, **knobs)
            assert found["lengths"].tolist() == [[length, 0, 0]]
            assert np.isfinite(found["scores"]).tolist() == [[length > 0, False, False]]


def test_a_model_that_translates_nothing(tmp_path: pathlib.Path, cheap: None) -> None:
    report = export(dense_model(), tmp_path / "artefact", precision="float16")
    assert [parity.format for parity in report.parities] == ["tflite", "onnx"]
    assert all(parity.loss is None for parity in report.parities)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (7e4, "too large for float16. Expected: at most 65504"),
        (1e-9, "too small for float16. Expected: at least 6e-05"),
    ],
)
def test_weights_that_float16_cannot_hold(tmp_path: pathlib.Path, value: float, fault: str) -> None:
    """TFLite would change them, silently; ONNX keeps them."""
    model = dense_model()
    model.layers[-1].kernel.assign(np.full((3, 2), value))
    with pytest.raises(UserError, match=rf"kernel is {fault}.* Received: {value:g}"):
        export(model, tmp_path / "artefact", precision="float16")
    assert not list(tmp_path.iterdir())
    weights = np.full(300, value, np.float32)
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(weights, "w")])
    (kept,) = onnx_weights.to_float16(onnx.helper.make_model(graph)).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(kept), weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "Unknown precision. Expected: one of float32, float16, dynamic_int8"),
        ({"to": "saved_model"}, "saved_model cannot hold float16. Expected: --to tflite onnx"),
        ({"references": ["one"]}, "References do not fit the samples. Expected: 6, one line each. Received: 1"),
        ({"references": [[]] * 6}, "A sample has no reference"),
        ({"task": "haiku"}, "Unknown task. Expected: one of translation, g2p, exact"),
        ({"loss_limit": float("nan")}, "loss limit is out of range"),
    ],
)
def test_mistakes(tmp_path: pathlib.Path, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"precision": "float16", "samples": LINES, "tokenizers": TOKENIZERS}
    with pytest.raises(UserError, match=message):
        export(tiny_model(), tmp_path / "artefact", **arguments | options)
    assert not (tmp_path / "artefact").exists()


def test_lines_of_two_files_stay_together(tmp_path: pathlib.Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("\ufeffone\n\ntwo\n", encoding="utf-8")
    other.write_text("eins\nX\nzwei\tzwo\n", encoding="utf-8")
    assert commands.read_pairs(one, other) == (["one", "two"], [["eins"], ["zwei", "zwo"]])
    other.write_text("eins\nzwei\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"does not fit .*one. Expected: 3 lines. Received: 2"):
        commands.read_pairs(one, other)


def test_references_need_their_sentences(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="Expected: --sentences beside --references"):
        commands.export_run(tmp_path, references=tmp_path / "lines")


def test_points_of_a_loss() -> None:
    """By hand: one of two translations differs, in one of its two words."""
    references = [["a b"], ["c d", "c"]]
    texts = ["a b", "c"], ["a b", "d"]
    task = quality.Task("g2p")
    loss = quality.measure([[4, 5], [6]], [[4, 5], [7]], texts, references, task)
    assert (loss.sentences, loss.same, loss.metric, loss.keras, loss.artefact) == (2, 1, "wer", 0.0, 50.0)
    assert loss.points == 50.0
    assert loss.token_agreement == pytest.approx(100 * 2 / 3)
    exact = quality.measure([[4, 5], [6]], [[4, 5], [7]], texts, references, quality.Task("exact"))
    assert exact.points == 50.0
    assert score_outputs("exact", ["a b"], [["a b"]])["exact_match"] == 100.0
    assert quality.measure([[4]], [[4]], None, references, task).metric == ""


def test_the_tflite_converter_keeps_operators_built_in(artefacts: dict[str, pathlib.Path]) -> None:
    for path in [artefacts[name] for name in PRECISIONS[1:]]:
        assert litert.operators((path / "model.tflite").read_bytes())["custom"] == {}
