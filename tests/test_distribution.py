"""Training on several devices: the curve of one device, its checkpoints, and what is refused."""

import pathlib

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.training.distribution import Devices
from keras_attention.training.history import read_history
from keras_attention.training.settings import Settings

from .distributed import train_in_process

ENGINES = {"tensorflow": "mirrored", "jax": "data_parallel"}


def curve(run: pathlib.Path) -> np.ndarray:
    return np.array([[row["loss"], row["val_loss"]] for row in read_history(run / "history.csv")])


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
    np.testing.assert_allclose(curve(tmp_path / "mixed"), curve(tmp_path / "one"), rtol=1e-4)


def test_an_engine_of_another_backend_is_refused() -> None:
    other = "data_parallel" if keras.backend.backend() == "tensorflow" else "mirrored"
    with pytest.raises(UserError, match=r"--distribute \w+ is for another backend. Expected KERAS_BACKEND=\w+"):
        Devices(other)
    with pytest.raises(UserError, match="Unknown distribute"):
        Settings(distribute="multi_worker")
    with pytest.raises(UserError, match="accumulates no gradients"):
        Settings(distribute="mirrored", accumulation=2)
