"""Set before anything imports Keras: the backend, quiet logs, where JAX keeps its programs, random numbers."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
# JAX compiles each loop that runs outside of `jit` anew, though the program is the same: most of the time of its tests.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import gc
import pathlib
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.toy_run import toy_folder, toy_run  # noqa: F401  fixtures of the tests of training

EXPORT = "export traces and converts TensorFlow's graphs"
SCRIPTS = "the scripts of benchmarks/ are made for TensorFlow"
NO_TENSORS = "computes nothing with the library, so that one run is enough"
ONCE = {
    "test_architecture.py": NO_TENSORS,
    "test_bad_input.py": NO_TENSORS,
    "test_benchmarks.py": SCRIPTS,
    "test_child_process.py": EXPORT,
    "test_copying_task.py": EXPORT,
    "test_estimate.py": EXPORT,
    "test_export_artefact.py": EXPORT,
    "test_export_ensemble.py": EXPORT,
    "test_export_int8.py": EXPORT,
    "test_export_matrix.py": EXPORT,
    "test_export_mistakes.py": EXPORT,
    "test_export_model.py": EXPORT,
    "test_export_npu.py": EXPORT,
    "test_export_parts.py": EXPORT,
    "test_export_operators.py": EXPORT,
    "test_export_precision.py": EXPORT,
    "test_export_search.py": EXPORT,
    "test_export_shortlist.py": EXPORT,
    "test_formats.py": EXPORT,
    "test_export_text.py": EXPORT,
    "test_fast_part.py": EXPORT,
    "test_host_loop.py": EXPORT,
    "test_host_loop_js.py": EXPORT,
    "test_integrity.py": EXPORT,
    "test_onnx_loops.py": EXPORT,
    "test_onnx_passes.py": EXPORT,
    "test_own_text.py": EXPORT,
    "test_packaging.py": NO_TENSORS,
    "test_readme.py": EXPORT,
    "test_runtime.py": EXPORT,
    "test_runtime_js.py": EXPORT,
    "test_runtime_parts.py": EXPORT,
    "test_start.py": NO_TENSORS,
    "test_subwords_js.py": EXPORT,
    "test_tests.py": NO_TENSORS,
    "test_text_inside.py": EXPORT,
    "test_verification.py": EXPORT,
}
"""Files that run once, on TensorFlow, and why. Every other one runs on every backend; `test_backends.py` holds this."""


DEAREST = (
    *(
        "test_export_artefact.py",
        "test_export_matrix.py",
        "test_benchmarks.py",
        "test_readme.py",
        "test_export_precision.py",
        "test_own_text.py",
    ),
    *("test_export_search.py", "test_runtime.py", "test_runtime_js.py", "test_export_npu.py", "test_seq2seq.py"),
    *("test_estimate.py", "test_agreement.py", "test_layer_contract.py", "test_copying_task.py", "test_packaging.py"),
    *(
        "test_training.py",
        "test_training_options.py",
        "test_synthesis.py",
        "test_attention_rnn.py",
        "test_distribution.py",
    ),
)
"""Files that take longest, which begin first: a worker that gets one last would work on alone."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--library", action="store_true", help="leave out what does not run on every backend")
    parser.addoption("--share", metavar="K/N", help="of the files with slow tests, those of share K of N (0 <= K < N)")


def pytest_configure(config: pytest.Config) -> None:
    if share := config.getoption("--share"):
        number, _, count = share.partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise pytest.UsageError(f"--share. Expected: K/N with 0 <= K < N. Received: {share}")


def pytest_collection_finish() -> None:
    """Exempt what is loaded by now from garbage collection, which would walk it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


def library_only(config: pytest.Config) -> bool:
    return bool(config.getoption("--library")) or os.environ["KERAS_BACKEND"] != "tensorflow"


def pytest_report_header() -> str:
    return f"backend of Keras: {os.environ['KERAS_BACKEND']}"


def pytest_ignore_collect(collection_path: pathlib.Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in ONCE and library_only(config) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests marked `once` as the files of `ONCE` are, and other shares; the dearest files come first."""
    left_out = set()
    if library_only(config):
        left_out |= {item for item in items if item.get_closest_marker("once")}
    if share := config.getoption("--share"):
        number, count = map(int, share.split("/"))
        left_out |= {item for item in items if share_of(item.path.name, count) != number}
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=list(left_out))
    items.sort(key=lambda item: DEAREST.index(item.path.name) if item.path.name in DEAREST else len(DEAREST))


def share_of(name: str, count: int) -> int:
    """The share of a file: those of `DEAREST` are dealt in turn, there and back, the others by their names."""
    if name in DEAREST:
        place = DEAREST.index(name) % (2 * count)
        return min(place, 2 * count - 1 - place)
    return zlib.crc32(name.encode()) % count


def seed() -> None:
    random.seed(7)
    np.random.seed(7)
    import keras

    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Each test starts from the same random state, alone or in the whole run."""
    seed()


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> None:
    """So does what several tests share, whichever of them comes first."""
    if fixturedef.scope != "function":
        seed()


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    """No test meets what another left on: the determinism that a training asks of TensorFlow, or a dtype policy."""
    yield
    import keras

    keras.config.set_dtype_policy("float32")
    if keras.backend.backend() == "tensorflow":
        from tensorflow.python.framework import config as tf_config

        tf_config.disable_op_determinism()


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs() -> Iterator[None]:
    """JAX keeps every program that it compiled; those of one file do not help the next, and they fill the memory."""
    yield
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        jax.clear_caches()
