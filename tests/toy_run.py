"""One small run for all tests of a worker that need a trained model. Imports are late: `conftest` loads this file."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from . import toy


def train_toy(output: pathlib.Path, folder: pathlib.Path, **changes: Any) -> Any:
    """`train` on the toy pairs in `folder`; leaves TensorFlow as it was, for the other tests of this process."""
    import keras

    from keras_attention.training import train

    settings = {**toy.SETTINGS, **changes}
    model = {**toy.MODEL, **settings.pop("model", {})}
    try:
        return train(output, source=folder / "source.txt", target=folder / "target.txt", model=model, **settings)
    finally:
        if keras.backend.backend() == "tensorflow":
            from tensorflow.python.framework import config as tf_config

            tf_config.disable_op_determinism()


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("toy")
    toy.write_pairs(folder)
    return folder


@pytest.fixture(scope="session")
def toy_run(toy_folder: pathlib.Path) -> Any:
    return train_toy(toy_folder / "run", toy_folder)
