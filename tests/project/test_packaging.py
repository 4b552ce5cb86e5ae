"""What is installed: the package list, the wheel, the command in an environment with its requirements alone."""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]


def requirements_of(extra: str) -> set[str]:
    """Canonical names that an extra asks for, those of the extras it names included."""
    names: set[str] = set()
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == PROJECT["project"]["name"]:
            names = names.union(*(requirements_of(inner) for inner in requirement.extras))
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def test_package_list_equals_the_tree() -> None:
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    assert folders == {
        "keras_attention": "keras_attention",
        "keras_attention.training": "training",
        "keras_attention.export": "export",
    }
    found = set()
    for package, folder in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_core_requirements_are_keras_and_numpy() -> None:
    core = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    assert core == {"keras", "numpy"}
    assert "tensorflow" not in requirements_of("train")


def test_lock_pins_everything_that_is_asked_for() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
    pinned = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in lines}
    assert len(pinned) == len(lines)
    # TensorFlow Lite Micro has development releases alone, one a day: none of them to be relied on for long.
    extras = [line for name, extra in EXTRAS.items() if name != "micro" for line in extra]
    for line in [*PROJECT["project"]["dependencies"], *extras]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["project"]["name"]:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Built from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE", "keras_attention_command.py"):
        shutil.copy(ROOT / name, source)
    for name in ("keras_attention", "training", "export"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = target.glob("*.whl")
    return path


def test_wheel_holds_one_package_and_the_start_of_the_command(wheel: pathlib.Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.partition("/")[0] for name in names}
    assert top == {
        "keras_attention",
        "keras_attention_command.py",
        f"keras_luong-{PROJECT['project']['version']}.dist-info",
    }
    pages = {
        f"keras_attention/export/runtime/web/{path.name}" for path in (ROOT / "export" / "runtime" / "web").iterdir()
    }
    expected = {"keras_attention/py.typed", *pages}
    for package, folder in PROJECT["tool"]["setuptools"]["package-dir"].items():
        for path in (ROOT / folder).rglob("*.py"):
            expected.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    assert {name for name in names if name.startswith("keras_attention/")} == expected
    assert any(name.endswith("/LICENSE") for name in names)


def link_requirements(site_packages: pathlib.Path, names: set[str]) -> set[str]:
    """Give an environment these distributions and all that they require, from the one that runs the tests: no network.

    Returns the canonical names of all of them.
    """
    waiting, done = [Requirement(name) for name in names], set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in done:
            continue
        done.add(name)
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(pathlib.Path(str(distribution.locate_file(top))))
        for line in distribution.requires or []:
            inner = Requirement(line)
            extras = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(inner)
    return done


@pytest.fixture(scope="module")
def environment(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An empty environment with the wheel, what the core and the `train` extra ask for, and JAX: no TensorFlow."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-index", "--no-deps", "--quiet", str(wheel)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (site_packages,) = folder.glob("lib/python3*/site-packages")
    linked = link_requirements(site_packages, {"keras", "numpy", *requirements_of("train"), "jax"})
    assert not {"tensorflow", "tensorflow-text", "torch"} & linked
    return folder


def run_in(environment: pathlib.Path, folder: pathlib.Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS", "VIRTUAL"))
    }
    variables |= {"KERAS_HOME": str(folder), "KERAS_BACKEND": "jax"}
    program = str(environment / "bin" / command[0])
    return subprocess.run(
        [program, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_runs_from_another_folder(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    run = run_in(environment, tmp_path, "keras-attention", "--help")
    assert run.returncode == 0, run.stdout + run.stderr
    for command in ("train", "translate", "evaluate", "attention", "export", "verify", "benchmark"):
        assert re.search(rf"\b{command}\b", run.stdout), run.stdout


@pytest.mark.slow
def test_installed_names(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = (
        "import importlib.util as util;"
        "print([name for name in ('training', 'export', 'tests', 'tensorflow') if util.find_spec(name)],"
        " [bool(util.find_spec('keras_attention.' + name)) for name in ('training', 'export', 'search')])"
    )
    run = run_in(environment, tmp_path, "python", "-c", code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[] [True, True, True]"


@pytest.mark.slow
def test_layers_and_models_run_without_tensorflow(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = (
        "import numpy as np; from keras_attention import LuongAttention, Seq2SeqConfig, build_seq2seq;"
        "print(LuongAttention()(np.ones((2, 3, 5), 'float32'), np.ones((2, 7, 11), 'float32')).shape);"
        "model = build_seq2seq(Seq2SeqConfig(source_vocabulary=13, target_vocabulary=17, embedding_size=4,"
        " encoder_units=4, decoder_units=8, tie_embeddings='target'));"
        "print(model({'source': np.ones((2, 7), 'int32'), 'target': np.ones((2, 5), 'int32')}).shape)"
    )
    run = run_in(environment, tmp_path, "python", "-c", code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split("\n")[:2] == ["(2, 3, 11)", "(2, 5, 17)"]


@pytest.mark.slow
def test_trains_without_tensorflow(environment: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The command trains and translates under JAX where nothing of TensorFlow is installed."""
    pairs = [f"{a} {b}\t{b.upper()} {a.upper()}\n" for a in "abcdef" for b in "ghijkl"]
    (tmp_path / "pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    sizes = ["--set", "embedding_size=5", "--set", "encoder_units=7", "--set", "decoder_units=11"]
    command = ["train", "--tsv", "pairs.tsv", "--output", "run", "--tokenizer", "word", "--epochs", "1", *sizes]
    run = run_in(environment, tmp_path, "keras-attention", *command)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / "run" / "model.keras").is_file()
    (tmp_path / "sentences").write_text("a g\nb h\n", encoding="utf-8")
    script = f"'{environment}/bin/keras-attention' translate run --beam 1 < sentences"
    variables = {"PATH": os.environ["PATH"], "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(run.stdout.splitlines()) == 2


def test_the_version_is_that_of_the_project() -> None:
    import keras_attention

    assert keras_attention.__version__ == PROJECT["project"]["version"]
