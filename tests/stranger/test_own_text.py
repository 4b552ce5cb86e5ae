"""Own text through the installed command: every tokenizer, format and precision, in processes of their own.

What each artefact writes is held to what `keras-attention translate` writes, and that to the language's own rules: the
trained models know it, so that a vocabulary of the wrong side, or a wrong id, cannot pass.
"""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import unicodedata

import pytest

from tests.stranger import language
from tests.support import warm

COMMAND = str(pathlib.Path(sys.executable).with_name("keras-attention"))
READERS = pathlib.Path(__file__).with_name("readers.py")
TOKENIZERS = {
    "separate subwords": [],
    "joint subwords": ["--joint"],
    "characters": ["--tokenizer=char"],
    "words": ["--tokenizer=word"],
}
warm_children = False
"""Whether processes are forks of one that has imported TensorFlow; in the fast part alone."""
SMALL = ["--set=embedding_size=24", "--set=encoder_units=24", "--set=decoder_units=48", "--set=dropout=0"]
KNOWN = 0.4
"""Share of unseen sentences that a model must translate right for its artefacts to be worth comparing; one that writes
with another vocabulary translates none."""
SAME_INT8 = 0.8
"""Share of sentences whose text int8 weights leave as it is: near-ties may turn, a wrong scale leaves next to none."""
TEXT_REFUSED = ("characters", "words")
"""Their pieces are no operator's: text inside is for subwords."""


def command(
    *arguments: str | pathlib.Path, text: str | None = None, python: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the installed command, or this Python, as a user does; standard output and error as text."""
    start = [sys.executable] if python else [COMMAND]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "PYTHON"))
    }
    run = warm.run if warm_children else subprocess.run
    if warm_children:
        start = [] if python else [warm.SCRIPT]
    done = run(
        [*start, *map(str, arguments)], input=text, capture_output=True, encoding="utf-8", env=environment, timeout=500
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def succeeded(*arguments: str | pathlib.Path, text: str | None = None, python: bool = False) -> str:
    done = command(*arguments, text=text, python=python)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclasses.dataclass(frozen=True)
class Stranger:
    """A folder with a run trained on own text, sentences that it has not seen, and what Keras makes of them."""

    folder: pathlib.Path
    text: str
    right: list[str]

    @property
    def run(self) -> pathlib.Path:
        return self.folder / "run"

    @functools.cached_property
    def expected(self) -> list[str]:
        return succeeded("translate", self.run, text=self.text).splitlines()

    def export(self, name: str, *options: str) -> pathlib.Path:
        succeeded("export", self.run, *options, "--output", self.folder / name)
        succeeded("verify", self.folder / name)
        return self.folder / name

    def runtime(self, artefact: pathlib.Path, backend: str, *options: str) -> list[str]:
        """The output of the artefact's own runtime."""
        program = artefact / "runtime"
        return succeeded(program, "--backend", backend, *options, text=self.text, python=True).splitlines()

    def read(self, artefact: pathlib.Path, kind: str) -> list[str]:
        """The output of a program that was written from the documentation alone."""
        return succeeded(READERS, kind, artefact, text=self.text, python=True).splitlines()


def train(folder: pathlib.Path, tokenizers: str, count: int, epochs: int) -> Stranger:
    unseen = language.write(folder, count)
    files = ["--source", folder / "my.en", "--target", folder / "my.xx", "--output", folder / "run"]
    options = [*SMALL, f"--epochs={epochs}", "--learning-rate=0.01", "--batch-size=16", "--seed=5"]
    succeeded("train", *files, *options, *TOKENIZERS[tokenizers])
    return Stranger(folder, "".join(f"{source}\n" for source, _ in unseen), [target for _, target in unseen])


def without_ties(lines: list[str], text: str) -> list[str]:
    """Lines of sentences with one likeliest segmentation: "…" is read as ". .." or ".. .", which are as likely."""
    return [line for line, source in zip(lines, text.splitlines(), strict=True) if "…" not in source]


def agreeing(found: list[str], expected: list[str]) -> float:
    """Share of equal lines; subwords write compatible characters in their plain form, "..." for "…"."""
    plain = [[unicodedata.normalize("NFKC", line) for line in lines] for lines in (found, expected)]
    return sum(one == other for one, other in zip(*plain, strict=True)) / len(expected)


def test_a_slice(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subwords of each side's own, the default, as a SavedModel, whose reader knows neither project nor tokenizers."""
    monkeypatch.setattr(sys.modules[__name__], "warm_children", True)
    stranger = train(tmp_path, "separate subwords", 400, 10)
    artefact = stranger.export("saved", "--to=saved_model")
    assert agreeing(stranger.expected, stranger.right) > KNOWN
    assert stranger.read(artefact, "saved_model") == stranger.expected


@pytest.fixture(scope="module", params=TOKENIZERS)
def stranger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Stranger]:
    return request.param, train(tmp_path_factory.mktemp("own"), request.param, 800, 30)


@pytest.mark.slow
def test_every_format_in_float32(stranger: tuple[str, Stranger]) -> None:
    tokenizers, own = stranger
    with_text = [] if tokenizers in TEXT_REFUSED else ["--text"]
    artefact = own.export("float32", "--to=saved_model", "--to=tflite", "--to=onnx", *with_text)
    assert agreeing(own.expected, own.right) > KNOWN
    assert own.read(artefact, "saved_model") == own.expected
    for backend in ("litert", "onnx"):
        assert own.runtime(artefact, backend) == own.expected
        assert own.runtime(artefact, backend, "--host-loop") == own.expected
        if with_text:
            read = own.read(artefact, {"litert": "tflite_text", "onnx": "onnx_text"}[backend])
            assert without_ties(read, own.text) == without_ties(own.expected, own.text)


@pytest.mark.slow
def test_every_format_in_dynamic_int8(stranger: tuple[str, Stranger]) -> None:
    tokenizers, own = stranger
    with_text = [] if tokenizers in TEXT_REFUSED else ["--text"]
    artefact = own.export("int8", "--to=tflite", "--to=onnx", "--precision=dynamic_int8", *with_text)
    for backend in ("litert", "onnx"):
        found = own.runtime(artefact, backend)
        assert agreeing(found, own.expected) >= SAME_INT8
        if with_text:
            read = own.read(artefact, {"litert": "tflite_text", "onnx": "onnx_text"}[backend])
            assert without_ties(read, own.text) == without_ties(found, own.text)


@pytest.mark.slow
def test_the_npu_format(stranger: tuple[str, Stranger]) -> None:
    """Its numbers are int8 throughout, weights and activations."""
    own = stranger[1]
    artefact = own.export("npu", "--to=npu", f"--calibration={own.folder / 'my.en'}")
    assert agreeing(own.runtime(artefact, "npu"), own.right) >= SAME_INT8 * agreeing(own.expected, own.right)


@pytest.mark.slow
def test_what_is_refused(stranger: tuple[str, Stranger]) -> None:
    """One line each, before anything is written: what a format cannot hold."""
    tokenizers, own = stranger
    refused = {
        ("--to=saved_model", "--precision=dynamic_int8"): "saved_model cannot hold dynamic_int8",
        ("--to=npu", "--precision=float32"): "npu",
        ("--to=npu", "--precision=dynamic_int8"): "npu",
    }
    if tokenizers in TEXT_REFUSED:
        refused[("--to=tflite", "--text")] = "subword"
        refused[("--to=onnx", "--text")] = "subword"
    for options, message in refused.items():
        done = command("export", own.run, *options, "--output", own.folder / "refused")
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode, len(errors)) == (1, 1), done.stderr
        assert message in errors[0]
        assert not (own.folder / "refused").exists()
