"""A shortlist learnt from a run's attention: counts by hand, the run that is written, and mistakes."""

import json

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.training import shortlist
from keras_attention.training.shortlist import count
from keras_attention.translation.translator import Translator
from keras_attention.types import EOS_ID
from tests.support.command import run_command
from tests.support.toy_run import train_toy


def test_counts_by_hand() -> None:
    """Over two parts: word 4 becomes 7 (3.0), then 6 and 8 (1.5 each, the lower id first); word 5 becomes 8 alone."""
    parts = [
        (np.array([4, 4, 5]), np.array([6, 7, 8]), np.array([1.0, 1.0, 0.5])),
        (np.array([4, 4, 4]), np.array([8, 6, 7]), np.array([1.5, 0.5, 2.0])),
    ]
    table, always = count(parts, 7, 9, candidates=2, frequent=2)
    assert table[4].tolist() == [7, 6]
    assert table[5].tolist() == [8, EOS_ID]
    assert table[6].tolist() == [EOS_ID, EOS_ID]
    assert always.tolist() == [7, 8]  # 3.0 and 2.0; 6 came to 1.5
    assert count([], 7, 9, 2, 1)[0].tolist() == [[EOS_ID] * 2] * 7


def test_a_run_with_a_shortlist(toy_run, toy_folder, tmp_path, capsys) -> None:
    """The same weights; with as many candidates as there are words, the same translations."""
    files = ["--source", str(toy_folder / "source.txt"), "--target", str(toy_folder / "target.txt")]
    options = [*files, "--candidates", "3", "--frequent", "2"]
    done = run_command("shortlist", str(toy_run.path), "--output", str(tmp_path / "short"), *options)
    assert done.status == 0, done.err
    assert "3 candidates of a word, 2 frequent ones" in done.out
    assert "% of tokens in them" in done.out
    config = json.loads((tmp_path / "short" / "config.json").read_text(encoding="utf-8"))
    assert config["model"]["shortlist"] == 3
    assert config["training"]["frequent"] == 2
    words = toy_run.config.target_vocabulary
    texts = {"source": toy_folder / "source.txt", "target": toy_folder / "target.txt"}
    seen: list[int] = []
    made, covered = shortlist(
        toy_run.path, tmp_path / "all", **texts, candidates=words, frequent=words, on_batch=seen.append
    )
    assert sum(seen) == len((toy_folder / "source.txt").read_text(encoding="utf-8").splitlines())
    assert (covered.tokens, covered.size) == (100.0, words)
    samples = toy_run.samples()[:8]
    one, other = (Translator.load(run).translate(samples) for run in (toy_run, made))
    assert [found[0].text for found in one] == [found[0].text for found in other]
    plain, short = toy_run.load_model(), made.load_model()
    for layer in plain.layers:
        for weight, kept in zip(layer.weights, short.get_layer(layer.name).weights, strict=True):
            assert np.array_equal(keras.ops.convert_to_numpy(weight), keras.ops.convert_to_numpy(kept))


def test_mistakes(toy_run, toy_folder, tmp_path) -> None:
    texts = {"source": toy_folder / "source.txt", "target": toy_folder / "target.txt"}
    for options, message in (
        ({}, "Expected: --source and --target, or --tsv"),
        ({**texts, "tsv": "both.tsv"}, "Expected: --source and --target, or --tsv"),
        ({**texts, "candidates": 0}, "candidates is out of range"),
        ({**texts, "frequent": 0}, "frequent is out of range"),
        ({"source": texts["source"], "target": tmp_path / "none"}, "none"),
    ):
        with pytest.raises(UserError, match=message):
            shortlist(toy_run.path, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match=r"is there. Expected a new or empty folder"):
        shortlist(toy_run.path, toy_run.path, **texts)
    made, _ = shortlist(toy_run.path, tmp_path / "new", **texts)
    with pytest.raises(UserError, match="without a shortlist"):
        shortlist(made.path, tmp_path / "again", **texts)
    with pytest.raises(UserError, match="learnt from a trained model"):
        train_toy(tmp_path / "trained", toy_folder, model={"shortlist": 3})
