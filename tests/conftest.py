"""Set before anything imports Keras: the backend, quiet logs, repeatable random numbers."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import random

import numpy as np
import pytest

from .toy_run import toy_folder, toy_run  # noqa: F401  fixtures of the tests of training


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test starts from the same random state, alone or in the whole run."""
    random.seed(7)
    np.random.seed(7)
    import keras

    keras.utils.set_random_seed(7)
