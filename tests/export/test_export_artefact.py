"""One export from a run directory to all formats, and what then may happen to it: verification, damage, mistakes."""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from keras_attention import EncoderDecoder, UserError
from keras_attention.export import benchmark, errors, export, exporter, runtime, verify
from keras_attention.export import console as commands
from keras_attention.export.formats import converter as conversion
from keras_attention.export.parity import cases as reference
from keras_attention.export.parity.compare import compare_tokens, compare_values
from keras_attention.export.parity.parity import Parity
from keras_attention.export.report import benchmark as bench
from keras_attention.export.verifier import REFERENCE_FILE
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.command import run_command
from tests.support.export_models import LINES, UNUSUAL, cheap, tiny_model

__all__ = ["cheap"]


def make_run(path: pathlib.Path, **changes: Any) -> RunDirectory:
    """A run directory as training writes it, with an untrained model."""
    path.mkdir()
    source, target = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    files = [source.save(path, "source")[0], target.save(path, "target")[0]]
    model = tiny_model(source_vocabulary=source.vocabulary_size, target_vocabulary=target.vocabulary_size, **changes)
    model.save(path / "model.keras")
    (path / "samples.txt").write_text("\n".join([*LINES, *filter(str.strip, UNUSUAL)]) + "\n", encoding="utf-8")
    metadata = {
        "task": "translation",
        "model": EncoderDecoder(model).config.to_dict(),
        "source_tokenizer": files[0],
        "target_tokenizer": files[1],
        "training": {},
    }
    return RunDirectory.create(path, metadata)


def dense_model() -> keras.Model:
    """The least there is to export."""
    inputs = keras.Input((3,), name="features")
    return keras.Model(inputs, keras.layers.Dense(2, name="scores")(inputs))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture(scope="module")
def exported(run: pathlib.Path) -> pathlib.Path:
    """All formats, with the converters as processes of their own."""
    folder = run.parent / "artefact"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "TIMING_SECONDS", 0.05)
        commands.export_run(run, ["saved_model", "litert", "onnx"], folder, beam_size=3, max_length=17)
    return folder


@pytest.fixture
def folder(exported: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the artefact to damage."""
    return pathlib.Path(shutil.copytree(exported, tmp_path / "artefact"))


def test_what_an_artefact_holds(exported: pathlib.Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["formats"]) == {"saved_model", "tflite", "onnx"}
    assert {path.name for path in exported.iterdir()} == {
        *("manifest.json", "model.tflite", "onnx", "saved_model", "source.tok.json", "target.tok.json"),
        *(
            "report.md",
            "report.json",
            "runtime",
            "web",
            "verification.npz",
        ),
    }
    step = manifest["signatures"]["decode_step"]
    assert step["inputs"]["memory_values"] == {"dtype": "float32", "axes": ["batch", "source_length", 14]}
    assert manifest["state_updates"] == {"state_c_0": "next_state_c_0", "state_h_0": "next_state_h_0"}
    assert manifest["knobs"]["max_length"] == {"default": 17, "minimum": 1, "maximum": 17}
    assert {path.name for path in (exported / "runtime" / "backends").iterdir()} == {
        *("__init__.py", "litert.py", "onnx_runtime.py", "openvino.py")
    }
    texts = [path.read_text(encoding="utf-8") for path in exported.rglob("*") if path.suffix in (".json", ".md", ".py")]
    assert not [text for text in texts if str(exported.parent) in text]
    assert list(exported.parent.glob(".*")) == []


def test_the_report(exported: pathlib.Path, run: pathlib.Path) -> None:
    report = json.loads((exported / "report.json").read_text(encoding="utf-8"))
    sentences = len(LINES) + len([text for text in UNUSUAL if text.strip()])
    for parity in report["parities"]:
        assert parity["identical"] + parity["near_ties"] == parity["sentences"] == sentences
        assert parity["host_loop_identical"] >= parity["host_loop_sentences"] - parity["near_ties"] > 0
    assert report["parities"][0]["texts"] == sentences
    assert report["parities"][1]["operators"]["custom"] == {}
    assert report["parities"][2]["operators"]["encode"]["LSTM"] == 2
    assert {entry["format"] for entry in report["latencies"]} == {"saved_model", "tflite", "onnx"}
    page = (exported / "report.md").read_text(encoding="utf-8")
    assert "| saved_model |" in page
    assert len(report["macs"]) == 3
    assert all(f"{count:,}" in page for count in report["macs"].values())
    assert sum(report["weights"].values()) == 4 * RunDirectory.open(run).load_model().count_params()


def test_peak_memory_of_a_process_of_its_own(exported: pathlib.Path) -> None:
    """Python, numpy and an interpreter take tens of megabytes; TensorFlow would take hundreds."""
    manifest = runtime.read_manifest(exported)
    row = next(reference.load(exported / REFERENCE_FILE).of("translate")).inputs
    for name in ("tflite", "onnx"):
        # NumPy alone takes 26 MB, TensorFlow alone 750 MB.
        assert 2e7 < (bench.peak_memory(exported, manifest, name, "translate", row) or 0) < 3e8
    assert bench.peak_memory(exported, manifest, "saved_model", "translate", row) is None


def test_the_default_signature_takes_and_gives_text(exported: pathlib.Path, run: pathlib.Path) -> None:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(exported / "saved_model"))
    found = loaded.signatures["serving_default"](text=tf.constant([*LINES, ""]))
    source, target = RunDirectory.open(run).source_tokenizer, RunDirectory.open(run).target_tokenizer
    net = EncoderDecoder(RunDirectory.open(run).load_model())
    settings = {"beam_size": 3, "max_length": 17, "max_length_factor": 2.0, "max_length_offset": 10}
    for row, text in enumerate([*LINES, ""]):
        ids = np.asarray([[*source.encode(text), 2]], np.int32)
        expected = net.search(ids, **settings)
        texts = [target.decode(np.asarray(expected["ids"])[0, k].tolist()) for k in range(3)]
        assert [cell.decode() for cell in found["text"][row].numpy()] == texts
        # Float32 sums in a graph, in another order.
        np.testing.assert_allclose(found["scores"][row], expected["scores"][0], atol=1e-4)


def test_verify_and_benchmark_need_the_directory_alone(folder: pathlib.Path) -> None:
    verified = run_command("verify", folder)
    assert verified.status == 0, verified.err
    assert "verified against Keras" in verified.out
    timed = run_command("benchmark", folder, "--seconds=0.05", "--threads=1")
    assert timed.status == 0, timed.err
    results = json.loads(timed.out.splitlines()[-1])["results"]
    assert {result["runtime"] for result in results} == {"TensorFlow", "LiteRT", "ONNX Runtime"}
    assert all(result["median_ms"] <= result["p90_ms"] and result["per_second"] > 0 for result in results)


@pytest.mark.parametrize("name", ["model.tflite", "onnx/encode.onnx", "saved_model/saved_model.pb", "verification.npz"])
def test_an_edited_file_is_refused(folder: pathlib.Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} was changed after the export"):
        verify(folder)


@pytest.mark.parametrize("checksum", ["", "0" * 64, None])
def test_an_edited_manifest_is_refused(folder: pathlib.Path, checksum: str | None) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"checksum": checksum}, indent=1), encoding="utf-8")
    with pytest.raises(UserError, match="was changed after the export"):
        verify(folder)


def test_what_is_no_artefact(tmp_path: pathlib.Path, folder: pathlib.Path) -> None:
    with pytest.raises(UserError, match="is not an artefact"):
        verify(tmp_path)
    with pytest.raises(UserError, match="is not an artefact"):
        benchmark(tmp_path / "missing")
    (folder / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        verify(folder)
    for version, advice in ((2, "Export again"), (99, "It is newer: use the runtime that lies in it")):
        (folder / "manifest.json").write_text(f'{{"format_version": {version}}}', encoding="utf-8")
        with pytest.raises(UserError, match=rf"Expected: format_version 4. Received: {version}. {advice}"):
            benchmark(folder)


@pytest.mark.slow
def test_what_tensorflow_s_own_tool_says_of_the_saved_model(exported: pathlib.Path) -> None:
    """`saved_model_cli show`, by which people look at what they serve: every signature, by Serving's conventions."""
    tool = pathlib.Path(sys.executable).with_name("saved_model_cli")
    done = subprocess.run(
        [str(tool), "show", "--dir", str(exported / "saved_model"), "--all"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "Error" not in done.stdout
    told = {part.split("'")[1]: part for part in done.stdout.split("signature_def[")[1:]}
    manifest = json.loads((exported / "manifest.json").read_text(encoding="utf-8"))
    assert set(told) == {*manifest["signatures"], "serving_default", "__saved_model_init_op"}
    for name, signature in manifest["signatures"].items():
        assert "Method name is: tensorflow/serving/predict" in told[name]
        for port in (*signature["inputs"], *signature["outputs"]):
            assert f"['{port}'] tensor_info:" in told[name]


@pytest.mark.parametrize(
    ("module", "package"), [("onnxruntime", "onnxruntime"), ("ai_edge_litert.interpreter", "ai-edge-litert")]
)
def test_verification_without_a_runtime(
    exported: pathlib.Path, monkeypatch: pytest.MonkeyPatch, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = run_command("verify", exported)
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.status == 1
    assert f"pip install {package}" in line or "keras-luong[export]" in line


@pytest.mark.slow
def test_a_wrong_artefact_fails_and_leaves_nothing(
    run: pathlib.Path,
    tmp_path: pathlib.Path,
    cheap: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Weights that change between the Keras search and the conversion: every difference is listed."""
    convert = exporter.convert

    def disturbed(plan: Any, *arguments: Any) -> dict[str, Any]:
        for weight in plan.model.weights:
            weight.assign(weight * 1.5)
        return convert(plan, *arguments)

    monkeypatch.setattr(exporter, "convert", disturbed)
    with pytest.raises(errors.VerificationError, match=r"Verification failed in \d+ place") as caught:
        commands.export_run(run, ["tflite"], tmp_path / "artefact")
    assert any("tokens of row" in failure for failure in caught.value.failures)
    assert any("differs by" in failure for failure in caught.value.failures)
    assert "differs: tflite encode" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_float_rule() -> None:
    """A different token is a near-tie below the margin, a failure above it."""
    ids, lengths = np.array([[[4, 2]], [[5, 2]], [[6, 2]]]), np.array([[2], [2], [2]])
    margins = np.array([1e-5, 0.5, 0.5], np.float32)
    case = reference.Case("translate", {}, {"ids": ids, "lengths": lengths}, margins)
    parity = Parity("tflite")
    other = ids.copy()
    other[:2, 0, 0] = 7
    same = compare_tokens("here", case, {"ids": other, "lengths": lengths}, parity)
    assert same.tolist() == [False, False, True]
    assert (parity.sentences, parity.identical, parity.near_ties) == (3, 1, 1)
    assert parity.failures == ["here: tokens of row 1, margin 0.5. Expected: [5, 2]. Received: [7, 2]"]


@pytest.mark.parametrize(
    ("received", "failures"),
    [([1.0, -np.inf], 0), ([1.0 + 9e-6, -np.inf], 0), ([1.001, -np.inf], 1), ([np.nan, -np.inf], 1), ([1.0, 2.0], 1)],
)
def test_values_within_their_tolerance(received: list[float], failures: int) -> None:
    parity = Parity("onnx")
    compare_values("here", "translate", "scores", np.array([1.0, -np.inf]), np.array(received), parity)
    assert len(parity.failures) == failures


def test_mistakes_before_any_work(run: pathlib.Path, exported: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"Unknown export format. Expected: .* Received: coreml"):
        commands.export_run(run, ["tflite", "coreml"], tmp_path / "artefact")
    with pytest.raises(UserError, match="exists already"):
        commands.export_run(run, ["tflite"], exported)
    with pytest.raises(UserError, match="is no artefact: it will not be overwritten"):
        commands.export_run(run, ["tflite"], run, overwrite=True)
    with pytest.raises(UserError, match="no such run directory"):
        commands.export_run(tmp_path / "missing", ["tflite"], tmp_path / "artefact")
    with pytest.raises(UserError, match="beam_size is out of range"):
        commands.export_run(run, ["tflite"], tmp_path / "artefact", beam_size=0)
    with pytest.raises(UserError, match="Samples are sentences, but there are no tokenizers"):
        export(tiny_model(), tmp_path / "artefact", samples=["a"])
    with pytest.raises(UserError, match="Expected: seconds > 0"):
        commands.benchmark_directory(exported, seconds=0)
    text = tmp_path / "text"
    text.write_bytes(b"fine\nna\xefve\n")
    with pytest.raises(UserError, match="text:2: not UTF-8"):
        commands.export_run(run, ["tflite"], tmp_path / "artefact", sentences=text)
    text.write_bytes(b"\n")
    with pytest.raises(UserError, match=r"the file is empty\. Expected one sentence per line"):
        commands.export_run(run, ["tflite"], tmp_path / "artefact", sentences=text)
    assert {path.name for path in tmp_path.iterdir()} == {"text"}


def test_the_former_artefact_stays_until_the_new_one_is_verified(
    folder: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "manifest.json").read_bytes()

    def fail(*arguments: Any) -> None:
        raise errors.VerificationError(["it differs"])

    with monkeypatch.context() as patch:
        patch.setattr(exporter, "compare", fail)
        with pytest.raises(errors.VerificationError, match="it differs"):
            export(dense_model(), folder, "tflite", overwrite=True)
    assert (folder / "manifest.json").read_bytes() == before
    export(dense_model(), folder, "tflite", overwrite=True)
    assert not (folder / "onnx").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("where", ["save", "convert_to_tflite"])
def test_a_full_disk(tmp_path: pathlib.Path, cheap: None, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reference if where == "save" else conversion, where, full)
    with pytest.raises(UserError, match=r"artefact: the disk is full. Nothing was left there"):
        export(dense_model(), tmp_path / "artefact", "tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_crashes(tmp_path: pathlib.Path) -> None:
    script = tmp_path / "crash.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(errors.ConversionError, match=r"TFLite converter crashed \(SIGSEGV\)"):
        conversion.run_converter("TFLite", str(script), [], tmp_path)
    script.write_text("raise OSError(28, 'No space left on device')\n")
    with pytest.raises(OSError, match="No space left on device"):
        conversion.run_converter("TFLite", str(script), [], tmp_path)
    assert signal.SIGSEGV


@pytest.mark.slow
def test_other_backends_are_told_what_to_do(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pytest.importorskip("jax")
    program = f"from keras_attention.export import export; export({str(run)!r}, {str(tmp_path / 'a')!r})"
    finished = subprocess.run(
        [sys.executable, "-c", program],
        env={"KERAS_BACKEND": "jax", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Expected: KERAS_BACKEND=tensorflow. Received: jax" in finished.stderr


def test_a_folder_whose_name_is_a_pattern(tmp_path: pathlib.Path, cheap: None) -> None:
    """TensorFlow finds no SavedModel below it; an export, what it returns, and a verification do."""
    home = tmp_path / "a [b]*?" / "c\\d"
    exported = export(dense_model(), home / "artefact[1]", "saved_model", progress=(told := []).append)
    assert os.fspath(exported) == str(home / "artefact[1]")
    assert exported.formats == {"saved_model": (exported.path / "saved_model",)}
    assert [path.name for path in home.iterdir()] == ["artefact[1]"]
    assert any("takes one of" in warning for warning in exported.warnings)
    assert told == ["computing with Keras", "writing the SavedModel", "verifying saved_model", "timing"]
    assert [parity.cases for parity in verify(exported)] == [parity.cases for parity in exported.parities] == [4]


@pytest.mark.slow
def test_the_command_from_and_into_such_folders(tmp_path: pathlib.Path) -> None:
    home = tmp_path / "a [b]*?"
    home.mkdir()
    run, output = make_run(home / "run[1]").path, home / "artefact[1]"
    done = run_command("export", run, "--output", output, "--max-length", "9")
    assert done.status == 0, done.err
    assert {path.name for path in home.iterdir()} == {run.name, output.name}
    for command in (["verify", output], ["benchmark", output, "--seconds", "0.05"]):
        done = run_command(*command)
        assert done.status == 0, done.err
    done_ = subprocess.run(
        [sys.executable, output / "runtime"], input="The cat\n", capture_output=True, text=True, check=False
    )
    assert done_.returncode == 0, done_.stderr
