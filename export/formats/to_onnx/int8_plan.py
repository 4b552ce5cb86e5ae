"""ONNX in int8: requirements of a model and a search, and quantisation by recorded decoding."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError

from ...graphs import lstm_lengths
from ...graphs.graph import Graph
from ...plan import Plan, source_rows
from .. import converter as conversion
from ..calibration import check_rows, record
from . import int8 as onnx_int8

GRAPHS = ("encode", "decode_step")
"""Graphs that become int8; not `translate`: the quantiser sees no ranges inside of a loop."""


class Recorder:
    """The float32 files as the host loop runs them, with the inputs of each recorded."""

    format = "onnx"

    def __init__(self, folder: pathlib.Path, manifest: Mapping[str, Any]):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        files = {name: str(folder / f"{name}.onnx") for name in GRAPHS}
        providers = ["CPUExecutionProvider"]
        self.sessions = {
            name: onnxruntime.InferenceSession(file, options, providers=providers) for name, file in files.items()
        }
        self.outputs = {name: list(manifest["signatures"][name]["outputs"]) for name in GRAPHS}
        self.records: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in GRAPHS}

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.records[signature].append(dict(inputs))
        names = self.outputs[signature]
        return dict(zip(names, self.sessions[signature].run(names, dict(inputs)), strict=True))


def check(plan: Plan) -> None:
    """Raise UserError unless the plan is for a translator."""
    if plan.net is None:
        raise UserError("int8 takes its ranges from translating. Expected: a translator of build_seq2seq")


def chosen(graphs: Sequence[Graph]) -> list[Graph]:
    """Return the graphs that become int8."""
    return [graph for graph in graphs if graph.name in GRAPHS]


def write(
    plan: Plan, calibration: Sequence[Any], manifest: Mapping[str, Any], stage: pathlib.Path, work: pathlib.Path
) -> None:
    """Convert the SavedModel in `work`/layers to float32 files, translate sentences with them, write int8.

    Raises:
        UserError: if too few of the sentences are short enough.
        ConversionError: if a converter fails.
    """
    assert plan.net is not None
    rows, _, _ = source_rows(plan.net, plan.tokenizers, calibration)
    check_rows(rows, plan.net.max_source_length)
    told = lstm_lengths.needed(manifest["members"])
    conversion.convert_to_onnx(work / "layers", work / "float", chosen(plan.graphs), work, tell_lengths=told)
    recorder = Recorder(work / "float", manifest)
    record(recorder, manifest, rows)
    (work / "calls").mkdir()
    for name, calls in recorder.records.items():
        onnx_int8.write_calls(work / "calls" / f"{name}.npz", calls)
    (stage / "onnx").mkdir()
    arguments = [str(work / "float"), str(stage / "onnx"), str(work / "calls"), *GRAPHS]
    conversion.run_converter("ONNX", onnx_int8.__name__, arguments, stage / "onnx")
