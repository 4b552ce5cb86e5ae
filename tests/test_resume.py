"""`kill -9` in the middle: the next start resumes, and the history is that of an uninterrupted training."""

import csv
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

from . import toy


def command(folder: pathlib.Path, output: pathlib.Path) -> list[str]:
    source, target = folder / "source.txt", folder / "target.txt"
    run = [sys.executable, "-m", "keras_attention.cli", "train", f"--source={source}", f"--target={target}"]
    return [*run, f"--output={output}", *toy.OPTIONS, "--epochs=3"]


def rows(output: pathlib.Path) -> list[dict[str, str]]:
    path = output / "history.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def kill_after(epochs: int, arguments: list[str], output: pathlib.Path) -> None:
    """Start, wait until so many epochs are in the history, and kill somewhere in the next one."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 240
        while len(rows(output)) < epochs:
            assert process.poll() is None, "ended before it was killed"
            assert time.monotonic() < limit
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path) -> None:
    toy.write_pairs(tmp_path, 400)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(tmp_path, whole), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_after(1, command(tmp_path, killed), killed)
    done = subprocess.run(command(tmp_path, killed), check=True, capture_output=True, text=True)
    assert "resuming after epoch" in done.stdout
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
