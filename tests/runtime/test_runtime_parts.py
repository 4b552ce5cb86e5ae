"""The runtime around its graphs: words that are copied, the host part of the NPU format, lengths for OpenVINO."""

import pathlib
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from keras_attention.export import runtime
from keras_attention.export.formats.runtime_copy import SOURCE, copy_runtime
from keras_attention.export.runtime.backends.npu import Npu
from keras_attention.export.runtime.backends.openvino import OpenVino
from keras_attention.export.runtime.command import read_lines
from keras_attention.ranges import RANGES

SPECIAL = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}


@pytest.fixture
def words(tmp_path: pathlib.Path) -> runtime.Tokenizer:
    (tmp_path / "words.json").write_text('{"kind": "word", "vocabulary": ["", "", "", "?", "a", "b"]}')
    return runtime.Tokenizer(tmp_path / "words.json", SPECIAL)


def test_words_to_copy_have_an_id_each(words: runtime.Tokenizer) -> None:
    """In the order in which they come, each once, as many as there is room for."""
    text = "x a y x z b y"
    assert words.encode(text) == [3, 4, 3, 3, 3, 5, 3]
    assert words.copied(text, 5) == ["x", "y", "z"]
    assert words.copied(text, 2) == ["x", "y"]
    assert words.copied(text, 0) == []
    assert words.encode_source(text, ["x", "y"]) == [6, 4, 7, 6, 3, 5, 7]
    assert words.encode_source(text, []) == words.encode(text)
    assert words.decode([7, 4, 6, 2, 0], ["x", "y"]) == "y a x"
    assert words.decode([7, 4, 8], ["x"]) == "a"
    assert words.tokens([7, 8, 3], ["x", "y"]) == ["y", "?", "?"]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"\xef\xbb\xbfa\r\r\n", ["a"]),
        (b"", []),
        (b"\n", [""]),
        (b"a\r\nb\n", ["a", "b"]),
        (b"a\n\n", ["a", ""]),
        (b"\xc3\xa9 \n", ["é "]),
    ],
)
def test_lines_of_a_text(content: bytes, lines: list[str]) -> None:
    assert read_lines(content) == lines


EMBEDDED, UNITS, ROOM = 4, 3, 7


class FloatNpu(Npu):
    """The host part over graphs in float64: recurrences that do not stop at padding, and a step that hands all on."""

    def __init__(self, **entry: Any):
        generator = np.random.default_rng(3)
        defaults = {"source_length": ROOM, "encoder_layers": 2, "bidirectional": True, "residual": True}
        defaults |= {"bridge_input": "mean", "attends": True, "feeding": 5, "mask_bias": -9.0}
        self.entry = defaults | entry
        directions = 1 + self.entry["bidirectional"]
        depths = [EMBEDDED, directions * UNITS]
        self.kernels = [generator.normal(size=(directions, depth, UNITS)) for depth in depths]
        sizes = {"source": 13, "target": 11}
        self.tables = {side: generator.normal(size=(size, EMBEDDED)).astype(np.float32) for side, size in sizes.items()}
        self.given: dict[str, Mapping[str, np.ndarray]] = {}

    def recurrence(self, layer: int, direction: int, row: np.ndarray) -> np.ndarray:
        states, state = [], np.zeros(UNITS)
        for value in row:
            state = np.tanh(value @ self.kernels[layer][direction] + 0.5 * state + 0.1)
            states.append(state)
        return np.array(states)

    def call(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.given[graph] = inputs
        if graph.startswith("encode"):
            layer = int(graph.removeprefix("encode_"))
            pairs = enumerate(inputs.items())
            return {f"{name}_states": self.recurrence(layer, number, rows[0])[None] for number, (name, rows) in pairs}
        if graph == "start":
            return {"state_h_0": inputs["summary"], "keys": 2.0 * inputs["values"]}
        scores = np.arange(1.0, ROOM + 1)[None] + inputs["mask_bias"]
        return {
            "logits": inputs["embedded"] * 3.0 + 400.0,
            "next_state_h_0": inputs["state_h_0"] + 1.0,
            "alignment": np.exp(scores) / np.exp(scores).sum(),
        }

    def by_hand(self, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Values and the bridge's summary of one row, of its words alone."""
        values = self.tables["source"][ids].astype(np.float64)
        for layer in range(self.entry["encoder_layers"]):
            ends = [self.recurrence(layer, 0, values)]
            if self.entry["bidirectional"]:
                ends.append(self.recurrence(layer, 1, values[::-1]))
            both = np.concatenate([ends[0], *(one[::-1] for one in ends[1:])], axis=1)
            values = both + values if self.entry["residual"] and layer else both
        final = np.concatenate([one[-1] for one in ends])
        return values, final if self.entry["bridge_input"] == "final" else values.mean(axis=0)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"bridge_input": "final"},
        {"bridge_input": "final", "bidirectional": False},
        {"residual": False, "feeding": 0},
        {"encoder_layers": 1},
    ],
    ids=str,
)
def test_the_host_part_of_the_npu_target(entry: dict[str, Any]) -> None:
    """Rows of a batch by themselves; what lies behind a row's end reaches neither its values nor its summary."""
    rows = [[4, 7, 12, 2], [5, 2], [9, 8, 7, 6, 5, 4, 2]]
    source = np.zeros((3, 9), np.int32)
    for line, row in zip(source, rows, strict=True):
        line[: len(row)] = row
    npu = FloatNpu(**entry)
    encoded = npu.run("encode", {"source_ids": source})
    assert encoded["memory_mask"].tolist() == (source != 0).tolist()
    for number, row in enumerate(rows):
        values, summary = npu.by_hand(row)
        n = len(row)
        # Embedded words are float32, and what comes of them float64.
        np.testing.assert_allclose(encoded["memory_values"][number, :n], values, atol=1e-6)
        np.testing.assert_allclose(encoded["state_h_0"][number], summary, atol=1e-6)  # likewise
        assert not encoded["memory_values"][number, n:].any()
        np.testing.assert_array_equal(encoded["memory_keys"][number], 2 * encoded["memory_values"][number])
    assert ("state_attentional" in encoded) == bool(npu.entry["feeding"])
    assert not encoded.get("state_attentional", np.zeros(1)).any()
    with pytest.raises(runtime.ArtefactError, match=r"Expected: at most 7 tokens with EOS\. Received: 8"):
        npu.run("encode", {"source_ids": np.array([[4] * 8])})


def test_a_step_of_the_npu_target() -> None:
    npu = FloatNpu(feeding=0)
    source = np.array([[4, 7, 12, 2, 0, 0, 0, 0, 0], [5, 2, 0, 0, 0, 0, 0, 0, 0]], np.int32)
    encoded = npu.run("encode", {"source_ids": source})
    found = npu.run("decode_step", {"token_ids": np.array([6, 10]), **encoded})
    for row, (token, n) in enumerate(((6, 4), (10, 2))):
        logits = npu.tables["target"][token].astype(np.float64) * 3.0
        # float32 logits around 400 are exact to 3e-5.
        np.testing.assert_allclose(found["log_probs"][row], logits - np.log(np.exp(logits).sum()), atol=1e-4)
        weights = np.where(np.arange(9) < n, np.exp(np.arange(1.0, 10)), 0.0)
        np.testing.assert_allclose(found["alignment"][row], weights / weights.sum(), rtol=1e-5)  # float32
        np.testing.assert_array_equal(found["next_state_h_0"][row], encoded["state_h_0"][row] + 1.0)
    assert npu.given["decode_step"]["mask_bias"].tolist() == [[0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -9.0]]


def test_numbers_become_int8_by_rounding() -> None:
    """Halves to the even step, what is out of range to its end."""
    detail = {"x": {"quantization": (0.5, 3)}}
    npu = FloatNpu()
    npu.runners = {"graph": types.SimpleNamespace(get_input_details=lambda: detail)}
    given = np.array([0.0, 0.24, 0.26, -0.26, 0.75, 1e3, -1e3], np.float32)
    (found,) = npu.quantised("graph", {"x": given}).values()
    assert found.dtype == np.int8
    assert found.tolist() == [3, 3, 4, 2, 5, 127, -128]


class Watched(OpenVino):
    """Sums over each row and the rows themselves, as a graph that must not see rows of two lengths at once would."""

    def _run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        source, weight = inputs["source_ids"], inputs["weight"]
        self.seen.append(source.tolist())
        return {"total": source.sum(axis=1) * weight, "each": 2 * source, "shape": np.full((len(source), 1), weight)}


@pytest.mark.parametrize(
    ("members", "apart"),
    [
        ([("lstm", "copy")], True),
        ([("gru", "copy")], False),
        ([("lstm", "dense")], False),
        ([("gru", "copy"), ("lstm", "copy")], True),
        ([], False),
    ],
)
def test_rows_of_each_length_alone_for_openvino(
    members: list[tuple[str, str]], apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one member hands its cell states over; and results come back in the order of the rows."""
    monkeypatch.setitem(sys.modules, "openvino", types.SimpleNamespace(Core=object))
    outputs = {
        "total": {"axes": ["batch"]},
        "each": {"axes": ["batch", "source_length"]},
        "shape": {"axes": ["batch", 1]},
    }
    inputs = {"source_ids": {"axes": ["batch", "source_length"]}, "weight": {"axes": []}}
    described = [{"cell": cell, "bridge": bridge} for cell, bridge in members]
    backend = Watched(
        pathlib.Path(), {"members": described, "signatures": {"g": {"inputs": inputs, "outputs": outputs}}}, None
    )
    backend.seen: list[Any] = []
    source = np.array([[4, 5, 2, 0], [5, 2, 0, 0], [7, 8, 9, 2], [6, 2, 0, 0]], np.int32)
    found = backend.run("g", {"source_ids": source, "weight": np.array(3)})
    assert backend.seen == ([[[5, 2], [6, 2]], [[4, 5, 2]], [[7, 8, 9, 2]]] if apart else [source.tolist()])
    assert found["total"].tolist() == [33, 21, 78, 24]
    assert found["each"].tolist() == (2 * source).tolist()
    assert found["shape"].tolist() == [[3]] * 4


@pytest.mark.parametrize(
    ("formats", "backends"),
    [
        (["tflite"], {"litert"}),
        (["saved_model", "onnx"], {"onnx_runtime", "openvino"}),
        (["npu"], {"npu"}),
        (["saved_model"], set()),
    ],
)
def test_an_artefact_gets_the_backends_of_its_formats(
    formats: list[str], backends: set[str], tmp_path: pathlib.Path
) -> None:
    """Each other module of the folder, and nothing that Python cached."""
    copy_runtime(tmp_path, formats)
    copied = {path.relative_to(tmp_path / "runtime").as_posix() for path in (tmp_path / "runtime").rglob("*.*")}
    modules = {path.name for path in SOURCE.glob("*.py")}
    assert copied == {*modules, "backends/__init__.py", *(f"backends/{name}.py" for name in backends)}


def test_the_runtime_has_the_ranges_of_the_library() -> None:
    """It stands alone in an artefact, so that it holds the two numbers once more."""
    assert (RANGES["beam_size"][2], RANGES["threads"][2]) == (runtime.WIDEST, runtime.MOST_THREADS)
