"""Estimates before training against what is measured on the exported files: within 10 %."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import onnx
import pytest

from keras_attention import Seq2SeqConfig, UserError, build_seq2seq
from keras_attention.export import console as commands
from keras_attention.export import export
from keras_attention.export.formats.to_npu import vela
from keras_attention.export.report import cost as estimates
from keras_attention.models.encoder_decoder import EncoderDecoder
from tests.support.command import run_command
from tests.support.export_models import cheap
from tests.support.parts import Made, fast

__all__ = ["cheap"]

SOURCE, TARGET, BEAM = 12, 8, 3
WITHIN, NEARLY = 0.1, 0.05
"""The promise, and what ONNX and Vela keep: headers of files, small nodes and what converters add are not counted."""
CONFIGS: dict[str, dict[str, Any]] = {
    "tied": {"tie_embeddings": "target", "embedding_size": 96, "encoder_layers": 2, "decoder_units": 192},
    "heads, gru": {"attention": "scaled_dot", "attention_heads": 4, "cell": "gru", "decoder_units": 192},
    "gnmt": {"style": "gnmt", "decoder_layers": 3},
    "none": {"attention": "none", "bridge": "dense"},
    "plain": {},
    "self-attention": {
        "cell": "self_attention",
        "attention": "scaled_dot",
        "attention_heads": 4,
        "encoder_units": 128,
        "decoder_units": 128,
        "encoder_layers": 2,
        "decoder_layers": 2,
    },
}
EXPORTED = [name for name in CONFIGS if name not in ("none", "plain")]


def config_of(name: str) -> Seq2SeqConfig:
    sizes: dict[str, Any] = {"embedding_size": 64, "encoder_units": 96, "decoder_units": 160}
    return Seq2SeqConfig(900, 1100, **(sizes | CONFIGS[name]))


def onnx_macs(path: pathlib.Path) -> int:
    """Multiply-accumulates of a graph without loops: products by the shapes that they have at these lengths."""
    model = onnx.load(str(path))
    for info in model.graph.input:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = {"batch": 1, "source_length": SOURCE}[dim.dim_param]
    names = {output.name for output in model.graph.output}
    wanted = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "LSTM", "GRU")]
    more = {name for node in wanted for name in [*node.input, *node.output] if name}
    constants = {constant.name: tuple(constant.dims) for constant in model.graph.initializer}
    import onnxruntime

    feeds = {}
    for info in model.graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        feeds[info.name] = np.ones(shape, onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
    inner = sorted(more - set(constants) - set(feeds) - names)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run([*inner, *names], feeds)
    shapes = constants | {name: value.shape for name, value in zip([*inner, *names], values, strict=True)}
    shapes |= {name: value.shape for name, value in feeds.items()}
    total = 0
    for node in wanted:
        if node.op_type in ("LSTM", "GRU"):
            kernel, recurrent = (shapes[name] for name in node.input[1:3])
            total += SOURCE * (int(np.prod(kernel)) + int(np.prod(recurrent)))
        else:
            total += int(np.prod(shapes[node.output[0]])) * shapes[node.input[0]][-1]
    return total


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    home = tmp_path_factory.mktemp("estimates")

    def make(name: str) -> pathlib.Path:
        with pytest.MonkeyPatch.context() as patch:
            cheap.__wrapped__(patch)
            limits: dict[str, Any] = {"beam_size": BEAM, "max_length": TARGET}
            export(build_seq2seq(config_of(name)), home / name, ["tflite", "onnx"], samples=[[4, 5, 2]], **limits)
        return home / name

    return Made(make)


@pytest.mark.parametrize("name", fast(EXPORTED))
def test_products_and_bytes(exported: dict[str, pathlib.Path], name: str) -> None:
    found = estimates.estimate(config_of(name), SOURCE, TARGET, BEAM)
    model = build_seq2seq(config_of(name))
    assert found.weights == model.count_params()
    measured = onnx_macs(exported[name] / "onnx" / "decode_step.onnx")
    assert found.step_macs == pytest.approx(measured, rel=WITHIN)
    encode = onnx_macs(exported[name] / "onnx" / "encode.onnx")
    assert found.sentence_macs == pytest.approx(encode + BEAM * TARGET * measured, rel=WITHIN)
    file = exported[name] / "model.tflite"
    assert found.bytes["float32"] == pytest.approx(file.stat().st_size, rel=WITHIN)
    assert found.onnx_bytes["float32"] == pytest.approx(bytes_in(exported[name] / "onnx"), rel=NEARLY)


def bytes_in(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [("tied", "float16"), ("tied", "dynamic_int8"), ("self-attention", "dynamic_int8"), ("tied", "int8")],
)
def test_bytes_of_lower_precision(tmp_path: pathlib.Path, cheap: None, name: str, precision: str) -> None:
    found = estimates.estimate(config_of(name), SOURCE, TARGET, BEAM)
    model, output = build_seq2seq(config_of(name)), tmp_path / "artefact"
    limits: dict[str, Any] = {"beam_size": BEAM, "max_length": TARGET}
    rows = [[4 + number % 7, 5, 2] for number in range(100)]
    if precision == "int8":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vela, "ACCELERATORS", vela.ACCELERATORS[:1])
            export(model, output, to="npu", source_length=SOURCE, samples=rows[:1], calibration=rows, **limits)
        size = bytes_in(output / "npu")
        ranges: dict[str, Any] = {"samples": rows[:1], "calibration": rows}
        export(model, tmp_path / "onnx", precision="int8", **ranges, **limits)
        assert found.onnx_bytes["int8"] == pytest.approx(bytes_in(tmp_path / "onnx" / "onnx"), rel=NEARLY)
        placements = json.loads((output / "report.json").read_text())["parities"][0]["placements"]
        (step,) = [one for one in placements if one["graph"] == "decode_step"]
        assert found.step_macs == pytest.approx(step["macs"], rel=NEARLY)  # as Vela counts them
    else:
        export(model, output, ["tflite", "onnx"], precision=precision, samples=rows[:1], **limits)
        size = (output / "model.tflite").stat().st_size
        assert found.onnx_bytes[precision] == pytest.approx(bytes_in(output / "onnx"), rel=NEARLY)
    assert found.bytes[precision] == pytest.approx(size, rel=WITHIN)


@pytest.mark.parametrize("name", ["tied", "self-attention", "none"])
def test_memory_of_a_search(name: str) -> None:
    """What one step of the beam takes and gives, as arrays."""
    net = EncoderDecoder(build_seq2seq(config_of(name)))
    source = np.full((BEAM, SOURCE), 4, np.int32)
    source[:, -1] = 2
    state, memory = net.encode(source, capacity=TARGET)
    log_probs, _, _ = net.step(np.ones((BEAM,), np.int32), state, memory)
    held = [*state.values(), *memory.values(), log_probs]
    found = net.search(source[:1], beam_size=BEAM, max_length=TARGET)
    measured = sum(np.asarray(value).nbytes for value in [*held, found["ids"], found["ids"], found["alignments"]])
    assert estimates.estimate(config_of(name), SOURCE, TARGET, BEAM).search_bytes == measured


def test_the_command(tmp_path: pathlib.Path, toy_run: Any) -> None:
    lengths = [f"--source-length={SOURCE}", f"--target-length={TARGET}", f"--beam={BEAM}"]
    file = tmp_path / "model.json"
    file.write_text(json.dumps({"source_vocabulary": 900, "target_vocabulary": 1100, "encoder_units": 96}))
    shown = run_command("estimate", file, "--set=decoder_units=160", "--set=embedding_size=64", *lengths).out
    expected = estimates.estimate(config_of("plain"), SOURCE, TARGET, BEAM)
    assert f"{expected.weights:,}" in shown
    assert json.loads(shown.strip().splitlines()[-1])["step_macs"] == expected.step_macs
    last = json.loads(run_command("estimate", toy_run.path, *lengths).out.strip().splitlines()[-1])
    assert last["weights"] == toy_run.load_model().count_params()


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (None, {}, "cannot be read"),
        ("[1]", {}, "Expected: fields of Seq2SeqConfig as a JSON object"),
        ("{", {}, "Expected: fields of Seq2SeqConfig as a JSON object"),
        ("{}", {}, "missing .* 'source_vocabulary' and 'target_vocabulary'"),
        ('{"source_vocabulary": 9, "target_vocabulary": 9}', {"decoder_unit": 3}, "unexpected .* 'decoder_unit'"),
        ('{"source_vocabulary": 9, "target_vocabulary": 9}', {"cell": "rnn"}, "Expected: cell in"),
    ],
)
def test_wrong_configs(tmp_path: pathlib.Path, content: str | None, fields: dict[str, Any], message: str) -> None:
    file = tmp_path / "model.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        commands.estimate_model(file, fields)


def test_mistakes() -> None:
    for lengths in ((0, 5, 5), (5, 0, 5), (5, 5, 0)):
        with pytest.raises(UserError, match=r"(_length|beam_size) is out of range\. Expected a whole number, 1 to 10"):
            estimates.estimate(config_of("none"), *lengths)


def test_another_cell_for_a_model_without_recurrence(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(config_of("self-attention").to_dict()))
    commands.estimate_model(file, {"cell": "gru"})
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    config = dataclasses.replace(config_of("self-attention"), cell="gru", scale_embeddings=None)
    assert found["weights"] == build_seq2seq(config).count_params()
