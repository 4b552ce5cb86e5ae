"""Set before anything imports Keras: the backend, quiet logs, where JAX keeps its programs, random numbers."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# JAX compiles each loop that runs outside of `jit` anew, though the program is the same: most of the time of its tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

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
