"""The tests that `make test` runs meet every format and precision, every command, and every public layer."""

import ast
import pathlib
from typing import Any

import keras
import pytest
import typer.main

import keras_attention
from keras_attention.cli import app as cli
from keras_attention.export.formats import table

TESTS = pathlib.Path(__file__).resolve().parents[1]
EXPORTS = {
    ("saved_model", "float32"): "test_export_artefact.py::test_what_an_artefact_holds",
    ("tflite", "float32"): "test_export_artefact.py::test_what_an_artefact_holds",
    ("onnx", "float32"): "test_export_artefact.py::test_what_an_artefact_holds",
    ("tflite", "float16"): "test_export_precision.py::test_float16_files_hold_float16_alone",
    ("onnx", "float16"): "test_export_precision.py::test_float16_files_hold_float16_alone",
    ("tflite", "dynamic_int8"): "test_export_precision.py::test_int8_reaches_into_the_loops",
    ("onnx", "dynamic_int8"): "test_export_precision.py::test_int8_reaches_into_the_loops",
    ("onnx", "int8"): "test_export_int8.py::test_numbers_stay_near_those_of_keras",
    ("npu", "int8"): "test_export_npu.py::test_numbers_are_those_of_keras_within_int8",
}
"""For each format and precision a test of the fast part that exports so and looks at what comes out."""


def is_slow(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(one) == "pytest.mark.slow" for one in function.decorator_list)


def fast_tree(path: pathlib.Path) -> ast.Module:
    """A test file without its slow tests, and without imports, which use nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = [one for one in tree.body if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "pytestmark"]
    if any("pytest.mark.slow" in ast.unparse(one) for one in marks):
        return ast.Module([], [])
    left_out = (ast.Import, ast.ImportFrom)
    body = [one for one in tree.body if not isinstance(one, left_out)]
    return ast.Module([one for one in body if not (isinstance(one, ast.FunctionDef) and is_slow(one))], [])


TREES = {path.name: fast_tree(path) for path in sorted(TESTS.rglob("test_*.py")) if path != pathlib.Path(__file__)}


def functions(name: str) -> dict[str, ast.FunctionDef]:
    return {one.name: one for one in TREES[name].body if isinstance(one, ast.FunctionDef)}


def source_with_fixtures(name: str, test: str) -> str:
    """The source of a test and of the functions of its file that it asks for or calls, and so on."""
    known, waiting, texts = functions(name), [test], {}
    while waiting:
        if (current := waiting.pop()) in known and current not in texts:
            texts[current] = ast.unparse(known[current])
            waiting += [argument.arg for argument in known[current].args.args]
            waiting += [one.id for one in ast.walk(known[current]) if isinstance(one, ast.Name)]
    return "\n".join(texts.values())


def test_every_format_and_precision_is_exported() -> None:
    held = {(one.name, precision) for one in table.FORMATS for precision in one.precisions}
    assert set(EXPORTS) == held


@pytest.mark.parametrize(
    ("kind", "test"), EXPORTS.items(), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_what_is_said_to_export_does(kind: tuple[str, str], test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions(file), f"{test} is no test of the fast part"
    source = source_with_fixtures(file, name)
    assert "export(" in source or "export_run(" in source
    names = {"tflite": ("tflite", "litert")}.get(kind[0], kind[:1])
    assert any(repr(one) in source or f"'{one}'" in source for one in names) or kind == ("onnx", "int8")
    assert kind[1] in ("float32", "int8") or kind[1] in source


def test_every_command_is_run() -> None:
    """As an argument of a call: `run_command("train", ...)`, or in the list of a child process."""
    commands = set(typer.main.get_command(cli.app).commands)
    assert len(commands) > 8
    run = set()
    for tree in TREES.values():
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
            if ast.unparse(call.func).rpartition(".")[2] in ("run_command", "run", "command"):
                run |= {one.value for one in ast.walk(call) if isinstance(one, ast.Constant)}
    assert commands - run == set()


def test_every_public_layer_is_used() -> None:
    public: dict[str, Any] = {name: getattr(keras_attention, name) for name in keras_attention.__all__}
    layers = {
        name for name, value in public.items() if isinstance(value, type) and issubclass(value, keras.layers.Layer)
    }
    assert len(layers) > 8
    used = {one.id for tree in TREES.values() for one in ast.walk(tree) if isinstance(one, ast.Name)}
    used |= {one.attr for tree in TREES.values() for one in ast.walk(tree) if isinstance(one, ast.Attribute)}
    assert layers - used == set()
