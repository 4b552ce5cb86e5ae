"""Lines of which nothing is left: every command names the first one, and `--skip-errors` leaves its pair out."""

import json
import pathlib

import pytest

from keras_attention import EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import train_tokenizer
from keras_attention.training.evaluate import filled, read_references
from keras_attention.translation.translator import Translator
from tests.support.command import run_command

LINES = ["a dog", "one cat", "two dogs and a cat", "on the mat"]
SOURCES = ["a dog", "\u200b", "one cat", "", "on the mat"]
TARGETS = ["ein hund", "nichts", "", "leer", "auf der matte"]
UNSEEN = "nothing that is seen: no token is left of it. Expected a sentence"


def make_run(path: pathlib.Path, kind: str) -> pathlib.Path:
    """An untrained run; of the kinds of tokenizers only subwords drop what is not seen."""
    path.mkdir()
    tokenizer = train_tokenizer("subword", LINES * 4, 30) if kind == "subword" else train_tokenizer(kind, LINES)
    files = [tokenizer.save(path, side)[0] for side in ("source", "target")]
    size = tokenizer.vocabulary_size
    model = build_seq2seq(Seq2SeqConfig(size, size, embedding_size=3, encoder_units=5, decoder_units=7))
    model.save(path / "model.keras")
    config = EncoderDecoder(model).config.to_dict()
    names = {"source_tokenizer": files[0], "target_tokenizer": files[1]}
    return RunDirectory.create(path, {"task": "exact", "model": config, "training": {}, **names}).path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: make_run(folder / kind, kind) for kind in ("subword", "char")}


@pytest.fixture
def files(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    paths = {"source": tmp_path / "s", "target": tmp_path / "t", "tsv": tmp_path / "both.tsv"}
    for name, lines in (("source", SOURCES), ("target", TARGETS)):
        paths[name].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pairs = [("a dog", "x"), ("", "y"), ("\u200b", "z"), ("on the mat", "w")]
    paths["tsv"].write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return paths


def warnings(err: str) -> list[str]:
    return [line.removeprefix("warning: ") for line in err.splitlines() if "left out" in line]


def test_evaluate(runs, files, tmp_path) -> None:
    text = ["--source", files["source"], "--target", files["target"], "--beam", 1]
    done = run_command("evaluate", runs["subword"], *text)
    problem = f"{files['source']}:2: {UNSEEN}. Remove the pair, or give --skip-errors to leave it out"
    assert (done.status, done.err) == (1, f"error: {problem}\n")
    done = run_command("evaluate", runs["subword"], *text, "--skip-errors", "--output", tmp_path / "out")
    assert done.status == 0, done.err
    assert warnings(done.err) == [
        f"{files['source']}:{number}: {problem}. The pair is left out"
        for number, problem in (
            (2, UNSEEN),
            (3, "its reference is empty. Expected a sentence"),
            (4, "empty line. Expected a sentence"),
        )
    ]
    result = json.loads(done.out.splitlines()[-1])
    assert (result["sentences"], result["left_out"]) == (2, 3)
    translator = Translator.load(runs["subword"])
    first, last = (found[0].text for found in translator.translate([SOURCES[0], SOURCES[4]], beam_size=1))
    assert (tmp_path / "out").read_text(encoding="utf-8").split("\n") == [first, "", "", "", last, ""]


def test_evaluate_on_one_file(runs, files) -> None:
    done = run_command("evaluate", runs["subword"], "--tsv", files["tsv"], "--beam", 1)
    problem = "an empty side. Expected SOURCE<TAB>TARGET, both with text"
    assert (
        done.err
        == f"error: {files['tsv']}:2: {problem}. Mend the line, or give --skip-errors to leave empty ones out\n"
    )
    done = run_command("evaluate", runs["subword"], "--tsv", files["tsv"], "--beam", 1, "--skip-errors")
    expected = [f"{files['tsv']}:2: {problem}", f"{files['tsv']}:3: {UNSEEN}"]
    assert warnings(done.err) == [f"{one}. The pair is left out" for one in expected]
    assert json.loads(done.out.splitlines()[-1])["sentences"] == 2


def test_references_stay_beside_their_sources(files, tmp_path) -> None:
    (tmp_path / "more").write_text("1\n2\n3\n4\n5\n", encoding="utf-8")
    pairs = read_references(files["source"], [files["target"], tmp_path / "more"], None, skip_errors=True)
    kept = filled(pairs, [train_tokenizer("char", LINES)], skip_errors=True)
    assert kept == [0, 1, 4]
    assert pairs.select(kept).references == [["ein hund", "1"], ["nichts", "2"], ["auf der matte", "5"]]


def test_a_text_of_which_nothing_is_left(runs, tmp_path) -> None:
    (tmp_path / "s").write_text("\u200b\n\u200b\n", encoding="utf-8")
    text = ["--source", tmp_path / "s", "--target", tmp_path / "s", "--skip-errors"]
    done = run_command("evaluate", runs["subword"], *text)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith(f"error: {tmp_path / 's'}:1: no pair is left. Expected")


@pytest.mark.parametrize("order", [("subword", "char"), ("char", "subword")])
def test_compare(runs, files, order) -> None:
    """What one run cannot read is left out for all of them, and told once."""
    text = ["--source", files["source"], "--target", files["target"], "--samples", 100, "--beam", 1]
    done = run_command("compare", *(runs[kind] for kind in order), *text)
    assert (done.status, done.err.startswith(f"error: {files['source']}:2: {UNSEEN}")) == (1, True)
    done = run_command("compare", *(runs[kind] for kind in order), *text, "--skip-errors")
    assert done.status == 0, done.err
    assert [line.split(": ")[0] for line in warnings(done.err)] == [f"{files['source']}:{n}" for n in (2, 3, 4)]
    result = json.loads(done.out.splitlines()[-1])
    assert (result["sentences"], result["left_out"]) == (2, 3)


def test_synthesize(runs, files, tmp_path) -> None:
    done = run_command("synthesize", runs["subword"], "--source", files["source"], "--output", tmp_path / "out.tsv")
    assert (done.status, done.err) == (1, f"error: {files['source']}:2: {UNSEEN}. Remove the line\n")
    assert not list(tmp_path.glob("out.tsv*"))
