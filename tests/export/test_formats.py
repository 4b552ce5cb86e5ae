"""The table of export formats: names, aliases, precisions, and the contract that each format keeps."""

from typing import Any

import pytest

from keras_attention import UserError
from keras_attention.export.formats import table
from keras_attention.export.formats.base import Format
from keras_attention.export.parity.quality import Task
from keras_attention.export.plan import plan_export
from keras_attention.export.request import Request
from keras_attention.search_policy import SearchPolicy
from tests.support.export_models import tiny_model

ALL = pytest.mark.parametrize("format_", table.FORMATS, ids=lambda one: one.name)


def chosen(to: Any, precision: str | None = None) -> tuple[list[str], str]:
    formats, found = table.choose(to, precision)
    return [one.name for one in formats], found


@ALL
def test_each_format_is_found_by_its_name_and_its_aliases(format_: Format) -> None:
    assert all(table.by_name(name) is format_ for name in (format_.name, *format_.aliases))
    assert chosen(format_.name) == ([format_.name], format_.precisions[0])


def test_no_name_stands_twice() -> None:
    names = [name for one in table.FORMATS for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    assert table.PRECISIONS == ("float32", "float16", "dynamic_int8", "int8")


@pytest.mark.parametrize(
    ("to", "precision", "names", "found"),
    [
        (None, None, ["saved_model", "tflite", "onnx"], "float32"),
        (None, "float16", ["tflite", "onnx"], "float16"),
        (None, "int8", ["onnx"], "int8"),
        ("npu", None, ["npu"], "int8"),
        (["onnx", "npu"], None, ["onnx", "npu"], "int8"),
        (["litert", "tflite", "savedmodel"], None, ["tflite", "saved_model"], "float32"),
        (("onnx", "litert"), "dynamic_int8", ["onnx", "tflite"], "dynamic_int8"),
    ],
)
def test_formats_and_precision(to: Any, precision: str | None, names: list[str], found: str) -> None:
    """An NPU's files must be asked for; the precision is the first one that all formats can hold."""
    assert chosen(to, precision) == (names, found)


@pytest.mark.parametrize(
    ("to", "precision", "message"),
    [
        (["tflite", "coreml"], None, r"one or several of saved_model, tflite, onnx, npu \(.*litert is tflite\)"),
        ("coreml", "int8", "Received: coreml"),
        ([], None, "Received: none"),
        (None, "int4", "Unknown precision. Expected: one of float32, float16, dynamic_int8, int8. Received: 'int4'"),
        ("saved_model", "float16", "saved_model cannot hold float16. Expected: --to tflite onnx"),
        (["onnx", "tflite"], "int8", "tflite cannot hold int8. Expected: --to onnx npu"),
        ("npu", "float32", "npu cannot hold float32. Expected: --to saved_model tflite onnx"),
        (["npu", "saved_model"], None, "no precision in common. .* Received: npu: int8; saved_model: float32"),
    ],
)
def test_mistakes(to: Any, precision: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        table.choose(to, precision)


@ALL
def test_a_format_describes_its_files(format_: Format) -> None:
    """Every signature of an entry is in the manifest, and nothing but ids and names is written there."""
    settings, samples = SearchPolicy(beam_size=2, max_length=4), [[4, 5, 2]]
    model, length = tiny_model(), 5
    request = Request(
        model, settings, None, samples, None, Task(), format_.precisions[-1], False, length, None, [model]
    )
    format_.check(request)
    plan = plan_export(model, settings, None, samples, source_length=length)
    entry = format_.describe(plan, request)
    assert set(entry["signatures"]) <= {graph.name for graph in plan.graphs}
    assert {"encode", "decode_step"} <= set(entry["signatures"])
    assert len({"file", "files", "folder"} & set(entry)) == 1
    assert format_.interpreter
    assert all(format_.compares(case) for case in plan.cases.cases if case.margins is not None and case.counted)


def test_operators_in_the_report() -> None:
    counts = {"builtin": {"ADD": 2, "UNIDIRECTIONAL_SEQUENCE_LSTM": 1}, "custom": {}}
    nodes = {"encode": {"LSTM": 2, "Add": 3}, "translate": {"Loop": 1}}
    words = {"saved_model": {}, "tflite": counts, "onnx": nodes, "npu": {"encode_0": counts["builtin"]}}
    found = {name: table.by_name(name).summary(operators) for name, operators in words.items()}
    assert found == {
        "saved_model": "TensorFlow",
        "tflite": "2 kinds, all built-in, no Flex, 1 fused LSTM",
        "onnx": "encode: 2 LSTM, 0 GRU, 0 Loop; translate: 0 LSTM, 0 GRU, 1 Loop",
        "npu": "1 graphs in int8, no Flex, 1 fused LSTM",
    }
    titles = {name: list(table.by_name(name).operator_counts(operators)) for name, operators in words.items()}
    assert titles == {
        "saved_model": [],
        "tflite": ["tflite"],
        "onnx": ["onnx encode", "onnx translate"],
        "npu": ["npu encode_0"],
    }
