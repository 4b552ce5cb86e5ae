"""TensorFlow, JAX and PyTorch: which tests run on which, and that a saved model gives the same outputs on all three."""

import ast
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import keras
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import EXPORT, NO_TENSORS, ONCE, SCRIPTS
from tests.project.test_architecture import imports, starts_with
from tests.support import exchange

ROOT = pathlib.Path(__file__).resolve().parents[2]
BACKENDS = {"tensorflow": ".venv", "jax": ".venv", "torch": ".venv-torch"}
"""Each backend, and the environment in which `make test-backends` puts it."""

FILES = sorted((ROOT / "tests").rglob("test_*.py"))
PLAIN = ("errors.UserError", "files", "run_directory", "arguments.SCORES", "cli", "export", "training")
"""What `keras_attention` has beside what computes: its errors, files and names. `training` is started as a command."""

COMMANDS = ("test_own_text.py", "test_readme.py")
"""Files that export by the command line alone."""
EXPORTING = ("keras_attention.export", "tests.support.export_models", "tests.export.test_export_artefact")


def interpreter(backend: str) -> pathlib.Path | None:
    """A Python that has the backend: this one, or that of the checkout's environment."""
    if importlib.util.find_spec(backend):
        return pathlib.Path(sys.executable)
    path = ROOT / BACKENDS[backend] / "bin" / "python"
    return path if path.exists() else None


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """A folder of models saved on this backend, and their outputs here."""
    folder = tmp_path_factory.mktemp("saved")
    exchange.save_models(folder)
    return folder, exchange.outputs(folder)


OTHERS = [name for name in BACKENDS if name != keras.backend.backend() and interpreter(name)]
"""PyTorch is among them where `make test-backends` has made its environment; its own tests meet the other two."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_a_saved_model_gives_the_same_outputs_on_another_backend(
    saved: tuple[pathlib.Path, dict[str, np.ndarray]], backend: str
) -> None:
    folder, here = saved
    environment = {**os.environ, "KERAS_BACKEND": backend}
    command = [str(interpreter(backend)), "-m", "tests.support.exchange", str(folder), str(folder / f"{backend}.npz")]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    there = np.load(folder / f"{backend}.npz")
    assert set(there) == set(here)
    assert here["search margins"].min() > 1e-4  # no near-tie, at which two backends may choose differently
    for name, expected in here.items():
        # The same float32 formulas on other kernels: sums of at most 13 products, added in another order, in 6 steps.
        np.testing.assert_allclose(there[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_this_run_is_on_the_backend_that_was_asked_for() -> None:
    assert keras.backend.backend() == os.environ["KERAS_BACKEND"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_tests_the_library_runs_on_every_backend(path: pathlib.Path) -> None:
    """A file is left out for the one reason or for the other; which one, its imports tell."""
    names = {name for name, _ in imports(path)}
    exports = any(starts_with(name, *EXPORTING) for name in names)
    computing = {
        name
        for name in names
        if starts_with(name, "keras_attention")
        and name not in ("keras_attention", "keras_attention.UserError")
        and not starts_with(name, *(f"keras_attention.{plain}" for plain in PLAIN))
    }
    reason = ONCE.get(path.name)
    assert (reason in (EXPORT, SCRIPTS)) == (exports or path.name in COMMANDS)
    assert reason != NO_TENSORS or not computing


def test_files_that_run_once_exist() -> None:
    assert set(ONCE) <= {path.name for path in FILES}


def calls(node: ast.AST, *names: str) -> list[ast.Call]:
    return [call for call in ast.walk(node) if isinstance(call, ast.Call) and ast.unparse(call.func) in names]


@pytest.mark.parametrize("path", [path for path in FILES if path.name not in ONCE], ids=lambda path: path.name)
def test_a_skip_names_the_backend_that_cannot_run_it(path: pathlib.Path) -> None:
    """A skip for any other cause, or an expected failure, would hide a failure."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    explained = [
        call.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "keras.backend.backend()" in ast.unparse(node.test)
        for call in calls(node, "pytest.skip")
        if isinstance(call.args[0], ast.Constant)
    ]
    assert explained == [call.lineno for call in calls(tree, "pytest.skip")]
    assert not calls(tree, "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.importorskip")
    assert all([word.arg for word in call.keywords] == ["reason"] for call in calls(tree, "pytest.mark.once"))


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}


def test_torch_is_locked_beside_the_same_versions_of_everything_else() -> None:
    torch, others = pins("requirements-torch.lock"), pins("requirements.lock")
    assert "torch" in torch
    assert "torch" not in others
    assert "tensorflow" not in torch
    assert {name: pin for name, pin in torch.items() if others.get(name, pin) != pin} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["train"]]:
        assert Requirement(line).specifier.contains(torch[canonicalize_name(Requirement(line).name)]), line


def test_continuous_integration_runs_two_backends() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nmake test\n" in script  # the fast part, on TensorFlow
    (line,) = re.findall(r'^make test-backends BACKENDS="jax" FAST=1 TESTS="(.*)"$', script, re.MULTILINE)
    assert all((ROOT / name).is_file() and pathlib.Path(name).name not in ONCE for name in line.split())
    (shares,) = re.findall(r"^make test-slow SHARE=\S+ % (\d)\)\)/(\d)\"$", script, re.MULTILINE)
    assert shares == ("4", "4")  # the commit chooses one of all shares
