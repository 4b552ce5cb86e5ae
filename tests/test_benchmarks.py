"""The scripts under benchmarks/."""

import csv
import importlib.util
import json
import pathlib
from collections.abc import Sequence
from types import ModuleType

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def bleu_by_length() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bleu_by_length", ROOT / "benchmarks" / "bleu_by_length.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_groups_of_length(bleu_by_length: ModuleType) -> None:
    sources = ["a", "a b c", "a b c d", "a b c d e f g"]
    references = ["v w x y z", "w x y z q", "x y z p q", "p q r s t"]
    hypotheses = [*references[:2], "x y z p q", "no word is right here"]
    groups = bleu_by_length.group_bleu("run", sources, hypotheses, references, [3, 5], "none")
    assert [(group.label, group.sentences) for group in groups] == [("1-3", 2), ("4-5", 1), ("6+", 1), ("1+", 4)]
    assert [group.bleu for group in groups[:3]] == [pytest.approx(100), pytest.approx(100), 0]
    assert 0 < groups[3].bleu < 100


def test_writes_table_and_picture(
    bleu_by_length: ModuleType, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("eins zwei drei vier fünf\n" * 3 + "eins zwei drei vier fünf sechs sieben\n", encoding="utf-8")
    target.write_text("one two three four five\n" * 3 + "one two three four five six seven\n", encoding="utf-8")
    right = target.read_text(encoding="utf-8").splitlines()

    def translate(path: str, sources: Sequence[str], beam_size: int) -> list[str]:
        assert beam_size == 2
        return right if path == "runs/a" else ["one two three four six"] * len(sources)

    output = tmp_path / "plots" / "by-length"
    arguments = ["with attention=runs/a", "runs/b", "--source", str(source), "--target", str(target)]
    bleu_by_length.main([*arguments, "--output", str(output), "--edges", "5", "--beam", "2"], translate)
    with output.with_suffix(".csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["run"], row["source_words"], row["sentences"]) for row in rows] == [
        ("with attention", "1-5", "3"),
        ("with attention", "6+", "1"),
        ("with attention", "all", "4"),
        ("b", "1-5", "3"),
        ("b", "6+", "1"),
        ("b", "all", "4"),
    ]
    assert [float(row["bleu"]) for row in rows[:3]] == [pytest.approx(100)] * 3
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["groups"]) == 6


def test_files_of_different_length(
    bleu_by_length: ModuleType, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("a\nb\n", encoding="utf-8")
    target.write_text("a\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        bleu_by_length.main(["run", "--source", str(source), "--target", str(target), "--output", str(tmp_path / "x")])
    assert "has 2 lines" in capsys.readouterr().err
