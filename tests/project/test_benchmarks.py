"""The scripts under benchmarks/."""

import csv
import importlib.util
import json
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

import pytest

from tests.support import warm
from tests.support.toy_run import edit_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
STATUS = pathlib.Path("/proc/self/status")
needs_proc = pytest.mark.skipif(not STATUS.exists(), reason=f"memory is read from {STATUS}, which Linux has")


def load(name: str) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names of their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bleu_by_length() -> ModuleType:
    return load("bleu_by_length")


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


@pytest.mark.slow
def test_ablation_trains_scores_and_resumes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script with tiny models on a few words, as it is run; the second time nothing is trained again."""
    ablation = load("ablation")
    words = [f"{a}{b}{c}" for a in "bdg" for b in "aeiou" for c in "nst"]
    lines = "".join(f"{word}\t{' '.join(word.upper())}\n" for word in words)
    for name in ("train", "tune"):
        (tmp_path / f"{name}.tsv").write_text(lines, encoding="utf-8")
    monkeypatch.setattr(ablation, "MODEL", {"embedding_size": 4, "encoder_units": 3, "decoder_units": 6})
    arguments = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "out" / "table")]
    arguments += ["--variants", "none", "local-p", "--minutes", "0.05"]
    ablation.main(arguments)
    printed = capsys.readouterr().out.splitlines()
    rows = json.loads(printed[-1])["rows"]
    assert [row["variant"] for row in rows] == ["none", "local-p"]
    assert rows[0]["weights"] < rows[1]["weights"]
    assert all(0 <= float(row["wer"]) <= 100 and row["epochs"] >= 1 for row in rows)
    with (tmp_path / "out" / "table.csv").open(encoding="utf-8") as file:
        assert [row["variant"] for row in csv.DictReader(file)] == ["none", "local-p"]
    assert (tmp_path / "out" / "table.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(ablation, "command", None)  # calling it would raise
    ablation.main(arguments)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == rows


def test_every_variant_of_the_ablation_is_a_config() -> None:
    from keras_attention import Seq2SeqConfig

    ablation = load("ablation")
    configs = {
        name: Seq2SeqConfig(31, 43, **{**ablation.MODEL, **fields}) for name, fields in ablation.VARIANTS.items()
    }
    assert len(set(configs.values())) == len(configs)


@pytest.mark.slow
def test_cost_of_attention(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One mechanism of each kind beside its reference, on a few positions: gradients of both, a complete table."""
    cost = load("attention")
    for name, value in {"BATCH": 2, "QUERIES": 3, "DEPTH": 8, "HALF_WIDTH": 1}.items():
        monkeypatch.setattr(cost, name, value)
    chosen = ("dot", "general, cached keys", "local-m, additive", "multi-head (4)")
    monkeypatch.setattr(cost, "MECHANISMS", {name: cost.MECHANISMS[name] for name in chosen})
    monkeypatch.setattr(cost, "STEPPED", ("dot", "local-m, additive"))
    monkeypatch.setattr(cost, "peak_rise", lambda name, length, part: 1.5 if part == "ours" else 3.0)
    cost.main(["--output", str(tmp_path / "cost"), "--lengths", "5", "--rounds", "1"])
    table = (tmp_path / "cost.md").read_text(encoding="utf-8")
    for name in cost.MECHANISMS:
        assert f"| {name} |" in table
    with (tmp_path / "cost.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cost.MECHANISMS) + len(cost.STEPPED)
    assert all(float(row["ratio"]) > 0 for row in rows)
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == len(rows)
    ours, reference = cost.make_pass("general, cached keys", 5)
    assert len(ours()) == len(reference()) == 3  # query, value, key


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other, as they do when one of them is run; the next test does not find them loaded."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for path in (ROOT / "benchmarks").glob("*.py"):
        if getattr(sys.modules.get(path.stem), "__file__", None) == str(path):
            del sys.modules[path.stem]


@pytest.mark.slow
def test_throughput_and_its_profile_on_a_tiny_network(
    scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    throughput = load("throughput")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- throughput 1 -->\nold\n<!-- end of throughput 1 -->\nafter\n", encoding="utf-8")
    sizes = ["--batch=2", "--length=3", "--vocabulary=20", "--threads=1", "--steps=1"]
    arguments = [
        *sizes,
        "--rounds=1",
        "--only",
        "stock Keras",
        "--output",
        str(tmp_path / "speed"),
        "--into",
        str(page),
    ]
    throughput.main(arguments)
    printed = capsys.readouterr().out
    assert "| ours |" in printed
    assert "| stock Keras |" in printed
    assert printed.strip() in page.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").endswith("<!-- end of throughput 1 -->\nafter\n")
    assert "old" not in page.read_text(encoding="utf-8")
    with (tmp_path / "speed.csv").open(encoding="utf-8") as file:
        assert [row["contender"] for row in csv.DictReader(file)] == ["ours", "stock Keras"]
    load("profile_step").main(["ours", *sizes])
    assert "MatMul" in capsys.readouterr().out


@pytest.mark.slow
def test_training_on_a_gpu_without_one(
    scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JAX runs on the processor too; who cannot run (here for want of PyTorch, or of time) is named with the reason."""
    gpu = load("gpu")
    sizes = ["--length=3", "--vocabulary=20", "--threads=1", "--steps=1", "--rounds=2", "--peak-size=64"]
    names = ["ours, JAX, bfloat16 products", "ours, JAX"]
    gpu.main([*sizes, "--batches", "2", "--only", names[0], "PyTorch", "--output", str(tmp_path / "gpu")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cpu; 2 rounds of 1 steps"
    cells = [cell.strip() for cell in lines[4].split("|")[1:-1]]
    assert cells[:2] == [names[0], "2"]
    assert int(cells[2].replace(",", "")) > 0
    assert lines[5].startswith("| PyTorch | 2 | ")
    with (tmp_path / "gpu.csv").open(encoding="utf-8") as file:
        seconds = [float(row["seconds_per_step"]) for row in csv.DictReader(file) if row["contender"] == names[0]]
    assert len(seconds) == 2
    with pytest.raises(SystemExit, match="took more than"):
        gpu.main([*sizes, "--only", names[1], "--limit", "0.01"])


@needs_proc
@pytest.mark.slow
def test_memory_and_scale_on_tiny_sizes(scripts: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("memory").main(
        ["--vocabulary=30", "--batch=2", "--length=4", "--rounds=1", "--output", str(tmp_path / "memory")]
    )
    with (tmp_path / "memory.csv").open(encoding="utf-8") as file:
        assert [row["loss"] for row in csv.DictReader(file)] == ["stock loss", "fused loss"]
    load("scale").main(["--pairs", "10000", "20000", "--steps=5", "--rounds=1", "--output", str(tmp_path / "scale")])
    with (tmp_path / "scale.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["pairs"] for row in rows] == ["10000", "20000"]
    assert all(float(row["microseconds_per_token"]) > 0 for row in rows)


@pytest.mark.slow
def test_quality_and_curves(
    scripts: None, toy_run, toy_folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quality = load("quality")
    page = tmp_path / "page.md"
    page.write_text("<!-- quality translation -->\n<!-- end of quality translation -->\n", encoding="utf-8")
    files = ["--source", str(toy_folder / "source.txt"), "--target", str(toy_folder / "target.txt")]
    scores = iter([10.0, 12.0])

    def evaluate(run: str, **options: object) -> dict[str, float]:
        assert options["beam_size"] == 3
        return {"bleu": next(scores)}

    runs = [f"ours={toy_run.path}"] * 2
    quality.main([*files, "--beam=3", "--into", str(page), *runs], evaluate)
    assert "**11.00** ± 1.41 (2 seeds)" in page.read_text(encoding="utf-8")
    assert "41.02" in page.read_text(encoding="utf-8")
    quality.main([*files, "--beam=2", f"ours={toy_run.path}"])
    assert "| ours | 0.00 M |" in capsys.readouterr().out
    curves = load("curves")
    curves.main(["--monitor=val_exact_match", "--output", str(tmp_path / "curves"), f"ours={toy_run.path}"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="has no val_bleu"):
        curves.main(["--output", str(tmp_path / "curves"), f"ours={toy_run.path}"])


@pytest.mark.slow
def test_every_stage_of_the_diversified_training(scripts, toy_folder, tmp_path, monkeypatch, capsys) -> None:
    """On the toy pairs, one epoch each: the stages fit together."""
    script = load("diversified")
    for split in ("train", "val"):
        for side, name in (("en", "source"), ("de", "target")):
            text = (toy_folder / f"{name}.txt").read_text(encoding="utf-8")
            (tmp_path / f"{split}.lc.norm.tok.{side}").write_text(text, encoding="utf-8")
    monkeypatch.setattr(script, "MINUTES", {"first": 60.0, "final": 60.0})
    sizes = ["embedding_size=6", "encoder_units=4", "decoder_units=8", "tie_embeddings=all"]
    changed = {
        "set": sizes,
        "vocabulary": 40,
        "epochs": 1,
        "validation_sentences": 5,
        "subword_alpha": 0.0,
        "target_subword_alpha": 0.0,
    }
    monkeypatch.setattr(script, "SETTINGS", {**script.SETTINGS, **changed})
    arguments = ["--data", str(tmp_path), "--runs", str(tmp_path / "runs"), "--sentences", "9"]
    script.main([*arguments, "--output", str(tmp_path / "scores")])
    runs = tmp_path / "runs"
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(scores) == ["forth", "final"]
    metadata = json.loads((runs / "final" / "config.json").read_text(encoding="utf-8"))
    assert metadata["training"]["settings"]["synthetic_share"] == 0.5
    made = (runs / "back.tsv").read_text(encoding="utf-8").splitlines()
    german = (tmp_path / "train.lc.norm.tok.de").read_text(encoding="utf-8").splitlines()[:9]
    assert {line.split("\t")[1] for line in made} <= set(german)
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        assert [row["run"] for row in csv.DictReader(file)] == list(scores)


@pytest.mark.slow
def test_the_cost_of_a_search(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"batch": 2, "beam": 2, "hidden": 8, "vocabulary": 11, "length": 3, "source": 4, "rounds": 1}
    options = [f"--{name}={value}" for name, value in sizes.items()]
    run = warm.run(
        [ROOT / "benchmarks" / "search.py", *options, "--profile", "--output", tmp_path / "search"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert lines[0] == "| operation | ms in a search | ms in its steps | more |"
    assert all(float(cell) >= 0 for cell in lines[2].split("|")[2:4])
    assert sum(line.startswith("| all |") for line in lines) == 1
    overheads = json.loads(lines[-1])["overhead"]
    assert set(overheads) >= {"greedy", "beam", "sampling"}
    assert all(value < 1 for value in overheads.values())
    with (tmp_path / "search.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(overheads) + 2


@needs_proc
@pytest.mark.slow
def test_an_export_beside_the_stock_route(
    scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each contender in its own process, on a tiny run; the table shows the score and what is the same."""
    from tests.export.test_export_artefact import cheap, make_run

    cheap.__wrapped__(monkeypatch)
    run = make_run(tmp_path / "run")
    text, ranges = tmp_path / "text", tmp_path / "ranges"
    text.write_text("".join(f"{line}\n" for line in run.samples()), encoding="utf-8")
    ranges.write_text(text.read_text(encoding="utf-8") * 40, encoding="utf-8")
    monkeypatch.setattr("keras_attention.export.formats.to_npu.vela.installed", lambda: False)
    script = load("export")
    arguments = ["--precisions", "int8", "--contenders", "stock", "onnx", "npu"]
    arguments += ["--beam", "2", "--max-length", "9", "--source-length", "30", "--calibration", str(ranges)]
    arguments += ["--rounds", "1", "--seconds", "0.01", "--sentences", str(text), "--references", str(text)]
    script.main([str(run.path), *arguments, "--output", str(tmp_path / "figures")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| sentences a second | precision | beam 2, 1 thread |")
    names = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines[2:]]
    int8 = [("ONNX Runtime", "int8"), ("LiteRT, host loop", "int8 for an NPU")]
    assert names == [("stock Keras, loop in Python", "float32"), *int8]
    with (tmp_path / "figures.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names) * 2 * 2
    assert all(float(row["batch_1_ms"]) > 0 and float(row["peak_megabytes"]) > 10 for row in rows)
    assert {row["metric"] for row in rows if row["precision"] != "float32"} == {"bleu"}
    picture = (tmp_path / "figures.png").read_bytes()
    load("export_chart").main([str(tmp_path / "figures.csv")])  # the same from the log
    assert (tmp_path / "figures.png").read_bytes() == picture


@needs_proc
@pytest.mark.slow
def test_an_export_that_searches_in_both_directions(
    scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.export.test_export_artefact import cheap, make_run

    cheap.__wrapped__(monkeypatch)
    run = make_run(tmp_path / "run")
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    config["training"] = {"settings": {"backward": 0.5}}
    edit_config(run.path, config)
    text = tmp_path / "text"
    text.write_text("".join(f"{line}\n" for line in run.samples()), encoding="utf-8")
    script = load("export")
    arguments = [str(run.path), "--sentences", str(text), "--references", str(text), "--agreement", "0.4"]
    arguments += ["--beam", "2", "--max-length", "9", "--rounds", "1", "--seconds", "0.01"]
    script.main([*arguments, "--precisions", "float32", "--contenders", "keras", "stock", "tflite"])
    lines = capsys.readouterr().out.splitlines()
    assert "beam 1, 2 threads" in lines[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    count = len(run.samples())
    assert [row[0] for row in cells] == ["Keras, tf.function", "LiteRT"]
    assert cells[1][-1] == f"{count} of {count}"
    with pytest.raises(SystemExit):
        script.main([*arguments, "--precisions", "int8", "--calibration", str(text)])
    assert "by one direction" in capsys.readouterr().err


@needs_proc
@pytest.mark.slow
def test_exports_at_one_size(scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load("export_speed")
    sizes = ["--units", "8", "--embedding", "4", "--vocabulary", "30", "--steps", "4", "--beam", "2"]
    script.main([*sizes, "--rounds", "1", "--seconds", "0.01", "--output", str(tmp_path / "speed")])
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:]]
    artefacts = [("SavedModel", "float32"), ("LiteRT", "float32"), ("ONNX Runtime", "float32")]
    int8 = [("LiteRT", "dynamic_int8"), ("ONNX Runtime", "dynamic_int8")]
    keras = [(script.STOCK, "float32"), ("Keras, tf.function", "float32")]
    assert [tuple(row[:2]) for row in cells] == keras + artefacts + int8
    assert cells[0][5] == "1.0"
    with (tmp_path / "speed.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2 * len(cells)


@pytest.mark.slow
def test_a_shortlist(scripts: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load("shortlist")
    arguments = ["--vocabularies", "300", "--precisions", "float32", "--units", "32", "--rounds", "2"]
    script.main([*arguments, "--output", str(tmp_path / "shortlist")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["LiteRT, float32", "ONNX Runtime, float32"]
    with (tmp_path / "shortlist.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert all(float(row["without_ms"]) > 0 and float(row["with_ms"]) > 0 for row in rows)


def test_invented_words(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load("pseudo_words")
    words = ["banana", "bandana", "cabana", "savanna", "havana", "panama"]
    counts = script.count_letters(["aba"], 3)
    assert counts["ab"] == {"a": 1}
    assert counts[f"{script.START}a"] == {"b": 1}
    assert counts[""] == {"a": 2, "b": 1, script.END: 1}
    (tmp_path / "words.tsv").write_text("".join(f"{word}\tX\n" for word in words), encoding="utf-8")
    arguments = ["--tsv", str(tmp_path / "words.tsv"), "--order", "3", "--support", "1", "--count", "20"]
    outputs = []
    for name in ("one", "two"):
        script.main([*arguments, "--output", str(tmp_path / name)])
        outputs.append((tmp_path / name).read_text(encoding="utf-8").split())
    assert outputs[0] == outputs[1]
    assert len(set(outputs[0])) == 20
    assert not set(outputs[0]) & set(words)
    # Each letter follows the two before it somewhere in a real word.
    marked = [f"<<{word}>" for word in words]
    for word in outputs[0]:
        text = f"<<{word}>"  # with any marks
        assert all(any(text[place : place + 3] in one for one in marked) for place in range(len(text) - 2))
    capsys.readouterr()
    (tmp_path / "one.tsv").write_text("ab\tX\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"error: Too few new words\. Expected 20\. Received: 0\."):
        script.main(["--tsv", str(tmp_path / "one.tsv"), *arguments[2:], "--output", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    for name in ("--order", "--support", "--count"):
        with pytest.raises(SystemExit, match=f"error: {name[2:]} is out of range"):
            script.main([*arguments, name, "0", "--output", str(tmp_path / "none")])


def test_little_text_is_a_pure_function_of_the_seed(scripts: None, tmp_path: pathlib.Path) -> None:
    script = load("small_text")
    one, same, other = (script.Language(seed) for seed in (0, 0, 1))
    sentences = [[language.sentence(random.Random(7)) for _ in range(20)] for language in (one, same, other)]
    assert sentences[0] == sentences[1]
    assert sentences[0] != sentences[2]
    words = [word for kind in (one.nouns, one.verbs, one.adjectives, one.adverbs) for word in kind]
    for side in zip(*words, strict=True):
        assert len(set(side)) == len(side) == script.NOUNS + script.VERBS + script.ADJECTIVES + script.ADVERBS
    files = [script.write_text(tmp_path / name, 40) for name in ("one", "two")]
    train, test = ([line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()] for path in files[0])
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert (len(train), len(test)) == (40, script.TEST_SENTENCES)
    meanings = dict(words)
    for source, target in (*train, *test):  # the words of the target are those of the source, and their endings
        assert len(source.split()) == len(target.split()) + 2  # articles
        known = [meanings.get(word, meanings.get(word.removesuffix("s"))) for word in source.split() if word != "ta"]
        assert all(any(word.startswith(start) for word in target.split()) for start in known)


def test_sentences_of_the_test_are_new(scripts: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a language of so few words that many sentences come again."""
    script = load("small_text")
    sizes = {"NOUNS": 2, "VERBS": 1, "ADJECTIVES": 1, "ADVERBS": 1, "TEST_SENTENCES": 31}
    for name, value in sizes.items():
        monkeypatch.setattr(script, name, value)
    train, test = (path.read_text(encoding="utf-8").splitlines() for path in script.write_text(tmp_path, 40))
    assert len({*train}) < len(train) == 40
    assert len(test) == 31
    assert not {*train} & {*test}


def test_scores_on_little_text_are_a_table(
    scripts: None, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was trained before is not trained again, and the row is of it."""
    script = load("small_text")
    monkeypatch.setattr(script, "command", None)  # calling it would raise
    for kind, bleu, epochs in (("averaged", 12.5, 7), ("plain", 13.25, 9)):
        run = tmp_path / f"1200-{kind}-1"
        run.mkdir()
        row = {
            "pairs": 1200,
            "seed": 1,
            "averaging": kind == "averaged",
            "bleu": bleu,
            "epochs": epochs,
            "minutes": 0.5,
        }
        (run / "score.json").write_text(json.dumps(row), encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text("<!-- small text -->\n<!-- end of small text -->\n", encoding="utf-8")
    arguments = ["--runs", str(tmp_path), "--pairs", "1200", "--seeds", "1", "--into", str(page)]
    script.main([*arguments, "--output", str(tmp_path / "table")])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == "| 1,200 | 1 | 12.50 | 13.25 | -0.75 | 7 | 0.5 |"
    assert line in page.read_text(encoding="utf-8")
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        assert [(row["averaging"], row["bleu"]) for row in csv.DictReader(file)] == [
            ("True", "12.5"),
            ("False", "13.25"),
        ]


@pytest.mark.slow
def test_a_campaign_of_faults() -> None:
    """A few of each kind, in processes of their own; each is right, and the table counts them."""
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--kills=4", "--inputs=40", "--seed=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [[int(number) for number in line.split()[-3:]] for line in done.stdout.splitlines()[1:]]
    assert sum(tried for tried, _, _ in counts) >= 44
    assert all(tried == survived for tried, survived, _ in counts)
