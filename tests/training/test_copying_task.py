"""A task that cannot be solved without copying: learnt, exported to three formats, and run without Keras."""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from tensorflow.python.framework import config as tf_config

from keras_attention.errors import UserError
from keras_attention.export import export
from keras_attention.training import evaluate, train
from keras_attention.translation.text_constraints import TextConstraints
from keras_attention.translation.translator import Translator
from tests.support.toy_run import edit_config

pytestmark = pytest.mark.slow  # a task is learnt to its end

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """The generated task of the benchmark, and a model that learnt it."""
    spec = importlib.util.spec_from_file_location("benchmark_copying", ROOT / "benchmarks" / "copying.py")
    copying = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copying)
    folder = tmp_path_factory.mktemp("copying")
    copying.write_task(folder, training=4000, held_out=200)
    run = train(
        folder / "run", tsv=folder / "train.tsv", val_tsv=folder / "val.tsv", model=copying.WITH, **copying.SETTINGS
    )
    tf_config.disable_op_determinism()
    return folder, run


def test_names_that_training_never_saw_are_copied(task):
    folder, run = task
    assert evaluate(run.path, tsv=folder / "test.tsv")["exact_match"] >= 95
    translator = Translator.load(run.path)
    assert not {"xylofon", "quux"} & set(translator.source_tokenizer.vocabulary)
    note = "tell xylofon that quux comes at 3 pm"
    [[best]] = translator.translate([note])
    assert best.text == "3 pm : visit of quux for xylofon"
    assert best.tokens == ["3", "pm", ":", "visit", "of", "quux", "for", "xylofon", "</s>"]
    assert best.source_tokens[1] == "xylofon"
    right, wrong = translator.score([note] * 2, [best.text, "3 pm : visit of xylofon for quux"])
    assert right.log_prob == pytest.approx(best.log_prob, abs=1e-4)  # float32, in another order of sums
    assert right.log_prob > wrong.log_prob + 1
    assert translator.problem(note) is None
    constraints = TextConstraints(prefixes="3 pm : visit of quux", phrases=["xylofon"])
    assert translator.translate([note], constraints=constraints)[0][0].text == best.text
    with pytest.raises(UserError, match="The phrase 'ada' holds what the model cannot write: 'ada'"):
        translator.translate([note], constraints=TextConstraints(phrases=["ada"]))
    with pytest.raises(UserError, match="The banned word 'quux' is not in the target vocabulary"):
        translator.translate([note], constraints=TextConstraints(banned=["quux"]))
    assert "5 words are outside the vocabulary. Expected at most 4" in translator.problem("at aa ba ca da ea")


def test_what_is_more_than_can_be_copied_is_counted(task, tmp_path, capsys):
    notes = tmp_path / "notes.tsv"
    notes.write_text("tell aa that ba comes at 3 pm\t3 pm : visit of ba for aa\nat ca da ea fa ga ha\tat ha\n")
    assert evaluate(task[1].path, tsv=notes)["sources_with_unseen"] == 1
    assert "1 sources hold what training never saw" in capsys.readouterr().err


def test_only_models_that_copy_alike_answer_as_one(task, tmp_path):
    other = shutil.copytree(task[1].path, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["model"]["copy_words"] = None
    edit_config(other, config)
    with pytest.raises(UserError, match=r"copies no words, .* 4\. Expected runs with the same copy_words"):
        Translator.load(task[1].path, other)


def test_exported_it_copies_too(task, tmp_path):
    folder, run = task
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()[:20]]
    report = export(run, tmp_path / "artefact", ["saved_model", "tflite", "onnx"], samples=[note for note, _ in rows])
    assert all(parity.identical + parity.near_ties == 20 for parity in report.parities)
    assert "translate_text" not in (tmp_path / "artefact" / "manifest.json").read_text()
    for options in (["--backend", "litert"], ["--backend", "onnx", "--host-loop"]):
        found = subprocess.run(
            [sys.executable, tmp_path / "artefact" / "runtime", *options],
            input="".join(f"{note}\n" for note, _ in rows),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "warning" not in found.stderr
        assert sum(line == wanted for line, (_, wanted) in zip(found.stdout.splitlines(), rows, strict=True)) >= 19
