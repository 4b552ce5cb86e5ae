"""The NPU format: int8 files of static graphs that an Ethos-U takes whole, and the host part around them."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from keras_attention import UserError
from keras_attention.export import console as commands
from keras_attention.export import export, runtime, verify
from keras_attention.export.errors import ConversionError
from keras_attention.export.formats import converter as conversion
from keras_attention.export.formats.base import Contents
from keras_attention.export.formats.calibration import SEQUENCES
from keras_attention.export.formats.to_npu import micro, vela
from keras_attention.export.formats.to_npu import verify_npu as npu_verification
from keras_attention.export.formats.to_npu.verify_npu import MICRO_STEPS, UNPLACED
from keras_attention.export.formats.to_tflite import fused_lstm
from keras_attention.export.parity import cases as reference
from keras_attention.export.parity.parity import Parity
from keras_attention.export.runtime.backends.npu import Npu
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.export_models import LINES, cheap, tiny_model
from tests.support.npu_host import follow_the_protocol
from tests.support.parts import Made, fast

__all__ = ["cheap"]

LENGTH = 9
CONFIGS: dict[str, dict[str, Any]] = {
    "general": {},
    "additive, fed, residual, one direction, final": {
        "attention": "additive",
        "input_feeding": True,
        "attentional_size": 10,
        "residual": True,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "bidirectional": False,
        "bridge_input": "final",
        "tie_embeddings": "target",
    },
    "scaled dot, final": {"attention": "scaled_dot", "decoder_units": 14, "use_scale": True, "bridge_input": "final"},
    "normalized additive": {"attention": "normalized_additive"},
    "none": {"attention": "none", "bridge": "dense"},
}


def rows(count: int, longest: int = LENGTH, vocabulary: int = 17) -> list[list[int]]:
    """Source ids of many lengths, each with EOS."""
    generator = np.random.default_rng(count)
    lengths = generator.integers(1, longest, count)
    return [[*generator.integers(4, vocabulary, length).tolist(), 2] for length in lengths]


def export_tiny(output: pathlib.Path, config: dict[str, Any], **options: Any) -> Any:
    arguments: dict[str, Any] = {"source_length": LENGTH, "max_length": 8, "beam_size": 3}
    arguments |= {"samples": rows(6), "calibration": rows(SEQUENCES)}
    return export(tiny_model(spread=0.4, **config), output, to="npu", **arguments | options)


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[pathlib.Path, Any]]:
    home = tmp_path_factory.mktemp("npu")

    def make(name: str) -> tuple[pathlib.Path, Any]:
        with pytest.MonkeyPatch.context() as patch:
            cheap.__wrapped__(patch)
            patch.setattr(vela, "ACCELERATORS", vela.ACCELERATORS if name == "general" else vela.ACCELERATORS[:1])
            return home / name, export_tiny(home / name, CONFIGS[name])

    return Made(make)


@pytest.mark.parametrize("name", fast(CONFIGS, "general"))
def test_files_hold_what_an_npu_takes(artefacts: dict[str, tuple[pathlib.Path, Any]], name: str) -> None:
    folder, report = artefacts[name]
    (parity,) = report.parities
    layers, directions = CONFIGS[name].get("encoder_layers", 1), 1 if "one direction" in name else 2
    graphs = [*(f"encode_{layer}" for layer in range(layers)), "start", "decode_step"]
    assert list(parity.operators) == graphs
    for graph in graphs:
        counts = parity.operators[graph]
        assert not set(UNPLACED) & set(counts)
        fused = counts.get("UNIDIRECTIONAL_SEQUENCE_LSTM", 0)
        assert fused == (directions if graph.startswith("encode") else 0)
    assert ("BATCH_MATMUL" in parity.operators["decode_step"]) == (name != "none")
    backend = Npu(folder, runtime.read_manifest(folder), 1)
    for runner in backend.runners.values():
        details = {**runner.get_input_details(), **runner.get_output_details()}
        assert {detail["dtype"] for detail in details.values()} == {np.int8}


@pytest.mark.parametrize("name", fast(CONFIGS, "general"))
def test_vela_places_all_of_it(artefacts: dict[str, tuple[pathlib.Path, Any]], name: str) -> None:
    _, report = artefacts[name]
    placements = report.parities[0].placements
    assert {one.accelerator for one in placements} == set(vela.ACCELERATORS[: 3 if name == "general" else 1])
    for one in placements:
        assert one.on_cpu == 0
        assert one.on_npu > 0
        assert one.cycles > 0
        assert one.sram + one.other > 0


@pytest.mark.parametrize("name", fast(CONFIGS, "general"))
def test_numbers_are_those_of_keras_within_int8(artefacts: dict[str, tuple[pathlib.Path, Any]], name: str) -> None:
    """Of values between -1 and 1: a step of int8 is 1/127, and a few of them add up through layers and steps."""
    folder, _ = artefacts[name]
    net = EncoderDecoder(tiny_model(spread=0.4, **CONFIGS[name]))
    backend = Npu(folder, runtime.read_manifest(folder), 1)
    source = np.zeros((6, LENGTH), np.int32)
    for line, row in zip(source, rows(6), strict=True):
        line[: len(row)] = row
    encoded = backend.run("encode", {"source_ids": source})
    state, memory = net.encode(source)
    expected = {f"state_{k}": v for k, v in state.items()} | {f"memory_{k}": v for k, v in memory.items()}
    assert set(encoded) == set(expected)
    for key, value in encoded.items():
        wanted = np.asarray(expected[key], np.float32)
        assert value.shape == wanted.shape
        # Some eight steps; two are seen.
        np.testing.assert_allclose(value, wanted, atol=0.06 * max(1.0, float(np.abs(wanted).max())), err_msg=key)
    tokens = np.full((6,), 1, np.int32)
    found = backend.run("decode_step", {"token_ids": tokens, **encoded})
    log_probs, _, alignment = net.step(tokens, state, memory)
    # Probabilities: of 0.17 at most, off by 0.0023; weights: of 0.28 at most, off by 0.0052.
    np.testing.assert_allclose(np.exp(found["log_probs"]), np.exp(np.asarray(log_probs)), atol=0.02)
    np.testing.assert_allclose(found["alignment"], np.asarray(alignment), atol=0.03)  # as said
    assert not found["alignment"][source == 0].any()


def test_the_state_of_the_fused_lstm_is_reset(artefacts: dict[str, tuple[pathlib.Path, Any]]) -> None:
    folder, _ = artefacts["general"]
    backend = Npu(folder, runtime.read_manifest(folder), 1)
    first, second = (np.asarray([row], np.int32) for row in rows(6)[:2])
    once, _, again = (backend.run("encode", {"source_ids": one}) for one in (first, second, first))
    for name, value in once.items():
        np.testing.assert_array_equal(value, again[name])
    row = np.ones((1, LENGTH, 5), np.float32)
    given = backend.quantised("encode_0", {"forward": row, "backward": row})
    backend.interpreters["encode_0"].reset_all_variables()
    found = [backend.runners["encode_0"](**given)["forward_states"] for _ in range(2)]
    assert (found[0] != found[1]).any()  # what the reset is for


def test_padding_gets_no_attention_however_long(artefacts: dict[str, tuple[pathlib.Path, Any]]) -> None:
    folder, _ = artefacts["general"]
    artefact = runtime.Artefact(folder)
    row = rows(6)[0]
    wide = np.zeros((1, LENGTH), np.int32)
    wide[0, : len(row)] = row
    narrow, padded = artefact.search(np.asarray([row])), artefact.search(wide)
    np.testing.assert_array_equal(narrow["ids"], padded["ids"])
    np.testing.assert_array_equal(narrow["scores"], padded["scores"])


@pytest.mark.slow
@pytest.mark.skipif(not micro.installed(), reason="tflite-micro has development releases alone, so no lock holds it")
def test_tensorflow_lite_micro_runs_the_files(artefacts: dict[str, tuple[pathlib.Path, Any]]) -> None:
    for _, report in [artefacts[name] for name in CONFIGS]:
        (parity,) = report.parities
        assert set(parity.micro) == set(parity.operators)
        for one in parity.micro.values():
            assert 0 < one.arena < 100_000
            assert one.steps <= 3  # kernels that round otherwise


def test_the_artefact_says_what_it_is(artefacts: dict[str, tuple[pathlib.Path, Any]]) -> None:
    folder, report = artefacts["general"]
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["formats"]["npu"]
    assert (entry["source_length"], manifest["max_source_length"], manifest["precision"]) == (LENGTH, LENGTH, "int8")
    assert entry["mask_bias"] <= -8
    text = (folder / "report.md").read_text()
    assert "| ethos-u85-256 | decode_step |" in text
    assert report.parities[0].sentences == report.parities[0].host_loop_sentences == 6
    (parity,) = verify(folder)
    assert parity.identical == report.parities[0].identical


@pytest.mark.slow
def test_it_translates_text(tmp_path: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "installed", lambda: False)
    tokenizers = train_tokenizer("word", LINES), train_tokenizer("char", LINES)
    source, target = (tokenizer.vocabulary_size for tokenizer in tokenizers)
    model = tiny_model(source_vocabulary=source, target_vocabulary=target)
    words = " ".join(LINES).split()
    generator = np.random.default_rng(0)
    text = [" ".join(generator.choice(words, count)) for count in generator.integers(1, LENGTH, SEQUENCES)]
    folder = tmp_path / "artefact"
    options: dict[str, Any] = {"source_length": LENGTH, "max_length": 7, "beam_size": 2, "no_repeat_ngram": 2}
    report = export(model, folder, to="npu", tokenizers=tokenizers, samples=LINES, calibration=text, **options)
    assert any("Vela is not installed: pip install 'keras-luong[npu]'" in warning for warning in report.warnings)
    artefact = runtime.Artefact(folder)
    assert artefact.backend.name == "npu"
    found = list(artefact.translate(LINES, n_best=2, max_length=5))
    assert [len(hypotheses) for hypotheses in found] == [2] * len(LINES)
    assert all(len(one.ids) <= 5 for hypotheses in found for one in hypotheses)
    with pytest.raises(runtime.ArtefactError, match=f"Expected: at most {LENGTH} tokens with EOS. Received: 11"):
        list(artefact.translate(["cat " * 10]))
    with pytest.raises(runtime.ArtefactError, match="holds no file for litert"):
        runtime.Artefact(folder, "litert")
    (folder / "npu" / "start.tflite").write_bytes(b"cut")
    with pytest.raises(runtime.ArtefactError, match=r"start.tflite is not the exported file"):
        runtime.Artefact(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cell": "gru"}, "cell='gru'. Expected: lstm, which has a fused operator"),
        ({"bridge": "copy", "decoder_units": 14}, "bridge='copy'. Expected: dense"),
        ({"attention": "cosine", "decoder_units": 14}, "attention='cosine'. Expected: one of none, dot"),
        ({"window": "local_m"}, "window='local_m'. Expected: None"),
        ({"alignment": "sparsemax"}, "alignment='sparsemax'. Expected: softmax"),
        ({"attention": "additive", "use_coverage": True}, "use_coverage=True. Expected: False"),
        ({"attention": "additive", "style": "bahdanau"}, "style='bahdanau'. Expected: luong"),
        ({"source_vocabulary": 19, "copy_words": 3}, "copy_words=3. Expected: None"),
        ({"source_vocabulary": 0, "source_features": 3}, "source_features=3. Expected: None"),
    ],
)
def test_models_that_it_cannot_hold(tmp_path: pathlib.Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"npu cannot hold {message}"):
        export_tiny(tmp_path / "artefact", config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sample"}, "knows no method sample"),
        ({"groups": 3}, "knows no groups of a diverse beam"),
        ({"phrases": (1, 2)}, r"knows no phrases"),
        ({"calibration": rows(SEQUENCES - 1)}, "at least 100 of them"),
        ({"calibration": None}, "at least 100 of them"),
        (
            {"calibration": rows(50) + [[5] * LENGTH + [2]] * 60},
            f"Too few sentences to calibrate with fit into {LENGTH} tok",
        ),
        ({"source_length": 1}, "Expected: source_length of 2 or more, EOS counted. Received: 1"),
        ({"to": ["npu", "tflite"]}, "no precision in common. .* Received: npu: int8; tflite: float32, float16"),
        ({"precision": "float16"}, "npu cannot hold float16. Expected: --to tflite onnx"),
        ({"text": True}, "int8 files do not. Expected: no --text"),
    ],
)
def test_mistakes(tmp_path: pathlib.Path, cheap: None, options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"to": "npu", "source_length": LENGTH, "max_length": 8, "beam_size": 3}
    arguments |= {"samples": rows(6), "calibration": rows(SEQUENCES)} | options
    with pytest.raises(UserError, match=message):
        export(tiny_model(), tmp_path / "artefact", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_beside_another_int8_format(tmp_path: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One artefact with both: one calibration text, one limit of sources, each format held against Keras."""
    monkeypatch.setattr(vela, "installed", lambda: False)
    folder = tmp_path / "artefact"
    options: dict[str, Any] = {"source_length": LENGTH, "max_length": 8, "beam_size": 3, "loss_limit": 100.0}
    text = {"samples": rows(6), "calibration": rows(SEQUENCES)}
    exported = export(tiny_model(spread=0.3), folder, ["onnx", "npu"], **options, **text)
    assert [parity.format for parity in exported.parities] == [parity.format for parity in verify(folder)]
    assert list(exported.formats) == ["onnx", "npu"]
    assert exported.report.precision == "int8"
    source = np.asarray([rows(1)[0]], np.int32)
    found = [runtime.Artefact(folder, name).search(source)["ids"].shape for name in ("onnx", "npu")]
    assert found[0] == found[1]
    assert runtime.read_manifest(folder)["max_source_length"] == LENGTH


def test_a_translator_alone(tmp_path: pathlib.Path) -> None:
    import keras

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(UserError, match="npu is for one translator"):
        export(model, tmp_path / "artefact", to="npu")


@pytest.mark.slow
def test_a_loss_above_the_limit_leaves_nothing(tmp_path: pathlib.Path, cheap: None) -> None:
    """Tokens of a model that was never trained turn on little; that its int8 form says the same is not to be had."""
    tokenizers = train_tokenizer("word", LINES), train_tokenizer("char", LINES)
    source, target = (tokenizer.vocabulary_size for tokenizer in tokenizers)
    model = tiny_model(source_vocabulary=source, target_vocabulary=target)
    keras_texts = [""] * len(LINES)
    net = EncoderDecoder(model)
    for number, line in enumerate(LINES):
        ids = np.asarray([[*tokenizers[0].encode(line), 2]], np.int32)
        result = net.search(ids, beam_size=2, max_length=7)
        keras_texts[number] = tokenizers[1].decode(np.asarray(result["ids"])[0, 0].tolist())
    calibration = LINES * 17
    options: dict[str, Any] = {"source_length": LENGTH, "max_length": 7, "beam_size": 2, "task": "exact"}
    options |= {"references": keras_texts, "loss_limit": 0.0, "calibration": calibration, "samples": LINES}
    output = tmp_path / "artefact"
    with pytest.MonkeyPatch.context() as patch:
        # Whatever int8 finds, something else than Keras.
        patch.setattr(Npu, "quantised", lambda self, graph, inputs: _shuffled(self, graph, inputs))
        with pytest.raises(UserError, match=r"int8 loses too much\. Expected: at most 0 points of exact_match"):
            export(model, output, to="npu", tokenizers=tokenizers, **options)
    assert not list(tmp_path.iterdir())


def _shuffled(backend: Any, graph: str, inputs: Any) -> dict[str, np.ndarray]:
    details = backend.runners[graph].get_input_details()
    return {name: np.full(detail["shape"], 100, np.int8) for name, detail in details.items()}


@pytest.mark.slow
def test_a_converter_that_crashes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "crash.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    run = conversion.run_converter
    monkeypatch.setattr(conversion, "run_converter", lambda name, _, *rest: run(name, str(program), *rest))
    with pytest.raises(ConversionError, match=r"The TFLite converter crashed \(SIGSEGV\)"):
        export_tiny(tmp_path / "artefact", {})
    assert [path.name for path in tmp_path.iterdir()] == ["crash.py"]


def test_vela_and_micro_say_what_they_cannot_read(tmp_path: pathlib.Path) -> None:
    wrong = tmp_path / "wrong.tflite"
    wrong.write_bytes(b"no model")
    with pytest.raises(ConversionError, match="Vela refused broken for ethos-u55-128: "):
        vela.place({"broken": wrong})
    if micro.installed():
        with pytest.raises(ConversionError, match=r"TensorFlow Lite Micro cannot run wrong.tflite: "):
            micro.run(wrong, [{}], 1)


@pytest.mark.slow
def test_the_command(toy_run: Any, tmp_path: pathlib.Path, cheap: None, capsys: pytest.CaptureFixture[str]) -> None:
    sentences = tmp_path / "calibration.txt"
    lines = toy_run.samples()
    sentences.write_text("\n".join((lines * SEQUENCES)[:SEQUENCES]) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vela, "ACCELERATORS", vela.ACCELERATORS[:1])
        folder = commands.export_run(
            toy_run.path,
            output=tmp_path / "artefact",
            to="npu",
            calibration=sentences,
            max_length=20,
            loss_limit=100,
        )
    shown = capsys.readouterr().out
    assert "npu, int8: " in shown
    assert "ethos-u55-128: 100 % of operators placed; encode_0 " in shown
    assert (folder / "npu" / "decode_step.tflite").is_file()


@pytest.mark.slow
def test_samples_that_are_too_long_are_counted(tmp_path: pathlib.Path, cheap: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(vela, "installed", lambda: False)
    report = export_tiny(tmp_path / "artefact", {}, samples=[*rows(3), [4] * LENGTH + [2], [5] * 30 + [2]])
    assert "2 samples are longer than the sources may be, or empty: they were left out" in report.warnings
    assert "2 samples are longer" in (tmp_path / "artefact" / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", fast(CONFIGS, "general"))
def test_a_stranger_searches_by_the_manifest_alone(artefacts: dict[str, tuple[pathlib.Path, Any]], name: str) -> None:
    folder, _ = artefacts[name]
    opened = runtime.Artefact(folder, "npu")
    for source in rows(8):
        ids = opened.search(np.asarray([source], np.int32), beam_size=1, max_length=6)["ids"][0, 0]
        assert follow_the_protocol(folder, source, 6) == [int(token) for token in ids if token]


def cell_scales(path: pathlib.Path) -> list[float]:
    """Scales of the cell states of a file, by the whole of it as objects."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (graph,) = model.subgraphs
    fused = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    found = [one for one in graph.operators if model.operatorCodes[one.opcodeIndex].builtinCode == fused]
    return [float(graph.tensors[one.inputs[19]].quantization.scale[0]) for one in found]


def test_cell_states_whose_scale_no_kernel_knows(
    artefacts: dict[str, tuple[pathlib.Path, Any]], tmp_path: pathlib.Path
) -> None:
    """A scale of 2^-16 fails the structure; put right, the file has 2^-15, and nothing else is changed."""
    folder, _ = artefacts["general"]
    shutil.copytree(folder, tmp_path / "artefact")
    file, manifest = tmp_path / "artefact" / "npu" / "encode_0.tflite", runtime.read_manifest(folder)
    scales = cell_scales(file)
    assert len(scales) == 2
    assert all(2.0**-15 <= scale <= 2.0**-9 for scale in scales)
    assert fused_lstm.with_known_scales(file.read_bytes()) == file.read_bytes()
    for scale, known in ((2.0**-16, 2.0**-15), (2.0**-15, 2.0**-15), (2.0**-9, 2.0**-9), (2.0**-8, 2.0**-8)):
        content = bytearray(file.read_bytes())
        for planted in fused_lstm._scales(content):
            planted[0] = scale
        file.write_bytes(content)
        assert cell_scales(file) == [scale, scale]
        found = Contents({})
        npu_verification.check_operators(tmp_path / "artefact", manifest["formats"]["npu"], found)
        assert len(found.failures) == (2 if scale in (2.0**-16, 2.0**-8) else 0)
        assert all(
            "npu encode_0: scale of a cell state. Expected: 3.05e-05 to 0.00195" in one for one in found.failures
        )
        file.write_bytes(fused_lstm.with_known_scales(file.read_bytes()))
        assert cell_scales(file) == [known, known]


@pytest.mark.slow
def test_cell_states_below_a_half(tmp_path: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter gives them 2^-16, with which LiteRT would compute nothing."""
    monkeypatch.setattr(vela, "installed", lambda: False)
    model = tiny_model(spread=0.15)
    options: dict[str, Any] = {"source_length": LENGTH, "max_length": 8, "beam_size": 3, "samples": rows(6)}
    export(model, tmp_path / "artefact", to="npu", calibration=rows(SEQUENCES), **options)
    assert min(cell_scales(tmp_path / "artefact" / "npu" / "encode_0.tflite")) == 2.0**-15
    source = np.zeros((6, LENGTH), np.int32)
    for line, row in zip(source, rows(6), strict=True):
        line[: len(row)] = row
    manifest = runtime.read_manifest(tmp_path / "artefact")
    found = Npu(tmp_path / "artefact", manifest, 1).run("encode", {"source_ids": source})
    wanted = np.asarray(EncoderDecoder(model).encode(source)[1]["values"])
    # A few steps of int8.
    np.testing.assert_allclose(found["memory_values"], wanted, atol=0.06 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(("steps", "failing"), [(MICRO_STEPS, 0), (MICRO_STEPS + 1, 1)])
def test_micro_and_litert_may_round_otherwise_and_no_more(
    artefacts: dict[str, tuple[pathlib.Path, Any]], monkeypatch: pytest.MonkeyPatch, steps: int, failing: int
) -> None:
    """Eight steps were the widest seen, twice and more; here one output of one graph is off."""
    folder, _ = artefacts["general"]
    watched: list[npu_verification.Watched] = []
    make = npu_verification.Watched.__init__

    def remembered(backend: Any, *arguments: Any) -> None:
        make(backend, *arguments)
        watched.append(backend)

    def run(path: pathlib.Path, examples: list[Any], outputs: int) -> Any:
        _, expected = watched[0].seen[path.stem]
        found = [one.copy() for one in expected]
        if path.stem == "start":
            found[0].flat[0] += steps if found[0].flat[0] < 100 else -steps
        return 7, [found, found]

    monkeypatch.setattr(npu_verification.Watched, "__init__", remembered)
    monkeypatch.setattr(vela, "installed", lambda: False)
    monkeypatch.setattr(micro, "installed", lambda: True)
    monkeypatch.setattr(micro, "run", run)
    parity = Parity("npu")
    cases = reference.load(folder / "verification.npz")
    npu_verification.try_tools(folder, runtime.read_manifest(folder), cases, parity)
    assert parity.micro["start"].steps == steps
    assert len(parity.failures) == failing
    assert all("npu start: LiteRT and TensorFlow Lite Micro disagree" in failure for failure in parity.failures)
