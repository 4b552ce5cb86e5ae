"""Verification of the NPU format's int8 files: operators, types, the state of the fused LSTM, translations."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...parity.cases import Reference
from ...parity.parity import Parity
from ...runtime.backends.npu import Npu
from ..base import Contents
from ..to_tflite import convert as litert
from ..to_tflite import fused_lstm
from . import micro, vela

UNPLACED = ("CUSTOM", "WHILE", "GATHER", "GATHER_ND", "LOG_SOFTMAX", "REVERSE_V2", "REVERSE_SEQUENCE", "TOPK_V2")
"""Operators that no Ethos-U can place; a file that holds one breaks the format's guarantee."""

MICRO_STEPS = 8
"""Tolerance between the kernels of TensorFlow Lite Micro and LiteRT: they round differently, by at most 3 steps of 256
in measurements, and an LSTM accumulates such differences. A larger difference is another computation."""


def contents(directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
    """Return the operators of every file: one fused LSTM per direction of a layer, int8 at every input and output."""
    found = Contents({})
    check_operators(directory, manifest["formats"]["npu"], found)
    if not found.failures:
        check_types(Npu(directory, manifest, None), found)
    found.runnable = not found.failures
    return found


def check_operators(directory: pathlib.Path, entry: Mapping[str, Any], found: Contents) -> None:
    """Check for operators that an NPU places, fused LSTMs, and scales of cell states that LiteRT supports."""
    for name, file in entry["files"].items():
        content = (directory / file).read_bytes()
        counts = litert.operators(content)
        found.operators[name] = counts["builtin"] | counts["custom"]
        wrong = [*counts["custom"], *(kind for kind in UNPLACED if kind in counts["builtin"])]
        if wrong:
            found.failures.append(f"npu {name}: operators. Expected: none but an NPU's. Received: {', '.join(wrong)}")
        expected = (1 + entry["bidirectional"]) if name.startswith("encode") else 0
        received = counts["builtin"].get(fused_lstm.OPERATOR, 0)
        if received != expected:
            found.failures.append(f"npu {name}: fused LSTM. Expected: {expected}. Received: {received}")
        for scale in fused_lstm.cell_scales(content):
            if not fused_lstm.SMALLEST <= scale <= fused_lstm.LARGEST:
                bounds = f"{fused_lstm.SMALLEST:.3g} to {fused_lstm.LARGEST:.3g}, which LiteRT can compute"
                found.failures.append(f"npu {name}: scale of a cell state. Expected: {bounds}. Received: {scale:.3g}")


def check_types(backend: Any, found: Contents) -> None:
    """Check that inputs and outputs are int8."""
    for name, runner in backend.runners.items():
        for port, detail in (runner.get_input_details() | runner.get_output_details()).items():
            if detail["dtype"] is not np.int8:
                found.failures.append(f"npu {name}: type of {port}. Expected: int8. Received: {detail['dtype']}")


def check_reset(backend: Any, cases: Reference, parity: Parity) -> None:
    """Check that encoding a source twice gives equal results: the operator keeps its state, the runtime resets it."""
    first = next(case.inputs["source_ids"] for case in cases.of("translate"))[:1]
    once, again = (backend.run("encode", {"source_ids": first}) for _ in range(2))
    for name, value in once.items():
        if not np.array_equal(value, again[name]):
            parity.failures.append(f"npu encode: {name} differs in a second call: the LSTM's state was not reset")


class Watched(Npu):
    """The runtime's host part, which records the last int8 inputs and outputs of each graph."""

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None = None):
        super().__init__(directory, manifest, threads)
        self.seen: dict[str, tuple[dict[int, np.ndarray], list[np.ndarray]]] = {}

    def call(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = super().call(graph, inputs)
        interpreter, runner, given = self.interpreters[graph], self.runners[graph], self.quantised(graph, inputs)
        places = {detail["index"]: place for place, detail in enumerate(interpreter.get_input_details())}
        numbers = {name: places[detail["index"]] for name, detail in runner.get_input_details().items()}
        outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        self.seen[graph] = ({numbers[name]: value for name, value in given.items()}, outputs)
        return found


def try_tools(directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference, parity: Parity) -> None:
    """Try the files in Vela and TensorFlow Lite Micro, if installed; otherwise add a warning."""
    files = {name: directory / file for name, file in manifest["formats"]["npu"]["files"].items()}
    if vela.installed():
        parity.placements = vela.place(files)
        for placement in parity.placements:
            if placement.on_cpu:
                parity.warnings.append(
                    f"npu {placement.graph}: {placement.on_cpu} operators stay on the CPU of {placement.accelerator}"
                )
    else:
        parity.warnings.append("npu: not compiled, Vela is not installed: pip install 'keras-luong[npu]'")
    if not micro.installed():
        parity.warnings.append("npu: not tried in TensorFlow Lite Micro, pip install 'keras-luong[micro]'")
        return
    backend = Watched(directory, manifest)
    source = next(case.inputs["source_ids"] for case in cases.of("translate"))[:1]
    encoded = backend.run("encode", {"source_ids": source})
    backend.run("decode_step", {"token_ids": np.asarray([manifest["special_ids"]["bos"]], np.int32), **encoded})
    for name, (inputs, expected) in backend.seen.items():
        arena, (received, again) = micro.run(files[name], [inputs, inputs], len(expected))
        pairs = list(zip(received, expected, strict=True))
        steps = max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)
        parity.micro[name] = micro.MicroRun(arena, steps)
        if steps > MICRO_STEPS:
            parity.failures.append(
                f"npu {name}: LiteRT and TensorFlow Lite Micro disagree. Expected: at most {MICRO_STEPS} steps of "
                f"int8. Received: {steps}"
            )
        if not all(np.array_equal(one, twice) for one, twice in zip(received, again, strict=True)):
            parity.failures.append(f"npu {name}: another result in a second call of TensorFlow Lite Micro")
