"""The NPU format: int8 TFLite files of static graphs, with the search on the host."""

import pathlib
from collections.abc import Mapping
from typing import Any

from ...parity.cases import Case, Reference
from ...parity.parity import Parity
from ...plan import Plan, source_rows
from ...request import Request
from ..base import Contents, Conversion, Format
from ..to_tflite import fused_lstm
from . import convert as npu
from . import verify_npu


class Npu(Format):
    """Files for an Ethos-U and TensorFlow Lite Micro, tables for the host, and their protocol."""

    name = "npu"
    precisions = ("int8",)
    interpreter = "LiteRT, host loop"
    by_default = False  # few models fit, and calibration text is required
    static = True

    def check(self, request: Request) -> None:
        npu.check(request.model, request.settings)

    def describe(self, plan: Plan, request: Request) -> dict[str, Any]:
        return npu.describe(plan, request.source_length)

    def convert(self, conversion: Conversion) -> None:
        plan, manifest, length = conversion.plan, conversion.manifest, conversion.request.source_length
        assert plan.net is not None
        conversion.say("calibrating, and converting to int8")
        manifest["max_source_length"] = min(length, manifest["max_source_length"] or length)
        rows, _, _ = source_rows(plan.net, plan.tokenizers, conversion.request.calibration or (), length)
        entry = manifest["formats"][self.name]
        entry["mask_bias"] = npu.write(plan, rows, manifest, conversion.stage, conversion.work)
        entry["graphs"] = npu.describe_graphs(entry, conversion.stage)

    def contents(self, directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
        return verify_npu.contents(directory, manifest)

    def compares(self, case: Case) -> bool:
        # Single graphs have other shapes there, and a search for each changed knob takes long.
        return case.margins is not None and case.counted

    def try_out(
        self, directory: pathlib.Path, manifest: Mapping[str, Any], backend: Any, cases: Reference, parity: Parity
    ) -> None:
        verify_npu.check_reset(backend, cases, parity)
        verify_npu.try_tools(directory, manifest, cases, parity)

    def summary(self, operators: Mapping[str, Any]) -> str:
        fused = sum(counts.get(fused_lstm.OPERATOR, 0) for counts in operators.values())
        return f"{len(operators)} graphs in int8, no Flex, {fused} fused LSTM"
