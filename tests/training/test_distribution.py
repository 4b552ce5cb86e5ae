"""Training on several devices: the curve of one device, its checkpoints, and what is refused."""

import pathlib

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded
from keras_attention.training.hardware.devices import HOSTS, PROCESS, PROCESSES, Devices, output_of_process, process
from keras_attention.training.loop.history import read_history
from tests.support.distributed import train_in_process, train_in_processes

ENGINES = {"tensorflow": "mirrored", "jax": "data_parallel"}


def curve(run: pathlib.Path) -> np.ndarray:
    return np.array([[row["loss"], row["val_loss"]] for row in read_history(run / "history.csv")])


@pytest.mark.slow
def test_two_devices_give_the_curve_of_one_and_share_its_checkpoints(toy_folder, tmp_path) -> None:
    """Batches are sorted by length, so that the devices' numbers of tokens differ."""
    if keras.backend.backend() not in ENGINES:
        pytest.skip("Keras distributes on TensorFlow and on JAX")
    engine = ENGINES[keras.backend.backend()]
    train_in_process(toy_folder, tmp_path / "one", "none", 4)
    printed = train_in_process(toy_folder, tmp_path / "two", engine, 4)
    assert "2 devices" in printed
    # Sums of float32 in another order, over 24 updates: 1e-6 of each, a little more after Adam's quotients.
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=1e-4)

    train_in_process(toy_folder, tmp_path / "mixed", engine, 2)
    resumed = train_in_process(toy_folder, tmp_path / "mixed", "none", 4)
    assert "resuming after epoch 2" in resumed
    np.testing.assert_allclose(curve(tmp_path / "mixed"), curve(tmp_path / "one"), rtol=1e-4)  # as above


def test_two_processes_give_the_curve_of_one_and_share_its_checkpoints(toy_folder, tmp_path) -> None:
    """Over loopback, as two hosts would: each reads all text, serves half of every batch, and writes its own run."""
    if keras.backend.backend() != "jax":
        pytest.skip("Several processes are JAX's")
    train_in_process(toy_folder, tmp_path / "one", "none", 3)
    printed = train_in_processes(toy_folder, tmp_path / "two", 2)
    assert all("2 devices" in text for text in printed)
    assert (tmp_path / "two" / "history.csv").read_bytes() != b""
    first, second = (np.load(tmp_path / name / "checkpoints" / "last.npz") for name in ("two", "two.1"))
    for name in first.files:
        if name != "progress":  # its clock
            np.testing.assert_array_equal(first[name], second[name])
    resumed = train_in_process(toy_folder, tmp_path / "two", "none", 3)
    assert "resuming after epoch 2" in resumed
    # As with two devices.
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=1e-4)


@pytest.mark.parametrize(
    "values", [("host:1", "", ""), ("", "2", "1"), ("host:1", "2", "2"), ("host:1", "two", "0")], ids="-".join
)
def test_processes_that_know_half_of_each_other(monkeypatch, values) -> None:
    for name, value in zip((HOSTS, PROCESSES, PROCESS), values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"Several processes need KERAS_DISTRIBUTION_JOB_ADDRESSES=HOST:PORT"):
        process()


def test_each_process_writes_a_run_of_its_own(monkeypatch) -> None:
    assert output_of_process(pathlib.Path("runs/a"), "data_parallel") == pathlib.Path("runs/a")
    for name, value in zip((HOSTS, PROCESSES, PROCESS), ("host:1", "3", "2"), strict=True):
        monkeypatch.setenv(name, value)
    assert output_of_process(pathlib.Path("runs/a"), "data_parallel") == pathlib.Path("runs/a.2")
    assert output_of_process(pathlib.Path("runs/a"), "none") == pathlib.Path("runs/a")


def test_parts_of_a_batch_are_the_whole() -> None:
    rows = [[4, 5], [6], [7, 8, 9], [5], [6, 6]]
    whole, *parts = (
        BatchDataset(Encoded(rows, rows), 8, seed=1, row_multiple=6, part=part)[0]
        for part in ((0, 1), (0, 3), (1, 3), (2, 3))
    )
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), whole[1])
    for name in whole[0]:
        np.testing.assert_array_equal(np.concatenate([inputs[name] for inputs, _ in parts]), whole[0][name])


def test_an_engine_of_another_backend_is_refused() -> None:
    other = "data_parallel" if keras.backend.backend() == "tensorflow" else "mirrored"
    with pytest.raises(UserError, match=r"--distribute \w+ is for another backend. Expected KERAS_BACKEND=\w+"):
        Devices(other)
    with pytest.raises(UserError, match="Unknown distribute"):
        TrainConfig(distribute="multi_worker")
    with pytest.raises(UserError, match="accumulates no gradients"):
        TrainConfig(distribute="mirrored", accumulation=2)
