"""`kill -9` in the middle: the next start resumes, and the history is that of an uninterrupted training."""

import csv
import pathlib
import signal
import subprocess

import numpy as np
import pytest

from tests.support import toy, warm


def command(folder: pathlib.Path, output: pathlib.Path) -> list[str]:
    source, target = folder / "source.txt", folder / "target.txt"
    run = ["-m", "keras_attention.cli", "train", f"--source={source}", f"--target={target}"]
    return [*run, f"--output={output}", *toy.OPTIONS, "--epochs=3"]


def rows(output: pathlib.Path) -> list[dict[str, str]]:
    with (output / "history.csv").open() as file:
        return list(csv.DictReader(file))


KILLED = """
import os, signal
from keras_attention.cli import app as cli
from keras_attention.training.loop.trainer import Trainer
end = Trainer.on_train_batch_end
def kill(self, batch, logs=None):
    end(self, batch, logs)
    if self.progress.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer.on_train_batch_end = kill
cli.main()
"""
"""The command, killed after the first update of its second epoch."""


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    toy.write_pairs(tmp_path, 400)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    warm.run(command(tmp_path, whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    arguments = command(tmp_path, killed)[2:]
    ended = warm.run(["-c", KILLED, *arguments], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    (killed / "checkpoints" / ".partial-1-last.npz").write_bytes(b"half")  # as of a kill while it is written
    done = warm.run(command(tmp_path, killed), check=True, capture_output=True, text=True)
    assert "resuming after epoch 1" in done.stdout
    assert len(rows(whole)) == 3
    for one, other in zip(rows(whole), rows(killed), strict=True):
        one.pop("seconds")
        other.pop("seconds")
        # float32 sums in a fixed order give the same bits; 1e-6 is what is promised.
        np.testing.assert_allclose(
            [float(value) for value in one.values()], [float(value) for value in other.values()], rtol=1e-6, atol=1e-6
        )
    assert not list(killed.rglob(".partial-*"))
    assert sorted(path.name for path in (killed / "checkpoints").iterdir()) == ["last.npz", "previous.npz"]
