"""The standalone runtime: as a module, as a command, and alone in an environment without TensorFlow and Keras."""

import concurrent.futures
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from keras_attention import EncoderDecoder, UserError
from keras_attention.export import export, runtime
from keras_attention.export import manifest as artefact
from keras_attention.export.formats.runtime_copy import copy_runtime
from keras_attention.search import Constraints, beam_search
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.export_models import LINES, cheap, tiny_model
from tests.support.parts import fast

__all__ = ["cheap"]

SENTENCES = [*LINES, "cat 😺 zzz"]
MODULES = {"litert": "ai-edge-litert", "onnx": "onnxruntime"}
BACKENDS = [*MODULES, "openvino"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Any]:
    """A subword translator in TFLite and ONNX, and its Keras model."""
    tokenizers = train_tokenizer("subword", LINES * 4, 60), train_tokenizer("char", LINES)
    sizes = {
        "source_vocabulary": tokenizers[0].vocabulary_size,
        "target_vocabulary": tokenizers[1].vocabulary_size,
    }
    model = tiny_model(seed=11, **sizes)  # weights with which no sentence below comes to a near-tie
    folder = tmp_path_factory.mktemp("exported") / "artefact"
    with pytest.MonkeyPatch.context() as patch:
        cheap.__wrapped__(patch)
        export(
            model,
            folder,
            ["tflite", "onnx"],
            samples=LINES,
            tokenizers=tokenizers,
            beam_size=3,
            max_length=29,
            max_length_factor=1.5,
            max_length_offset=2,
        )
    return folder, model


@pytest.fixture
def folder(exported: tuple[pathlib.Path, Any], tmp_path: pathlib.Path) -> pathlib.Path:
    """A copy of the artefact to damage."""
    return pathlib.Path(shutil.copytree(exported[0], tmp_path / "artefact"))


def keras_search(model: Any, rows: list[list[int]], beam_size: int = 3) -> dict[str, np.ndarray]:
    source = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for line, row in zip(source, rows, strict=True):
        line[: len(row)] = row
    found = EncoderDecoder(model).search(
        source, beam_size=beam_size, max_length=29, max_length_factor=1.5, max_length_offset=2
    )
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("beam_size", "host_loop"), [(3, False), (3, True), (1, True), (5, True)])
def test_the_tokens_are_those_of_keras(
    exported: tuple[pathlib.Path, Any], backend: str, beam_size: int, host_loop: bool
) -> None:
    folder, model = exported
    translator = runtime.Artefact(folder, backend)
    assert translator.source is not None
    assert translator.target is not None
    rows = [[*translator.source.encode(text), 2] for text in SENTENCES]
    expected = keras_search(model, rows, beam_size)
    assert expected["margins"].min() > 1e-4  # no near-tie, at which float32 kernels may choose differently
    results = translator.translate(
        SENTENCES, n_best=beam_size, batch_size=len(rows), beam_size=beam_size, host_loop=host_loop
    )
    for row, hypotheses in enumerate(results):
        assert len(hypotheses) == (expected["lengths"][row] > 0).sum()
        for slot, hypothesis in enumerate(hypotheses):
            length, finished = expected["lengths"][row, slot], expected["finished"][row, slot]
            assert hypothesis.ids == expected["ids"][row, slot, : length - finished].tolist()
            assert hypothesis.text == translator.target.decode(hypothesis.ids)
            assert hypothesis.finished == finished
            # Float32 kernels of another runtime.
            np.testing.assert_allclose(hypothesis.score, expected["scores"][row, slot], atol=1e-4)
            # Likewise.
            np.testing.assert_allclose(hypothesis.log_prob, expected["log_probs"][row, slot], atol=1e-4)
            attention = expected["alignments"][row, slot, :length, : len(rows[row])]
            np.testing.assert_allclose(hypothesis.alignment, attention, atol=1e-5)  # likewise, weights of at most 1


@pytest.mark.slow
@pytest.mark.parametrize("attention", fast(["general", "none"], "none"))
def test_cell_states_at_the_ends_of_rows(tmp_path: pathlib.Path, cheap: None, attention: str) -> None:
    """Rows of many lengths whose decoder begins with the encoder's cell states. OpenVINO takes each length alone."""
    model = tiny_model(attention=attention, bridge="copy", decoder_units=14)
    export(model, tmp_path / "artefact", "onnx", beam_size=2, max_length=7)
    source = np.array([[4, 5, 6, 7, 2], [8, 2, 0, 0, 0], [9, 4, 2, 0, 0], [5, 2, 0, 0, 0]], np.int32)
    prefix = np.array([[4], [5], [0], [6]], np.int32)
    found = [
        runtime.Artefact(tmp_path / "artefact", name).search(source, prefix=prefix) for name in ("onnx", "openvino")
    ]
    assert len({tuple(row) for row in found[0]["ids"][:, 0].tolist()}) == 4
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, atol=1e-5, err_msg=name)  # float32 in another order


KNOBS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no length penalty": {"length_penalty": 0.0},
    "minimum": {"min_length": 3},
    "coverage": {"coverage_penalty": 0.4},
    "banned": {"allowed": np.array([True, True, True, False, True])},
    "prefix": {"prefix": np.array([[4, 3], [3, 0], [0, 0]])},
    "nothing is allowed": {"allowed": np.array([True, False, False, False, False])},
    "all": {
        "min_length": 3,
        "coverage_penalty": 0.4,
        "allowed": np.array([True, True, True, False, True]),
        "prefix": np.array([[3, 3], [3, 4], [0, 0]]),
    },
}


@pytest.mark.parametrize("name", KNOBS)
@pytest.mark.parametrize("beam_size", [1, 2, 7, 40])
def test_host_search_equals_the_search_of_the_library(beam_size: int, name: str) -> None:
    """On a table of integer log-probabilities, with many ties, and a beam wider than what there is to find."""
    table = -np.random.default_rng(beam_size).integers(1, 4, size=(5, 5)).astype(np.float32)
    limits = np.array([4, 2, 3])
    knobs = {
        "min_length": np.array(0),
        "length_penalty": np.float32(0.7),
        "coverage_penalty": np.float32(0.0),
        "allowed": np.ones(5, bool),
        "prefix": np.zeros((3, 1), int),
        **KNOBS[name],
    }
    rules = {rule: knobs[rule] for rule in ("min_length", "allowed", "prefix")}
    limits = np.maximum(limits, rules["min_length"])

    def library_step(token: Any, state: Any, memory: Any) -> tuple[Any, Any, Any]:
        import keras

        return keras.ops.take(keras.ops.convert_to_tensor(table), token, axis=0), state, memory["source"]

    def host_step(tokens: np.ndarray, state: dict[str, np.ndarray]) -> tuple[Any, Any, Any]:
        return table[tokens], state, state["source"]

    source = np.random.default_rng(1).random(size=(3, 2)).astype(np.float32) / 4
    mask = np.array([[True, True], [True, False], [True, True]])
    state = {"source": source}
    expected = beam_search(
        library_step,
        state,
        state,
        beam_size=beam_size,
        max_length=limits,
        capacity=4,
        length_penalty=knobs["length_penalty"],
        coverage_penalty=knobs["coverage_penalty"],
        source_mask=mask,
        constraints=Constraints(**rules),
    )
    tiled = {"source": np.repeat(source, beam_size, axis=0)}
    found = runtime.beam_search(host_step, tiled, (3, beam_size, 2), limits, knobs, mask, artefact.SPECIAL_IDS)
    width = found["ids"].shape[-1]
    for output, value in found.items():
        whole = np.asarray(expected[output])
        # Float32 sums of few terms.
        np.testing.assert_allclose(value, whole[:, :, :width] if value.ndim > 2 else whole, atol=1e-6, err_msg=output)
    assert np.isfinite(found["scores"][:, 0]).all() == (name != "nothing is allowed")


@pytest.mark.parametrize("host_loop", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_knobs_do_what_they_say(exported: tuple[pathlib.Path, Any], backend: str, host_loop: bool) -> None:
    translator = runtime.Artefact(exported[0], backend)
    assert translator.target is not None

    def found(**knobs: Any) -> list[runtime.Hypothesis]:
        return [best[0] for best in translator.translate(SENTENCES, host_loop=host_loop, **knobs)]

    plain = found()
    assert [h.ids for h in found(min_length=0, prefix="", banned=())] == [h.ids for h in plain]
    token = translator.target.tokens(plain[0].ids)[0]
    banned = found(banned=[token])
    assert token not in {piece for hypothesis in banned for piece in hypothesis.tokens}
    mask = translator.allowed([token])
    assert [h.ids for h in found(allowed=mask)] == [h.ids for h in banned]
    assert all(len(hypothesis.ids) <= 4 for hypothesis in found(max_length=4))
    shortest = 5
    assert all(len(h.ids) + h.finished >= shortest for h in found(min_length=shortest, max_length=20) if h.finished)
    begun = found(prefix="ca", min_length=3)
    assert all(hypothesis.text.startswith("ca") for hypothesis in begun)
    each = [text[:2] for text in LINES] + [""]
    one_by_one = found(prefix=each)
    assert [h.text[: len(p)] for h, p in zip(one_by_one, each, strict=True)] == each
    assert one_by_one[-1].ids == plain[-1].ids
    covered = found(coverage_penalty=5.0)
    for hypothesis, other in zip(covered, plain, strict=True):
        logs = np.log(np.clip(hypothesis.alignment.sum(axis=0), 1e-6, 1.0)).sum()
        length = len(hypothesis.ids) + hypothesis.finished
        expected = hypothesis.log_prob / ((5 + length) / 6) + 5.0 * logs
        np.testing.assert_allclose(hypothesis.score, expected, rtol=1e-4)  # float32; logarithms of sums of weights
        assert hypothesis.score <= other.score


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"max_length": 30}, "max length is out of range. Expected: 1 to 29"),
        ({"min_length": -1}, "min length is out of range"),
        ({"min_length": 9, "max_length": 8}, "min length is above the maximum"),
        ({"coverage_penalty": -0.1}, "coverage penalty is out of range. Expected: 0 to 1000"),
        ({"length_penalty": float("nan")}, "length penalty is out of range. Expected: -10 to 10"),
        ({"temperature": 1.0}, "no knob 'temperature'. Expected: one of max_length"),
        ({"prefix": "漢"}, "prefix '漢' holds what the model cannot write"),
        ({"prefix": ["a", "b"]}, "a prefix for each of 1 sentences. Received: 2"),
        ({"prefix": "a dog — a dog — a dog — a dog — a dog"}, "prefix is longer than a translation may be"),
        ({"banned": ["漢"]}, "banned word '漢' holds what the model cannot write"),
        ({"banned": ["cat"]}, "banned word 'cat' is not one token"),
        ({"banned": "cat"}, "a list of banned tokens. Received: 'cat'"),
        ({"max_length": "5"}, "max length is of another type. Expected: int32"),
        ({"max_length": 3.9}, "max length is of another type"),
        ({"max_length": True}, "max length is of another type"),
        ({"length_penalty": 1e39}, "length penalty is out of range"),
    ],
)
def test_mistakes_with_knobs(exported: tuple[pathlib.Path, Any], knobs: dict[str, Any], message: str) -> None:
    translator = runtime.Artefact(exported[0], "onnx")
    with pytest.raises(runtime.ArtefactError, match=message):
        next(translator.translate(["a dog"], **knobs))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"allowed": np.ones(3, bool)}, "allowed has another shape"),
        ({"allowed": np.ones(3, int)}, "allowed is of another type. Expected: bool"),
        ({"prefix": [[4], [4, 5]]}, "prefix is of another type. Expected: int32, in one array"),
        ({"prefix": np.zeros((2, 1), int)}, "prefix has another shape"),
        ({"prefix": [[4, 2]]}, "prefix ends before its words do"),
        ({"prefix": [[0, 4]]}, "prefix ends before its words do"),
        ({"prefix": [[-1]]}, "prefix is out of range"),
        ({"prefix": [[10**6]]}, "prefix is out of range"),
    ],
)
def test_mistakes_with_arrays(exported: tuple[pathlib.Path, Any], knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(runtime.ArtefactError, match=message):
        runtime.Artefact(exported[0], "onnx").search(np.array([[4, 2]]), **knobs)


def command(folder: pathlib.Path, *options: str, text: str = "\n".join(SENTENCES) + "\n") -> Any:
    arguments = [sys.executable, str(folder / "runtime"), *options]
    return subprocess.run(arguments, input=text.encode(), capture_output=True, check=False)


def test_the_command(exported: tuple[pathlib.Path, Any], tmp_path: pathlib.Path) -> None:
    folder = exported[0]
    expected = [found[0].text for found in runtime.Artefact(folder).translate(SENTENCES)]
    plain = command(folder)
    assert plain.stdout.decode().split("\n")[:-1] == expected
    assert b"line 7" in plain.stderr
    options = [
        "--backend",
        "onnx",
        "--host-loop",
        "--n-best",
        "2",
        "--scores",
        "--alignments",
        str(tmp_path / "a.jsonl"),
    ]
    listed = command(folder, *options)
    lines = listed.stdout.decode().split("\n")[:-1]
    assert len(lines) == 2 * len(SENTENCES)
    assert [line.partition("\t")[2] for line in lines[::2]] == expected
    assert float(lines[0].partition("\t")[0]) >= float(lines[1].partition("\t")[0])
    entries = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(entries) == len(lines)
    assert np.shape(entries[0]["alignment"])[1] == len(entries[0]["source_tokens"])


WAYS = {
    "from another folder": ["{folder}/runtime"],
    "as a package": ["-m", "runtime", "--artefact", "{folder}"],
    "as the installed package": ["-m", "keras_attention.export.runtime", "--artefact", "{folder}"],
    "as an import": [
        "-c",
        "import sys; from runtime import main; sys.exit(main(['--artefact', '{folder}']))",
    ],
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_start_it(exported: tuple[pathlib.Path, Any], way: str, tmp_path: pathlib.Path) -> None:
    """The same lines; each module comes from the artefact, or from the installed package."""
    folder = exported[0]
    arguments = [argument.format(folder=folder) for argument in WAYS[way]]
    path = {"PYTHONPATH": str(folder)} if "package" in way or "import" in way else {}
    finished = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        input=b"a dog\n",
        env={**os.environ, **path},
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    (best, *_) = next(runtime.Artefact(folder).translate(["a dog"]))
    assert finished.stdout.decode() == f"{best.text}\n"
    loaded = {line.rpartition("|")[2].strip() for line in finished.stderr.decode().splitlines()}
    modules = {name for name in loaded if name.endswith(".host_loop")}
    assert modules == {"keras_attention.export.runtime.host_loop" if "installed" in way else "runtime.host_loop"}
    assert not {"host_loop", "inputs", "knobs", "manifest"} & loaded


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        (["--beam", "0"], "a\n", "beam size is out of range"),
        (["--n-best", "4"], "a\n", "n-best is out of range"),
        (["--max-length", "30"], "a\n", "max length is out of range"),
        (["--min-length", "30"], "a\n", "min length is out of range"),
        (["--ban", "漢"], "a\n", "banned word"),
        (["--artefact", "missing"], "a\n", "there is no such directory"),
        (["--alignments", "missing/file"], "a\n", "missing/file"),
        ([], "a\n\nb\n", "line 2 is empty"),
        (["--batch", "0"], "a\n", "batch"),
        (["--threads", "100000"], "a\n", "number of threads is out of range. Expected: 1 to 256"),
        (["--seed=-1"], "a\n", "seed is out of range"),
        (["--beam", "1000000000"], "a\n", "beam size is out of range"),
        (["--length-penalty", "1e30"], "a\n", "length penalty is out of range"),
        ([], "a\n\u200b\n", "line 2 is empty"),
    ],
)
def test_mistakes_of_the_command(
    exported: tuple[pathlib.Path, Any], options: list[str], text: str, message: str
) -> None:
    failed = command(exported[0], *options, text=text)
    assert failed.returncode == 1
    assert failed.stderr.decode().startswith("error: ")
    assert message in failed.stderr.decode()
    assert failed.stderr.count(b"\n") == 1


def test_bytes_that_are_not_text(exported: tuple[pathlib.Path, Any]) -> None:
    arguments = [sys.executable, str(exported[0] / "runtime")]
    failed = subprocess.run(arguments, input=b"fine\nna\xefve\n", capture_output=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"error: standard input, line 2, is not UTF-8")


@pytest.mark.parametrize("name", ["model.tflite", "source.tok.model", "target.tok.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["edited", "cut", "missing"])
def test_a_damaged_file_is_refused(folder: pathlib.Path, name: str, damage: str) -> None:
    content = (folder / name).read_bytes()
    if damage == "edited":
        middle = len(content) // 2
        (folder / name).write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    else:
        (folder / name).unlink()
    with pytest.raises(runtime.ArtefactError, match=name):
        runtime.Artefact(folder, "litert")


def test_ids_and_lengths_are_checked(exported: tuple[pathlib.Path, Any]) -> None:
    translator = runtime.Artefact(exported[0], "litert")
    with pytest.raises(runtime.ArtefactError, match="row 2: an id is outside the vocabulary"):
        translator.check_ids([[4, 2], [9999, 2]])
    with pytest.raises(runtime.ArtefactError, match="outside the vocabulary"):
        translator.search(np.array([[-1, 2]], np.int32))
    translator.manifest["max_source_length"] = 3
    with pytest.raises(runtime.ArtefactError, match="row 1 is too long for this model"):
        translator.check_ids([[4, 5, 6, 2]])


def test_a_missing_interpreter_names_its_package(
    exported: tuple[pathlib.Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(runtime.ArtefactError, match="pip install ai-edge-litert"):
        runtime.Artefact(exported[0], "litert")
    assert runtime.Artefact(exported[0], "auto").backend.name == "onnx"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert runtime.Artefact(exported[0], "auto").backend.name == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(runtime.ArtefactError, match=r"ai-edge-litert.*Or: .*onnxruntime.*Or: .*openvino"):
        runtime.Artefact(exported[0], "auto")


def test_another_artefact_of_other_formats(exported: tuple[pathlib.Path, Any], tmp_path: pathlib.Path) -> None:
    """A runtime copied with ONNX files alone reads the ONNX files of an artefact that has others, too."""
    copy_runtime(tmp_path, ["onnx"])
    assert {path.stem for path in (tmp_path / "runtime" / "backends").iterdir()} == {
        *("__init__", "onnx_runtime", "openvino")
    }
    options = ["--artefact", str(exported[0])]
    plain = command(tmp_path, *options)
    assert (plain.returncode, plain.stdout) == (0, command(exported[0]).stdout)
    failed = command(tmp_path, *options, "--backend", "litert")
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert failed.stderr.decode() == (
        "error: This runtime has no LiteRT: the artefact that holds it has no such files. "
        f"Run: python {exported[0] / 'runtime'}\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", MODULES)
def test_alone_in_a_fresh_environment(
    exported: tuple[pathlib.Path, Any], backend: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """numpy, one interpreter, sentencepiece: nothing else, and neither TensorFlow nor Keras is loaded."""
    folder = exported[0]
    environment = tmp_path_factory.mktemp(f"environment-{backend}")
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    packages = ["numpy", "sentencepiece", MODULES[backend]]
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if installed.returncode and "connection broken by" in installed.stderr:
        pytest.skip("pip reaches no package index")
    assert installed.returncode == 0, installed.stderr
    expected = [found[0].text for found in runtime.Artefact(folder, backend).translate(SENTENCES)]
    text = "\n".join(SENTENCES).encode()
    arguments = [str(python), "-X", "importtime", str(folder / "runtime"), "--backend", backend]
    for route in ([], ["--host-loop"]):
        finished = subprocess.run(
            [*arguments, *route], input=text, capture_output=True, check=True, cwd=environment, env={}
        )
        assert finished.stdout.decode().split("\n")[:-1] == expected
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in finished.stderr.decode().splitlines()}
        assert "numpy" in loaded
        assert not loaded & {"tensorflow", "keras", "keras_attention"}


@pytest.mark.parametrize("backend", fast(MODULES))
def test_features_are_read_as_keras_reads_them(tmp_path: pathlib.Path, cheap: None, backend: str) -> None:
    model = tiny_model(source_vocabulary=0, source_features=3)
    generator = np.random.default_rng(0)
    samples = [generator.normal(size=(length, 3)) for length in (1, 4, 6)]
    folder = tmp_path / "artefact"
    limits: dict[str, Any] = {"max_length_factor": 1.0, "max_length_offset": 1}
    export(model, folder, ["tflite", "onnx"], samples=samples, beam_size=3, max_length=11, **limits)
    source = np.zeros((2, 7, 3), np.float32)
    source[0, :6], source[1, :4] = samples[2], samples[1]
    expected = EncoderDecoder(model).search(source, beam_size=3, max_length=11, **limits)
    translator = runtime.Artefact(folder, backend)
    for host_loop in (False, True):
        found = translator.search(source, host_loop=host_loop)
        width = found["ids"].shape[-1]
        np.testing.assert_array_equal(found["ids"], np.asarray(expected["ids"])[:, :, :width])
        np.testing.assert_array_equal(found["lengths"], np.asarray(expected["lengths"]))
    np.testing.assert_array_equal(translator.search(source.tolist())["ids"], np.asarray(expected["ids"]))
    for wrong in (source[0], source[:, :, :2], np.ones((1, 3), np.int32), source[:, :0]):
        with pytest.raises(runtime.ArtefactError, match=r"Expected: features \(batch, length, 3\)"):
            translator.search(wrong)
    with pytest.raises(runtime.ArtefactError, match="Row 2 is empty: wholly 0"):
        translator.search(source * [[[1]], [[0]]])
    with pytest.raises(runtime.ArtefactError, match="not finite"):
        translator.search(np.where(source == 0, np.nan, source))
    with pytest.raises(runtime.ArtefactError, match="without tokenizers"):
        translator.encode(["a b"])
    with pytest.raises(UserError, match=r"Samples are sentences\. Expected: features"):
        export(model, tmp_path / "other", ["tflite"], samples=["a b"])
    with pytest.raises(UserError, match=r"Expected: features \(length, 3\). Received: \(3, 4\)"):
        export(model, tmp_path / "other", ["tflite"], samples=np.ones((1, 3, 4)))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_features_too_long_for_a_location_score(tmp_path: pathlib.Path, cheap: None) -> None:
    model = tiny_model(source_vocabulary=0, source_features=3, attention="location", max_source_length=6)
    export(model, tmp_path / "artefact", ["onnx"], beam_size=2, max_length=5)
    with pytest.raises(runtime.ArtefactError, match=r"too long for this model. Expected: at most 6 positions"):
        runtime.Artefact(tmp_path / "artefact").search(np.ones((1, 7, 3)))


@pytest.mark.parametrize("host_loop", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_that_share_an_artefact(exported: tuple[pathlib.Path, Any], backend: str, host_loop: bool) -> None:
    """Each caller gets what it gets alone, whatever the others ask for at the same time."""
    artefact = runtime.Artefact(exported[0], backend)
    alone = [list(artefact.translate([text], host_loop=host_loop)) for text in SENTENCES]
    start = threading.Barrier(4)

    def ask(number: int) -> bool:
        start.wait()
        texts = [(number + turn) % len(SENTENCES) for turn in range(6)]
        found = [list(artefact.translate([SENTENCES[i]], host_loop=host_loop)) for i in texts]
        return [one[0][0].ids for one in found] == [alone[i][0][0].ids for i in texts]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


@pytest.mark.parametrize("threads", [0, -5, 100_000, 2.0, True])
def test_numbers_of_threads(exported: tuple[pathlib.Path, Any], threads: Any) -> None:
    with pytest.raises(runtime.ArtefactError, match=r"number of threads is out of range\. Expected: 1 to 256"):
        runtime.Artefact(exported[0], "onnx", threads)


def test_sentences_longer_than_those_of_training(exported: tuple[pathlib.Path, Any]) -> None:
    artefact = runtime.Artefact(exported[0], "onnx")
    assert artefact.source is not None
    artefact.manifest["trained_source_length"] = len(artefact.source.encode("a dog"))
    assert artefact.encode(["a dog"])
    with pytest.raises(
        runtime.ArtefactError, match=r"line 2: \d+ tokens\. Expected: at most \d+, the limit of training"
    ):
        artefact.encode(["a dog", "a dog on the mat"])
    with pytest.raises(runtime.ArtefactError, match="line 1 holds a lone surrogate"):
        artefact.encode(["a\udcff"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([[4.7, 2.0]], "source is of another type. Expected: int32"),
        ([[4, 5, 2], [4, 2]], "rows of different lengths"),
        ([[0, 4, 2]], "row 1 is no source. Expected: ids, EOS"),
        ([[4, 2], [4, 5]], "row 2 is no source"),
        ([[4, 2], [0, 0]], "row 2 is no source"),
    ],
)
def test_sources_that_are_none(exported: tuple[pathlib.Path, Any], source: Any, message: str) -> None:
    with pytest.raises(runtime.ArtefactError, match=message):
        runtime.Artefact(exported[0], "onnx").search(source)


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        ("<&-", 1, "error: Standard input is closed"),
        (">&-", 1, "error: Standard output is closed"),
        ("> /dev/full", 1, "error: [Errno 28]"),
        ("| head -1 > /dev/null", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_streams_that_are_closed(
    exported: tuple[pathlib.Path, Any], redirection: str, status: int, said: str, tmp_path: pathlib.Path
) -> None:
    """One line, or silence."""
    (tmp_path / "text").write_text("a dog\n" * 30, encoding="utf-8")
    given = "" if "<" in redirection else f"< {shlex.quote(str(tmp_path / 'text'))}"
    words = [sys.executable, str(exported[0] / "runtime"), "--backend", "onnx", "--batch", "1"]
    done = subprocess.run(
        f"{shlex.join(words)} {given} {redirection}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == status
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == bool(said)


def test_an_artefact_of_another_process(exported: tuple[pathlib.Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    artefact = runtime.Artefact(exported[0], "onnx")
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(runtime.ArtefactError, match="opened by another process"):
        artefact.search(np.array([[4, 2]]))
