"""The end of an epoch: the best model is kept, the rate falls, the training stops, what is reported."""

import json
import math
import pathlib
import types
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import CharacterTokenizer
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, Pairs
from keras_attention.training.loop import trainer as callbacks
from keras_attention.training.loop.adam import Adam
from keras_attention.training.loop.assemble import compile_model
from keras_attention.training.loop.checkpoints import load_checkpoint, save_checkpoint, state_variables
from keras_attention.training.loop.history import read_history
from keras_attention.training.loop.model_card import write_reports
from keras_attention.training.loop.schedules import Plateau
from keras_attention.training.loop.trainer import Progress, Trainer, Validation, averages
from keras_attention.training.train import _validation

SIDES = ("source", "target")


def numpy(variable: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


class Judged(Trainer):
    """A trainer whose epochs get given scores; it remembers the first weight that each was given for."""

    def judge(self, scores: Sequence[float]) -> None:
        self.given = list(scores)
        self.seen: list[float] = []

    def _scores(self, text: Validation, prefix: str) -> tuple[dict[str, float], list[str]]:
        self.seen.append(first_weight(self.twin))
        score = self.given[len(self.progress.history)]
        return {
            f"{prefix}loss": 2.0,
            f"{prefix}perplexity": math.exp(2.0),
            f"{prefix}{self.settings.monitor}": score,
        }, []


def first_weight(model: keras.Model) -> float:
    return float(numpy(model.trainable_variables[0]).ravel()[0])


def small_model(units: int = 2) -> keras.Model:
    return build_seq2seq(Seq2SeqConfig(7, 5, embedding_size=3, encoder_units=2, decoder_units=units))


def make_trainer(folder: pathlib.Path, scores: Sequence[float], **choices: Any) -> Judged:
    settings = TrainConfig(ema_momentum=choices.pop("ema_momentum", 0.0), learning_rate=0.08, **choices)
    model = small_model()
    compile_model(model, settings)
    dataset = BatchDataset(Encoded([[4]], [[4]]), 1, seed=1)
    validation = Validation(Encoded([[4]], [[4]]), Pairs([], [], []), [], [])
    trainer = Judged(RunDirectory(folder, {}), settings, dataset, validation, small_model())
    trainer.set_model(model)
    trainer.judge(scores)
    return trainer


def run_epochs(trainer: Judged) -> int:
    """Epoch n leaves n + 1 in every weight; returns how many epochs there were until the trainer stopped."""
    model = trainer.model
    model.stop_training = False
    trainer.on_train_begin()
    while not model.stop_training:
        epoch = trainer.progress.epoch
        trainer.on_epoch_begin(epoch)
        trainer.on_train_batch_begin(0)
        for variable in model.trainable_variables:
            variable.assign(np.full(variable.shape, epoch + 1, "float32"))
        trainer.on_epoch_end(epoch, {"loss": 1.0})
    return int(trainer.progress.epoch)


@pytest.mark.parametrize(("task", "scores"), [("exact", [40.0, 70.0, 60.0]), ("g2p", [70.0, 40.0, 60.0])])
def test_the_model_kept_is_that_of_the_best_epoch(tmp_path, task, scores) -> None:
    """And the checkpoint's is that of the last one."""
    trainer = make_trainer(tmp_path, scores, task=task, epochs=3)
    assert run_epochs(trainer) == 3
    assert first_weight(trainer.run.load_model()) == 2.0
    assert trainer.progress.plateau.best_epoch == 1
    again = small_model()
    compile_model(again, trainer.settings)
    assert load_checkpoint(trainer.checkpoint_path, again)["epoch"] == 3
    assert first_weight(again) == 3.0


def test_an_epoch_as_good_as_the_best_is_not_better(tmp_path) -> None:
    trainer = make_trainer(tmp_path, [50.0, 50.0, 40.0], task="exact", epochs=9, early_stopping_patience=2)
    assert run_epochs(trainer) == 3
    assert first_weight(trainer.run.load_model()) == 1.0


def test_the_rate_falls_after_epochs_without_a_better_score_and_then_the_training_ends(tmp_path) -> None:
    scores = [50.0, 40.0, 60.0, 55.0, 50.0, 45.0, 40.0, 59.0]
    trainer = make_trainer(tmp_path, scores, task="exact", epochs=9, patience=2, early_stopping_patience=5)
    assert run_epochs(trainer) == 8
    rates = [row["learning_rate"] for row in read_history(tmp_path / "history.csv")]
    # Of each epoch: two without a better score, the fourth and fifth, halve the next one's. Variables are float32.
    np.testing.assert_allclose(rates, [0.08] * 5 + [0.04] * 2 + [0.02], rtol=1e-6)
    assert trainer.progress.finished(trainer.settings) == "no better exact_match for 5 epochs"


def test_a_rate_that_falls_with_the_updates_is_not_halved(tmp_path) -> None:
    trainer = make_trainer(tmp_path, [5.0, 4.0, 3.0], task="exact", epochs=3, patience=1, schedule="cosine")
    run_epochs(trainer)
    low = trainer.settings.min_learning_rate
    expected = [low + (0.08 - low) * 0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    rates = [row["learning_rate"] for row in read_history(tmp_path / "history.csv")]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)  # variables are float32


def test_an_epoch_is_judged_by_the_averages_of_its_own_end(tmp_path) -> None:
    trainer = make_trainer(tmp_path, [5.0, 7.0], task="exact", epochs=2, ema_momentum=0.9)
    trainer.on_train_begin()
    for epoch, value in enumerate((0.25, 0.75)):
        for average in averages(trainer.model.optimizer):
            average.assign(np.full(average.shape, value, "float32"))
        trainer.on_epoch_end(epoch, {"loss": 1.0})
    assert trainer.seen == [0.25, 0.75]


def test_an_average_of_a_few_updates_holds_nothing_of_the_start(tmp_path) -> None:
    """Of 0 at the start and 1 after each of 50 updates, by the default momentum; a fixed one leaves 0.95 of the 0."""
    settings = TrainConfig()
    model = small_model()
    compile_model(model, settings)
    optimizer = model.optimizer
    for variable in (*model.trainable_variables, *averages(optimizer)):
        variable.assign(np.zeros(variable.shape, "float32"))
    nothing = [keras.ops.zeros(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(nothing, model.trainable_variables)
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape, "float32"))
    for _ in range(50):
        optimizer.apply(nothing, model.trainable_variables)
    for average in averages(optimizer):
        np.testing.assert_allclose(numpy(average), 1.0, rtol=1e-5)  # the share of the start is below 50 ** -9


def test_time_is_counted_once_and_goes_on_after_a_pause(tmp_path, monkeypatch) -> None:
    clock = types.SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(callbacks, "time", clock)
    trainer = make_trainer(tmp_path, [5.0, 4.0, 3.0], task="exact", epochs=3)
    trainer.on_train_begin()
    for epoch, seconds in enumerate((30.0, 7.0)):
        clock.now += seconds
        trainer.on_epoch_end(epoch, {"loss": 1.0})
    clock.now += 1000.0
    resumed = make_trainer(tmp_path, [5.0, 4.0, 3.0], task="exact", epochs=3)
    assert resumed.resume(resumed.model)
    resumed.on_train_begin()
    clock.now += 5.0
    resumed.on_epoch_end(2, {"loss": 1.0})
    assert [row["seconds"] for row in read_history(tmp_path / "history.csv")] == [30.0, 37.0, 42.0]


def test_a_checkpoint_of_more_variables_is_refused_and_changes_nothing(tmp_path) -> None:
    """Its first ones have the shapes of all that the model has: an average stands where a moment is looked for."""

    def compiled(averaging: bool) -> keras.Model:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, use_bias=False)])
        model.compile(Adam(0.1, use_ema=averaging))
        model.optimizer.build(model.trainable_variables)
        return model

    larger, smaller = compiled(True), compiled(False)
    shapes = [[tuple(variable.shape) for variable in state_variables(model)] for model in (larger, smaller)]
    assert shapes[0][: len(shapes[1])] == shapes[1]
    save_checkpoint(tmp_path / "last.npz", larger, {"epoch": 1})
    before = [numpy(variable).copy() for variable in state_variables(smaller)]
    with pytest.raises(UserError, match=r"last\.npz: is of another model.* \(6 variables, expected 5\)"):
        load_checkpoint(tmp_path / "last.npz", smaller)
    for variable, value in zip(state_variables(smaller), before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)


@pytest.fixture
def untrained_run(tmp_path) -> RunDirectory:
    """A run of characters, whose model was saved as it was made."""
    files = {f"{side}_tokenizer": CharacterTokenizer.train(["abc"]).save(tmp_path, side)[0] for side in SIDES}
    fields = {"source_vocabulary": 7, "target_vocabulary": 7, "embedding_size": 3, "encoder_units": 2}
    training = {"recipe": None, "data": {"train": 11, "validation": 5}}
    run = RunDirectory.create(tmp_path, {"task": "exact", "model": fields, **files, "training": training})
    run.save_model(build_seq2seq(run.config))
    return run


def test_reports_show_the_best_epoch(untrained_run) -> None:
    row = {"learning_rate": 0.01, "seconds": 1.0, "loss": 3.0}
    history = [
        {"epoch": number, "val_loss": loss, "val_perplexity": math.exp(loss), "val_exact_match": score, **row}
        for number, loss, score in ((1, 2.5, 11.0), (2, 2.25, 37.0), (3, 2.75, 23.0))
    ]
    progress = Progress(3, 180.0, 1.0, Plateau(37.0, 2.25, best_epoch=1), history)
    write_reports(untrained_run, TrainConfig(task="exact", epochs=3), progress)
    metrics = json.loads((untrained_run.path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == {"best": history[1], "epochs": 3, "minutes": 3.0, "task": "exact"}
    card = (untrained_run.path / "README.md").read_text(encoding="utf-8")
    assert "greedy, epoch 2" in card
    assert "| exact_match | 37 |" in card
    assert "End of training: 3 epochs done." in card


def test_the_loss_of_validation_is_of_all_its_text(untrained_run) -> None:
    """Only the first sentences are translated."""
    words = ["abc", "ca", "b", "bcab", "ac"]
    pairs = Pairs(words, [[word[::-1]] for word in words], [f"text:{number}" for number in range(5)])
    found = _validation(untrained_run, TrainConfig(validation_sentences=2), pairs, "validation", print)
    ids = {"a": 4, "b": 5, "c": 6}
    assert found.encoded.sources == [[ids[letter] for letter in word] for word in words]
    assert found.encoded.targets == [[ids[letter] for letter in reversed(word)] for word in words]
    assert found.sources == found.encoded.sources[:2]
    assert (len(found.pairs), len(found.writers)) == (2, 2)
