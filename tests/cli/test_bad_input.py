"""A user's mistake is one line that says what, where and what to do, and exit status 1; nothing written is lost."""

import json
import pathlib
import shutil
import subprocess

import pytest

from keras_attention.errors import UserError
from keras_attention.files import write_atomically, write_text
from keras_attention.run_directory import RunDirectory
from tests.support import toy, warm
from tests.support.command import run_command

FULL = pathlib.Path("/dev/full")
needs_a_full_disk = pytest.mark.skipif(not FULL.exists(), reason=f"no {FULL}, which Linux has, to be a full disk")


def fails(done, *parts: str) -> None:
    assert done.status == 1
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.err
    for part in parts:
        assert part in errors[0]


def train(tmp_path, source: bytes, target: bytes, *options):
    (tmp_path / "s.txt").write_bytes(source)
    (tmp_path / "t.txt").write_bytes(target)
    files = ["--source", tmp_path / "s.txt", "--target", tmp_path / "t.txt", "--output", tmp_path / "run"]
    return run_command("train", *files, *toy.OPTIONS, *options)


@pytest.mark.parametrize(
    ("source", "target", "parts"),
    [
        (b"a\nb\n", b"x\n", ("s.txt and ", "2 lines and 1 lines; line 2 has no partner in ", "s.txt")),
        (b"a\n\nc\n", b"x\ny\nz\n", ("s.txt:2: empty line", "--skip-empty")),
        (b"", b"x\n", ("s.txt: the file is empty",)),
        (b"a\nb\n", b"x\n\xff\xfe\n", ("t.txt:2: not UTF-8 (byte 0xff at column 1)", "iconv")),
        (b"a\n", b"x\n", ("s.txt:1: one pair cannot be split",)),
        (
            b"a" * 30 + b"\n" + b"b" * 30 + b"\n",
            b"x\ny\n",
            (": every train pair has more than 20 tokens", "--max-length"),
        ),
    ],
)
def test_bad_training_text(source, target, parts, tmp_path) -> None:
    fails(train(tmp_path, source, target), *parts)
    # Nothing was trained yet, so that mended text or another choice is not refused as another training.
    fails(train(tmp_path, source, target, "--max-length=19"), parts[0].replace("20", "19"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--recipe", "poems"], ("Unknown recipe", "one of dates, g2p, multi30k", "'poems'")),
        (["--recipe", "dates", "--data", "x"], ("generates its text",)),
        (["--recipe", "multi30k", "--data", "nowhere"], ("nowhere: no such folder",)),
        (["--recipe", "g2p", "--data", "."], ("incomplete", "train.tsv, tune.tsv")),
        (["--recipe", "dates", "--source", "x", "--target", "y"], ("--recipe or text files, not both",)),
        (["--data", "x"], ("Expected --recipe",)),
        ([], ("nothing to train on",)),
        (["--source", "x"], ("--target FILE",)),
        (["--source", "x", "--target", "y"], ("x: no such file",)),
        (
            ["--recipe", "dates", "--set", "depth=3"],
            ("Unknown field of Seq2SeqConfig", "one of alignment, ", "'depth'"),
        ),
        (["--recipe", "dates", "--attention", "magic"], ("magic",)),
        (["--recipe", "dates", "--batch-size", "0"], ("batch_size is out of range",)),
        (["--recipe", "dates", "--set", "decoder_unit=3"], ("Expected: 'decoder_units', the nearest name",)),
        (["--recipe", "dates", "--tokenizer", "byte"], ("Unknown source_tokenizer", "'byte'")),
        (["--tokenizer", "word", "--target-tokenizer", "byte"], ("Unknown target_tokenizer", "'byte'")),
    ],
)
def test_bad_choices(arguments, parts, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    fails(run_command("train", "--output", "run", *arguments), *parts)
    assert not (tmp_path / "run").exists()


def test_overwrite_deletes_run_directories_alone(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    fails(train(tmp_path, b"a\nb\n", b"x\ny\n", "--overwrite"), "is no run directory, so --overwrite leaves it alone")
    fails(train(tmp_path, b"a\nb\n", b"x\ny\n"), "holds other files (thesis.txt, …)")
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("lines", "written", "parts"),
    [
        (b"abc\n\nfed\n", 1, ("stdin:2: empty line", "--skip-errors")),
        (b"abc\nab\xe9\n", 1, ("stdin:2: not UTF-8 (byte 0xe9 at column 3)",)),
        (b"abc\nfed\naZ\n", 2, ("stdin:3: character 'Z' (U+005A) was never seen", "--skip-errors")),
        (b"a" * 21 + b"\n", 0, ("stdin:1: 21 tokens. Expected at most 20", "Split the sentence")),
        (b"", 0, ("stdin: the input is empty",)),
    ],
)
def test_translate_stops_at_a_bad_line_after_writing_those_before_it(lines, written, parts, toy_run) -> None:
    done = run_command("translate", toy_run.path, "--beam=1", "--max-length=4", stdin=lines)
    fails(done, *parts)
    assert done.out.count("\n") == written


def test_attention_and_evaluate_refuse_bad_text(toy_run, tmp_path) -> None:
    fails(run_command("attention", toy_run.path, " ", "--output", tmp_path / "x.png"), "empty line")
    fails(run_command("attention", toy_run.path, "aé", "--output", tmp_path / "x.png"), "'é' (U+00E9) was never seen")
    (tmp_path / "file").write_text("")
    done = run_command("attention", toy_run.path, "a", "--output", tmp_path / "file" / "x.png")
    fails(done, "file/x.png: cannot be written")
    (tmp_path / "s").write_text("a\n" + "b" * 21 + "\n")
    (tmp_path / "t").write_text("a\nb\n")
    files = ["--source", tmp_path / "s", "--target", tmp_path / "t"]
    fails(run_command("evaluate", toy_run.path, *files), "s:2: 21 tokens", "--skip-errors")
    fails(run_command("evaluate", toy_run.path, "--source", tmp_path / "s"), "--target FILE")
    (tmp_path / "s").write_text("a\né\n")
    fails(run_command("evaluate", toy_run.path, *files, "--task", "poetry"), "Unknown task")
    done = run_command("evaluate", toy_run.path, *files, "--beam=1")
    assert done.status == 0
    assert "warning: 1 sources hold what training never saw, the first at" in done.err
    assert json.loads(done.out.splitlines()[-1])["sources_with_unseen"] == 1


def damaged(name: str, content: bytes | None):
    def change(run: pathlib.Path) -> None:
        if content is None:
            (run / name).unlink()
        else:
            (run / name).write_bytes(content)

    return change


def other_version(run: pathlib.Path) -> None:
    metadata = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**metadata, "format_version": 99}))


def cut_model(run: pathlib.Path) -> None:
    content = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (shutil.rmtree, ("no such run directory", "keras-attention train")),
        (damaged("config.json", None), ("config.json: no such file", "not a run directory")),
        (damaged("config.json", b"{"), ("config.json: damaged",)),
        (damaged("config.json", b'{"format_version": 1}'), ("config.json: damaged", "model, source_tokenizer")),
        (other_version, ("config.json: a run directory of another version", "Received: 99")),
        (damaged("model.keras", None), ("model.keras: no such file", "start the training again")),
        (cut_model, ("model.keras: damaged",)),
        (damaged("target.tok.json", b"\x00"), ("target.tok.json: damaged",)),
        (damaged("source.tok.json", None), ("source.tok.json: no such file",)),
    ],
)
def test_a_bad_run_directory_names_the_file(change, parts, toy_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(toy_run.path, run)
    change(run)
    fails(run_command("translate", run, stdin=b"abc\n"), *parts)


def test_what_is_no_run_directory_is_told_by_its_kind(toy_run, tmp_path) -> None:
    fails(run_command("translate", toy_run.model_path), "model.keras: a file", f"Try {toy_run.path}")
    (tmp_path / "manifest.json").write_text("{}")
    fails(run_command("translate", tmp_path), "an artefact", f"python {tmp_path / 'runtime'}")


@pytest.mark.once(reason="export runs on TensorFlow")
def test_what_is_no_artefact_is_told_by_its_kind(toy_run, tmp_path) -> None:
    fails(run_command("verify", tmp_path / "nowhere"), "nowhere is not an artefact: there is no such directory")
    fails(run_command("benchmark", toy_run.path), "is not an artefact: it has no manifest.json")
    fails(run_command("estimate", tmp_path / "nowhere"), "nowhere: cannot be read: No such file", "or a run directory")


def test_tokenizers_of_another_run_are_noticed(toy_run, tmp_path) -> None:
    run = tmp_path / "run"
    shutil.copytree(toy_run.path, run)
    content = json.loads((run / "source.tok.json").read_text())
    content["vocabulary"].append("z")
    (run / "source.tok.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"does not fit the tokenizers beside it"):
        RunDirectory.open(run)


@needs_a_full_disk
def test_a_failed_write_leaves_the_former_file(tmp_path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "whole")

    def fill(temporary: pathlib.Path) -> None:
        temporary.write_text("half")
        FULL.write_text("no space is left there")

    with pytest.raises(UserError, match=r"x\.txt: the disk is full\. What was saved before is whole"):
        write_atomically(path, fill)
    assert path.read_text() == "whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]
    with pytest.raises(UserError, match="cannot be written"):
        write_text(path / "below" / "a" / "file", "text")


@needs_a_full_disk
def test_a_full_disk_under_the_output_is_one_line(toy_run) -> None:
    arguments = ["-m", "keras_attention.cli", "translate", toy_run.path, "--max-length=4"]
    with FULL.open("w") as full:
        done = warm.run(arguments, input=b"abc\n" * 3, stdout=full, stderr=subprocess.PIPE, check=False)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert "error: the output: the disk is full" in lines[-1]
    assert "Traceback" not in done.stderr.decode()
