"""Synthetic pairs: how an epoch is mixed, how a run writes them, and that a killed call goes on where it was."""

import sys

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.training import synthesize
from keras_attention.training.synthesize import draw_mixture, read_synthetic
from keras_attention.translation.translator import Translator
from tests.support import toy
from tests.support.command import run_command
from tests.support.toy_run import train_toy


def numpy(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


@pytest.fixture(scope="module")
def ending_run(toy_folder, tmp_path_factory):
    """A run whose outputs end: those of two epochs do so on some backends only."""
    return train_toy(tmp_path_factory.mktemp("ending") / "run", toy_folder, epochs=15)


def test_an_epoch_has_its_share_of_synthetic_pairs_and_repeats_none() -> None:
    chosen = draw_mixture(100, 70, 0.3, seed=1, epoch=2)
    assert len(chosen) == len(set(chosen.tolist())) == 100
    assert np.sum(chosen >= 100) == 30
    assert chosen.max() < 170
    np.testing.assert_array_equal(chosen, draw_mixture(100, 70, 0.3, seed=1, epoch=2))
    assert set(chosen.tolist()) != set(draw_mixture(100, 70, 0.3, seed=1, epoch=3).tolist())


def test_every_synthetic_pair_comes_in_some_epoch() -> None:
    """30 of 70 in each of 20 epochs: that one is left out of all has a probability below 70 (4/7)**20 = 0.001."""
    drawn = [draw_mixture(100, 70, 0.3, seed=1, epoch=epoch) for epoch in range(20)]
    assert {int(pair) for chosen in drawn for pair in chosen} == set(range(170))


def test_few_synthetic_pairs_come_again_as_evenly_as_can_be() -> None:
    chosen = draw_mixture(100, 7, 0.5, seed=1, epoch=0)
    counts = np.bincount(chosen[chosen >= 100] - 100, minlength=7)
    assert counts.sum() == 50
    assert set(counts.tolist()) == {7, 8}


def test_sets_of_synthetic_text(tmp_path) -> None:
    (tmp_path / "a").write_text("x\ny\n")
    (tmp_path / "b").write_text("1\n2\n")
    (tmp_path / "c.tsv").write_text("z\t3\nz\t4\n")
    pairs = read_synthetic([[tmp_path / "a", tmp_path / "b"], [tmp_path / "c.tsv"]])
    assert pairs.flat()[:2] == (["x", "y", "z", "z"], ["1", "2", "3", "4"])
    (tmp_path / "b").write_text("1\n\n")
    sets = [[tmp_path / "a", tmp_path / "b"], [tmp_path / "c.tsv"]]
    assert read_synthetic(sets, skip_empty=True).sources == ["x", "z"]
    with pytest.raises(UserError, match="empty line"):
        read_synthetic(sets)
    assert read_synthetic([]) is None
    with pytest.raises(UserError, match="one TSV file or two parallel files"):
        read_synthetic([["a", "b", "c"]])


@pytest.mark.slow
def test_what_a_run_makes_of_a_text(ending_run, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abc\nfed\nbead\n")
    best = [
        found[:3] for found in Translator.load(ending_run.path).translate(["abc", "fed", "bead"], beam_size=4, n_best=3)
    ]
    wanted = [
        (source, output)
        for source, found in zip(["abc", "fed", "bead"], best, strict=True)
        for output in dict.fromkeys(one.text for one in found if one.finished and one.text.strip())
    ]
    count = synthesize(ending_run.path, source=text, output=tmp_path / "out.tsv", beam_size=4, n_best=3)
    assert (tmp_path / "out.tsv").read_text() == "".join(f"{source}\t{output}\n" for source, output in wanted)
    assert count == len(wanted) >= 3
    synthesize(ending_run.path, source=text, output=tmp_path / "back.tsv", beam_size=4, n_best=3, reverse=True)
    assert (tmp_path / "back.tsv").read_text() == "".join(f"{output}\t{source}\n" for source, output in wanted)


@pytest.mark.slow
def test_several_runs_answer_as_one(ending_run, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abc\nfed\n")
    options = {"source": text, "beam_size": 2, "n_best": 1}
    synthesize(ending_run.path, output=tmp_path / "one.tsv", **options)
    twins = {"ensemble": [ending_run.path], "combination": "logits"}  # a mean of equals
    synthesize(ending_run.path, output=tmp_path / "two.tsv", **options, **twins)
    assert (tmp_path / "one.tsv").read_text() == (tmp_path / "two.tsv").read_text()


@pytest.mark.slow
def test_a_killed_call_goes_on_where_it_was(ending_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["keras_attention.training.synthesize"], "CHUNK", 2)
    text, whole, output = tmp_path / "text.txt", tmp_path / "whole.tsv", tmp_path / "out.tsv"
    text.write_text("abc\nfed\nbead\nfa\ncab\n")
    options = {"source": text, "beam_size": 2, "n_best": 2, "batch_size": 1}
    synthesize(ending_run.path, output=whole, **options)

    done = []

    def stop_at_the_fourth(count: int) -> None:
        done.append(count)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(ending_run.path, output=output, on_batch=stop_at_the_fourth, **options)
    assert not output.exists()
    begun = []
    synthesize(ending_run.path, output=output, on_start=lambda total, before: begun.append((total, before)), **options)
    assert begun == [(5, 2)]
    assert output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.partial"))
    # Half a call with other choices is none of this one.
    done.clear()
    with pytest.raises(KeyboardInterrupt):
        synthesize(ending_run.path, output=output, on_batch=stop_at_the_fourth, **options)
    synthesize(ending_run.path, output=output, on_start=lambda *both: begun.append(both), **{**options, "n_best": 1})
    assert begun[-1] == (5, 0)


def test_a_run_whose_outputs_never_end(toy_run, tmp_path, monkeypatch) -> None:
    (tmp_path / "text.txt").write_text("abc\n")
    translate = Translator.translate
    monkeypatch.setattr(
        Translator, "translate", lambda *given, **named: translate(*given, **{**named, "max_length": 1})
    )
    with pytest.raises(UserError, match=r"no output of .*run was finished.*Train it for longer"):
        synthesize(toy_run.path, source=tmp_path / "text.txt", output=tmp_path / "out.tsv")
    with pytest.raises(UserError, match="n_best is out of range"):
        synthesize(toy_run.path, source=tmp_path / "text.txt", output=tmp_path / "out.tsv", n_best=9)
    assert not list(tmp_path.glob("out.tsv*"))


def test_what_ended_comes_first(ending_run, toy_folder, tmp_path, monkeypatch) -> None:
    """Of outputs cut at four tokens the best is often not the best that ended: more pairs are left."""
    translate = Translator.translate
    monkeypatch.setattr(Translator, "translate", lambda *given, **named: translate(*given, **named, max_length=4))
    counts = []
    for number, more in enumerate(([], ["--finished-first"])):
        output = tmp_path / f"{number}.tsv"
        options = ["--source", toy_folder / "source.txt", "--output", output, "--beam", 9, "--n-best", 1]
        done = run_command("synthesize", ending_run.path, *options, *more)
        counts.append(len(output.read_text().splitlines()) if done.status == 0 else 0)
    assert counts[0] < counts[1]


@pytest.mark.parametrize(
    ("text", "message"), [("ab\n\ncd\n", "text.txt:2: empty line"), ("ab\nc\td\n", "text.txt:2: a tab")]
)
def test_text_that_cannot_be_a_side_of_a_pair(toy_run, tmp_path, text, message) -> None:
    (tmp_path / "text.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        synthesize(toy_run.path, source=tmp_path / "text.txt", output=tmp_path / "out.tsv")


@pytest.mark.slow
def test_a_training_on_a_mixture_resumes_and_knows_its_text(toy_folder, tmp_path) -> None:
    more = tmp_path / "more.tsv"
    more.write_text("".join(f"{word}\t{word[::-1]}\n" for word in ("fade", "decaf", "bab", "dab")))
    options = {"synthetic": [[more]], "synthetic_share": 0.25}
    whole = train_toy(tmp_path / "whole", toy_folder, epochs=2, **options)
    train_toy(tmp_path / "parts", toy_folder, epochs=1, **options)
    parts = train_toy(tmp_path / "parts", toy_folder, epochs=2, **options)
    for one, other in zip(whole.load_model().weights, parts.load_model().weights, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))
    plain = train_toy(tmp_path / "plain", toy_folder, epochs=2)
    assert any(
        np.abs(numpy(one) - numpy(other)).max() > 0
        for one, other in zip(whole.load_model().weights, plain.load_model().weights, strict=True)
    )
    more.write_text("fade\tedaf\n")
    with pytest.raises(UserError, match="holds a training with other choices"):
        train_toy(tmp_path / "parts", toy_folder, epochs=3, **options)


def test_bad_mixtures(toy_folder, tmp_path) -> None:
    with pytest.raises(UserError, match="synthetic_share is out of range"):
        train_toy(tmp_path / "run", toy_folder, synthetic_share=1.0)
    with pytest.raises(UserError, match=r"missing\.tsv"):
        train_toy(tmp_path / "run", toy_folder, synthetic=[[tmp_path / "missing.tsv"]])


def test_by_the_command_line(ending_run, toy_folder, tmp_path) -> None:
    made = run_command(
        "synthesize", ending_run.path, f"--source={toy_folder / 'source.txt'}", "--output", tmp_path / "m.tsv"
    )
    assert made.status == 0, made.err
    assert f"wrote {len((tmp_path / 'm.tsv').read_text().splitlines())} pairs" in made.out
    files = [f"--{side}={toy_folder / f'{side}.txt'}" for side in ("source", "target")]
    options = [*toy.OPTIONS, "--epochs=1", f"--synthetic={tmp_path / 'm.tsv'}", "--synthetic-share=0.2"]
    done = run_command("train", *files, *options, "--output", tmp_path / "run")
    assert done.status == 0, done.err
    assert "training: 92 pairs" in done.out
    refused = run_command("synthesize", ending_run.path, "--source=missing.txt", "--output", tmp_path / "n.tsv")
    assert refused.status == 1
    assert "missing.txt" in refused.err
    assert "Traceback" not in refused.err
