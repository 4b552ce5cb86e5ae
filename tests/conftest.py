"""Set before anything imports Keras: the backend, quiet logs, where JAX keeps its programs, random numbers."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# JAX compiles each loop that runs outside of `jit` anew, though the program is the same: most of the time of its tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pathlib
import random
from collections.abc import Iterator

import numpy as np
import pytest

from .toy_run import toy_folder, toy_run  # noqa: F401  fixtures of the tests of training

EXPORT = "export traces and converts TensorFlow's graphs"
SCRIPTS = "the scripts of benchmarks/ are made for TensorFlow"
NO_TENSORS = "computes nothing with the library, so that one run is enough"
ONCE = {
    "test_architecture.py": NO_TENSORS,
    "test_bad_input.py": NO_TENSORS,
    "test_benchmarks.py": SCRIPTS,
    "test_copying_task.py": EXPORT,
    "test_estimate.py": EXPORT,
    "test_export_artefact.py": EXPORT,
    "test_export_ensemble.py": EXPORT,
    "test_export_int8.py": EXPORT,
    "test_export_matrix.py": EXPORT,
    "test_export_mistakes.py": EXPORT,
    "test_export_model.py": EXPORT,
    "test_export_npu.py": EXPORT,
    "test_export_operators.py": EXPORT,
    "test_export_precision.py": EXPORT,
    "test_export_search.py": EXPORT,
    "test_export_shortlist.py": EXPORT,
    "test_export_text.py": EXPORT,
    "test_onnx_loops.py": EXPORT,
    "test_packaging.py": NO_TENSORS,
    "test_readme.py": EXPORT,
    "test_runtime.py": EXPORT,
    "test_runtime_js.py": EXPORT,
    "test_subwords_js.py": EXPORT,
    "test_text_inside.py": EXPORT,
}
"""Files that run once, on TensorFlow, and why. Every other one runs on every backend; `test_backends.py` holds this."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library", action="store_true", help="leave out what does not run on every backend")


def library_only(config: pytest.Config) -> bool:
    return bool(config.getoption("--library")) or os.environ["KERAS_BACKEND"] != "tensorflow"


def pytest_report_header() -> str:
    return f"backend of Keras: {os.environ['KERAS_BACKEND']}"


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in ONCE and library_only(config) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `once`, which say why, are left out as the files of `ONCE` are."""
    if library_only(config):
        left_out = [item for item in items if item.get_closest_marker("once")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test starts from the same random state, alone or in the whole run."""
    random.seed(7)
    np.random.seed(7)
    import keras

    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """JAX keeps every program that it compiled; those of one file do not help the next, and they fill the memory."""
    yield
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        jax.clear_caches()
