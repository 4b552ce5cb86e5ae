"""ONNX in int8: fixed ranges for activations, taken from real decoding; what the files hold and what they cost."""

import json
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_attention import UserError
from keras_attention.export import export, runtime, verify
from keras_attention.export.formats.calibration import SEQUENCES, STEPS
from keras_attention.export.formats.to_onnx import int8 as onnx_int8
from keras_attention.export.formats.to_onnx import int8_plan as static_int8
from keras_attention.export.formats.to_onnx import weights as onnx_weights
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.text.tokenizers import train_tokenizer
from tests.export.test_export_artefact import dense_model
from tests.export.test_export_npu import rows
from tests.support.export_models import LINES, cheap, tiny_model
from tests.support.parts import Made, fast

__all__ = ["cheap"]

LIMITS: dict[str, Any] = {"max_length": 8, "beam_size": 3, "loss_limit": 100.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "lstm": {"encoder_units": 40, "decoder_units": 72, "embedding_size": 44},
    "gru, fed, tied": {"cell": "gru", "input_feeding": True, "tie_embeddings": "target", "encoder_layers": 2},
    "heads": {"attention": "scaled_dot", "attention_heads": 2, "decoder_units": 14},
}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[pathlib.Path, Any, Any]]:
    """For each config its folder, its report, and the model."""
    home = tmp_path_factory.mktemp("int8")

    def make(name: str) -> tuple[pathlib.Path, Any, Any]:
        model, text = tiny_model(spread=0.3, **CONFIGS[name]), {"samples": rows(6), "calibration": rows(SEQUENCES)}
        with pytest.MonkeyPatch.context() as patch:
            cheap.__wrapped__(patch)
            return home / name, export(model, home / name, precision="int8", **LIMITS, **text), model

    return Made(make)


def graphs_of(folder: pathlib.Path) -> dict[str, onnx.GraphProto]:
    return {path.stem: onnx.load(str(path)).graph for path in (folder / "onnx").iterdir()}


@pytest.mark.parametrize("name", fast(CONFIGS, "lstm"))
def test_products_read_and_give_int8(artefacts: dict[str, tuple[pathlib.Path, Any, Any]], name: str) -> None:
    """Each product, but one with a stack of kernels, has int8 at both inputs and at its output."""
    folder, report, _ = artefacts[name]
    assert list(report.parities[0].operators) == ["encode", "decode_step"] == sorted(graphs_of(folder))[::-1]
    products = 0
    for graph in graphs_of(folder).values():
        makers = {output: node for node in graph.node for output in node.output}
        readers: dict[str, list[str]] = {}
        for node in graph.node:
            for read in node.input:
                readers.setdefault(read, []).append(node.op_type)
        ranks = {constant.name: len(constant.dims) for constant in graph.initializer}
        for node in graph.node:
            if node.op_type not in ("MatMul", "Gemm") or ranks.get(node.input[1], 2) > 2:
                continue
            products += 1
            assert [makers[read].op_type for read in node.input[:2]] == ["DequantizeLinear"] * 2
            assert readers[node.output[0]] == ["QuantizeLinear"]
    assert products >= 5


@pytest.mark.parametrize("name", fast(CONFIGS, "lstm"))
def test_files_hold_int8_alone(artefacts: dict[str, tuple[pathlib.Path, Any, Any]], name: str) -> None:
    folder, report, _ = artefacts[name]
    for graph_name, graph in graphs_of(folder).items():
        large = [one for one in graph.initializer if np.prod(one.dims) > 700]  # biases and scales are smaller
        assert large or name != "lstm"
        assert [one.name for one in large if one.data_type != TensorProto.INT8] == []
        counts = report.parities[0].operators[graph_name]
        assert not set(counts) & {"Loop", "Scan", "If"}
        assert all("." not in operator for operator in counts)
        cell, nodes = ("GRU", 4) if name.startswith("gru") else ("LSTM", 2)
        assert counts.get(cell, 0) == (nodes if graph_name == "encode" else 0)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["formats"]["onnx"]["signatures"] == ["encode", "decode_step"]


@pytest.mark.parametrize("name", fast(CONFIGS, "lstm"))
def test_numbers_stay_near_those_of_keras(artefacts: dict[str, tuple[pathlib.Path, Any, Any]], name: str) -> None:
    """255 steps over what was seen: a few hundredths, after some products one behind the other."""
    folder, _, model = artefacts[name]
    net, artefact = EncoderDecoder(model), runtime.Artefact(folder)
    source = np.asarray(rows(SEQUENCES)[:1], np.int32)
    encoded = artefact.backend.run("encode", {"source_ids": source})
    state, memory = net.encode(source)
    for key, value in state.items():
        np.testing.assert_allclose(encoded[f"state_{key}"], np.asarray(value), atol=0.05)  # 0.012 seen
    stepped = artefact.backend.run("decode_step", {"token_ids": np.asarray([1], np.int32), **encoded})
    log_probs, _, _ = net.step(np.asarray([1], np.int32), state, memory)
    # Log-probabilities go down to -6, and so have longer steps: 0.08 seen.
    np.testing.assert_allclose(stepped["log_probs"], np.asarray(log_probs), atol=0.3)


def test_verify_searches_on_the_host(artefacts: dict[str, tuple[pathlib.Path, Any, Any]]) -> None:
    folder, _, _ = artefacts["lstm"]
    (parity,) = verify(folder)
    assert parity.loss is not None
    assert parity.loss.sentences == 6
    assert parity.host_loop_sentences == parity.sentences == 6
    found = runtime.Artefact(folder).search(np.asarray([[4, 5, 2]]))
    other = runtime.Artefact(folder).search(np.asarray([[4, 5, 2]]), host_loop=True)
    assert found["ids"].tolist() == other["ids"].tolist()


def test_ranges_are_those_of_the_calls(tmp_path: pathlib.Path) -> None:
    """`y = x W` by hand: scales span what was seen of x and y; a column of W has that of its largest number."""
    weights = np.asarray([[1.0, 127.0], [-0.5, 0.0]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tmp_path / "one.onnx")
    calls = [{"x": np.asarray([[0.0, -1.0]], np.float32)}, {"x": np.asarray([[2.0, 0.5], [1.0, 0.0]], np.float32)}]
    onnx_int8.write_calls(tmp_path / "one.npz", calls)
    again = list(onnx_int8.read_calls(tmp_path / "one.npz"))
    assert [call["x"].tolist() for call in again] == [call["x"].tolist() for call in calls]
    made = onnx_int8.convert(tmp_path / "one.onnx", again).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in made.initializer}
    assert constants["x_scale"] == pytest.approx(3.0 / 255)
    # y came to 0.5, 0, 1.75, 254, 1 and 127, and a range holds 0
    assert constants["y_scale"] == pytest.approx(254.0 / 255)
    np.testing.assert_allclose(constants["w_scale"], [1.0 / 127, 1.0], rtol=1e-6)  # float32
    assert constants["w_quantized"].tolist() == [[127, 127], [-64, 0]]


def test_weights_of_recurrent_nodes() -> None:
    """Each row of each gate and direction within half a step of its own scale."""
    generator = np.random.default_rng(0)
    kernel = generator.normal(size=(2, 12, 5)).astype(np.float32) * 10.0 ** generator.integers(-3, 2, (2, 12, 1))
    recurrent = generator.normal(size=(2, 12, 3))
    constants = [
        numpy_helper.from_array(value.astype(np.float32), name) for value, name in ((kernel, "W"), (recurrent, "R"))
    ]
    node = helper.make_node("LSTM", ["x", "W", "R"], ["y"], hidden_size=3, direction="bidirectional")
    graph = helper.make_graph([node], "one", [], [], constants)
    onnx_weights.store_recurrent(graph)
    stored = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    assert {constant.data_type for constant in graph.initializer} == {TensorProto.INT8, TensorProto.FLOAT}
    assert stored["W/int8"].dtype == np.int8
    assert stored["W/scale"].shape == (2, 12, 1)
    error = np.abs(stored["W/int8"] * stored["W/scale"] - kernel)
    assert (error <= 0.501 * stored["W/scale"]).all()  # rounded to the nearest step, in float32
    assert [one.op_type for one in graph.node][-1] == "LSTM"


@pytest.mark.slow
def test_some_steps_of_every_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, cheap: None) -> None:
    kept: dict[str, int] = {}
    write = onnx_int8.write_calls

    def counted(path: pathlib.Path, calls: Any) -> None:
        kept[path.stem] = len(calls)
        write(path, calls)

    monkeypatch.setattr(onnx_int8, "write_calls", counted)
    sentences = [LINES[number % len(LINES)] for number in range(SEQUENCES)]
    tokenizers = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers]
    model = tiny_model(spread=0.3, source_vocabulary=sizes[0], target_vocabulary=sizes[1])
    text: dict[str, Any] = {"tokenizers": tokenizers, "samples": LINES, "references": LINES, "calibration": sentences}
    report = export(model, tmp_path / "artefact", precision="int8", task="exact", **LIMITS, **text)
    assert kept["encode"] == SEQUENCES
    assert SEQUENCES < kept["decode_step"] <= STEPS * SEQUENCES
    assert report.parities[0].loss.metric == "exact_match"
    assert "Precision: int8." in (tmp_path / "artefact" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite"}, "tflite cannot hold int8. Expected: --to onnx npu"),
        ({"text": True}, "Expected: no --text"),
        ({"calibration": rows(99)}, "Expected: at least 100 of them"),
        ({"calibration": None}, "Received: 6 and 0"),
        ({"groups": 3}, "which knows no groups of a diverse beam"),
        ({"method": "sample"}, "which knows no method sample"),
        ({"method": "agreement"}, "which knows no method agreement"),
        ({"stop": "best"}, "which knows no early stop"),
    ],
)
def test_mistakes(tmp_path: pathlib.Path, options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"samples": rows(6), "calibration": rows(SEQUENCES), **LIMITS}
    with pytest.raises(UserError, match=message):
        export(tiny_model(), tmp_path / "artefact", precision="int8", **given | options)
    assert not (tmp_path / "artefact").exists()


def test_a_model_that_translates_nothing(tmp_path: pathlib.Path) -> None:
    samples = [np.zeros((1, 3), np.float32)] * 101
    with pytest.raises(UserError, match="Expected: a translator of build_seq2seq"):
        export(dense_model(), tmp_path / "artefact", precision="int8", samples=samples[:1], calibration=samples)
    assert static_int8.GRAPHS == ("encode", "decode_step")


def test_openvino_says_that_it_cannot(artefacts: dict[str, tuple[pathlib.Path, Any, Any]]) -> None:
    """It wants the weights of a recurrent node as they are."""
    folder, _, _ = artefacts["lstm"]
    with pytest.raises(runtime.ArtefactError, match=r"OpenVINO cannot read .*encode.onnx .*Expected: a float32 export"):
        runtime.Artefact(folder, "openvino").search(np.asarray([[4, 5, 2]]))
