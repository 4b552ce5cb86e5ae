"""What goes wrong in a long training, and that the best work is kept: loss not finite, damaged files, limit on time."""

import itertools
import json
import math
import shutil

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.training.config import TrainConfig
from keras_attention.training.loop.checkpoints import NAMES, find_checkpoints
from keras_attention.training.loop.history import read_history
from keras_attention.training.loop.trainer import Progress, Trainer
from tests.support.command import run_command
from tests.support.toy_run import train_toy


@pytest.fixture
def copied_run(toy_run, tmp_path):
    """A copy of the toy run, which had two epochs, that a test may damage."""
    shutil.copytree(toy_run.path, tmp_path / "run")
    return tmp_path / "run"


def test_the_two_newest_checkpoints_are_kept(toy_run) -> None:
    assert [path.name for path in find_checkpoints(toy_run.path)] == list(NAMES)
    assert len(list((toy_run.path / "checkpoints").iterdir())) == 2


def test_a_damaged_checkpoint_falls_back_to_the_one_before(copied_run, toy_run, toy_folder, capsys) -> None:
    last = copied_run / "checkpoints" / NAMES[0]
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 255
    last.write_bytes(content)
    train_toy(copied_run, toy_folder)
    out = capsys.readouterr().out
    assert "last.npz: damaged, so training cannot resume" in out
    assert "going on from the one before, epoch 1" in out
    assert "resuming after epoch 1" in out
    for one, other in zip(
        read_history(copied_run / "history.csv"), read_history(toy_run.path / "history.csv"), strict=True
    ):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-6)  # float32 sums in the same order


@pytest.mark.slow
def test_a_kill_between_two_renamings_falls_back_too(copied_run, toy_folder, capsys) -> None:
    (copied_run / "checkpoints" / NAMES[0]).unlink()
    train_toy(copied_run, toy_folder)
    assert "last.npz: is missing; going on from the one before, epoch 1" in capsys.readouterr().out


def test_only_damaged_checkpoints_are_an_error(copied_run, toy_folder) -> None:
    for name in NAMES:
        (copied_run / "checkpoints" / name).write_bytes(b"nothing")
    before = (copied_run / "model.keras").read_bytes()
    with pytest.raises(UserError, match=r"last.npz: damaged, so training cannot resume"):
        train_toy(copied_run, toy_folder)
    assert (copied_run / "model.keras").read_bytes() == before


def test_other_vocabularies_on_resume_are_an_error(copied_run, toy_folder) -> None:
    path = copied_run / "source.tok.json"
    content = json.loads(path.read_text())
    content["vocabulary"][4:6] = content["vocabulary"][5:3:-1]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"vocabularies are not those that the training began with.*Restore source.tok"):
        train_toy(copied_run, toy_folder, epochs=3)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_best(copied_run, toy_folder, monkeypatch) -> None:
    kept = {name: (copied_run / name).read_bytes() for name in ("model.keras", "checkpoints/last.npz", "history.csv")}
    before = Trainer.on_train_batch_begin

    def poison(self, batch, logs=None):
        before(self, batch, logs)
        if batch == 2:
            weight = self.model.trainable_variables[0]
            weight.assign(np.full(weight.shape, np.nan, "float32"))

    monkeypatch.setattr(Trainer, "on_train_batch_begin", poison)
    with pytest.raises(UserError, match=r"The loss became nan \(epoch 3, batch 3.*checkpoint of epoch 2.*--start-from"):
        train_toy(copied_run, toy_folder, epochs=3)
    for name, content in kept.items():
        assert (copied_run / name).read_bytes() == content


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line_and_a_status(toy_folder, tmp_path) -> None:
    files = [f"--{side}={toy_folder / f'{side}.txt'}" for side in ("source", "target")]
    done = run_command(
        "train", *files, "--output", tmp_path / "run", "--tokenizer=char", "--epochs=1",
        "--learning-rate=1e38", "--clip-norm=1e3", "--set=encoder_units=4", "--set=decoder_units=8",
    )  # fmt: skip
    assert done.status == 1
    assert "error: The " in done.err
    assert "the training has diverged" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "model.keras").exists()


def test_an_explosion_is_a_warning(toy_run) -> None:
    """The loss of an epoch far above the lowest before it."""
    lines: list[str] = []
    trainer = Trainer.__new__(Trainer)
    trainer.run, trainer.settings, trainer.say = toy_run, TrainConfig(task="exact", clip_norm=2.0), lines.append
    trainer.progress = Progress(1, history=[{"loss": 1.0}])
    trainer.validate = lambda: {"val_loss": math.inf, "val_exact_match": 0.0}

    class Model:
        optimizer = keras.optimizers.SGD(0.5)

    trainer.set_model(Model())
    with pytest.raises(UserError, match="The validation loss became inf"):
        trainer.on_epoch_end(1, {"loss": 1.6})
    trainer.validate = lambda: {"val_loss": 1.0}
    with pytest.raises(KeyError):  # goes on to the score, which is not given here
        trainer.on_epoch_end(1, {"loss": 1.6})
    assert lines == [
        "warning: the training loss rose from 1.000 to 1.600: gradients explode, though their norm is bounded by 2. "
        "Lower --learning-rate or --clip-norm"
    ]


@pytest.mark.slow
def test_a_time_limit_in_mid_epoch_is_told(toy_folder, tmp_path, capsys, monkeypatch) -> None:
    """By a clock that goes on by 10 s whenever it is read: 20 minutes are over in the second epoch of 92 batches."""
    ticks = itertools.count()
    monkeypatch.setattr(Trainer, "seconds", lambda self: 10.0 * next(ticks))
    train_toy(tmp_path / "run", toy_folder, epochs=1000, time_limit=20.0, batch_size=1)
    assert (tmp_path / "run" / "model.keras").exists()
    out = capsys.readouterr().out
    assert "finished: 20 minutes used, in epoch" in out
    assert "of 92" in out
    rows = len(read_history(tmp_path / "run" / "history.csv"))
    train_toy(tmp_path / "run", toy_folder, epochs=1000, time_limit=20.0, batch_size=1)
    assert len(read_history(tmp_path / "run" / "history.csv")) == rows, "time is up: nothing is trained again"
