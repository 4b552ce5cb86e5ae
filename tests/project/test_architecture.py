"""The direction of imports, read from the source: training -> keras_attention <- export."""

import ast
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("keras_attention", "training", "export")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
FRAMEWORKS = ("tensorflow", "tensorflow_text", "jax", "torch")


def imports(path: pathlib.Path) -> Iterator[tuple[str, bool]]:
    """Each absolute name that a file imports, and whether it does so when it is itself imported."""

    def visit(node: ast.AST, at_import: bool) -> Iterator[tuple[str, bool]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from ((f"{node.module}.{alias.name}", at_import) for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            at_import = False
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_import and not inside)

    return visit(ast.parse(path.read_text(encoding="utf-8")), True)


def starts_with(name: str, *prefixes: str) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_folder_imports_the_wrong_way(path: pathlib.Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    wrong = set()
    for name, at_import in imports(path):
        if starts_with(name, "training", "export"):
            wrong.add(f"{name}: not a name once installed; import it relatively")
        elif starts_with(name, "keras_attention.training", "keras_attention.export"):
            if folder != "keras_attention":
                wrong.add(f"{name}: `training` and `export` meet in the run directory only")
            elif at_import:
                wrong.add(f"{name}: the library loads these inside functions")
        elif starts_with(name, "keras.src"):
            wrong.add(f"{name}: private API of Keras")
    assert not wrong


@pytest.mark.parametrize("path", [p for p in SOURCES if not relative(p).startswith("export/")], ids=relative)
def test_library_and_training_need_no_particular_backend(path: pathlib.Path) -> None:
    """They run where TensorFlow is not installed: nothing of a framework is loaded with the module."""
    assert not [name for name, at_import in imports(path) if at_import and starts_with(name, *FRAMEWORKS)]


@pytest.mark.parametrize("path", sorted((ROOT / "keras_attention" / "search").glob("*.py")), ids=relative)
def test_search_knows_nothing_of_models_or_text(path: pathlib.Path) -> None:
    ours = [name for name, _ in imports(path) if starts_with(name, "keras_attention")]
    assert all(
        starts_with(name, "keras_attention.types", "keras_attention.search", "keras_attention.search_policy")
        for name in ours
    ), ours


RUNTIME = ROOT / "export" / "runtime"


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=relative)
def test_the_runtime_stands_alone(path: pathlib.Path) -> None:
    """A device has numpy, one interpreter and perhaps sentencepiece; the folder is copied there without this package.

    `require` imports interpreters by name. No module has a name of the standard library, for the folder is on the path
    when Python is started with it.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert max(levels, default=0) <= len(path.relative_to(RUNTIME).parts)
    assert {name.partition(".")[0] for name, _ in imports(path)} - set(sys.stdlib_module_names) <= {"numpy"}
    assert path.parent != RUNTIME or path.stem not in sys.stdlib_module_names
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_every_interpreter_of_the_runtime_is_in_its_table() -> None:
    """An artefact gets the modules of its formats, which the table names."""
    tree = ast.parse((RUNTIME / "backends" / "__init__.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Backend"]
    named = {ast.literal_eval(call.args[1]) for call in calls}
    assert named == {path.stem for path in (RUNTIME / "backends").glob("*.py")} - {"__init__"}


def test_importing_the_command_line_loads_one_framework(tmp_path: pathlib.Path) -> None:
    """The backend that Keras is told to use, and no other."""
    code = (
        "import sys, keras_attention.cli;"
        "print([name for name in ('jax', 'tensorflow', 'torch', 'onnx', 'sacrebleu') if name in sys.modules])"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['jax']"


def test_files_are_short() -> None:
    """One idea a file."""
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {path: length for path, length in lengths.items() if length > 350}
