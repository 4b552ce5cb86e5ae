"""One small run for all tests of a worker that need a trained model. Imports are late: `conftest` loads this file."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import toy


def train_toy(output: pathlib.Path, folder: pathlib.Path, pictures: bool = False, **changes: Any) -> Any:
    """`train` on the toy pairs in `folder`; leaves TensorFlow as it was, for the other tests of this process."""
    import keras

    from keras_attention.training import train

    settings = {**toy.SETTINGS, **changes}
    model = {**toy.MODEL, **settings.pop("model", {})}
    try:
        with contextlib.nullcontext() if pictures else no_heat_maps():
            return train(output, source=folder / "source.txt", target=folder / "target.txt", model=model, **settings)
    finally:
        if keras.backend.backend() == "tensorflow":
            from tensorflow.python.framework import config as tf_config

            tf_config.disable_op_determinism()


def another_run(run: Any, output: pathlib.Path, spread: float = 0.1) -> Any:
    """A copy of a run with other weights, for tests that want a second model and not its training."""
    import keras
    import numpy as np

    from keras_attention.run_directory import RunDirectory

    shutil.copytree(run.path, output)
    model = keras.models.load_model(output / "model.keras")
    generator = np.random.default_rng(5)
    model.set_weights([weight + generator.normal(scale=spread, size=weight.shape) for weight in model.get_weights()])
    copy = RunDirectory.open(output)
    copy.save_model(model)
    return copy


def edit_config(run: pathlib.Path, metadata: dict[str, Any]) -> None:
    """Write config.json as someone who edits it and deletes its fingerprint, as its message says."""
    content = {name: value for name, value in metadata.items() if name != "fingerprint"}
    (run / "config.json").write_text(json.dumps(content), encoding="utf-8")


@contextlib.contextmanager
def no_heat_maps() -> Iterator[None]:
    """Trainings end without translating samples and drawing their attention, a quarter of a toy run's time."""
    from keras_attention.training.loop import model_card as report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "HEAT_MAPS", 0)
        yield


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("toy")
    toy.write_pairs(folder)
    return folder


@pytest.fixture(scope="session")
def toy_run(toy_folder: pathlib.Path) -> Any:
    return train_toy(toy_folder / "run", toy_folder, pictures=True)
