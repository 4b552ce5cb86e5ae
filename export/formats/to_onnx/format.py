"""ONNX, run by ONNX Runtime: one checked file for each graph."""

import contextlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_attention.text.tokenizers import Tokenizer

from ...graphs import gru, loops, lstm_lengths
from ...graphs.graph import Graph
from ...graphs.knobs import knobs_of
from ...parity.structure import Ports
from ...plan import Plan
from ...request import Request
from .. import converter
from ..base import Contents, Conversion, Format, TextReader
from ..host_search import check_host_search
from ..runtime_copy import copy_web
from ..saved_model import write_saved_model
from . import convert as to_onnx
from . import int8_plan as static_int8
from . import text as onnx_text
from .contents import QUANTISED_LSTM, operator_failures, signature


class Onnx(Format):
    """One ONNX file for each graph, and optionally one that reads sentences."""

    name = "onnx"
    precisions = ("float32", "float16", "dynamic_int8", "int8")
    interpreter = "ONNX Runtime"
    names_axes = True
    text_file = onnx_text.FILE
    order = 1  # before TFLite: this converter takes longest, and runs while the next format is traced

    def check(self, request: Request) -> None:
        if request.precision == "int8":
            check_host_search(request.settings)

    def check_tokenizers(self, tokenizers: tuple[Tokenizer, Tokenizer] | None) -> None:
        onnx_text.check_tokenizers(tokenizers)

    def describe(self, plan: Plan, request: Request) -> dict[str, Any]:
        graphs = static_int8.chosen(plan.graphs) if request.precision == "int8" else plan.graphs
        names = [graph.name for graph in graphs]
        return {"files": {name: f"onnx/{name}.onnx" for name in names}, "signatures": names}

    def convert(self, conversion: Conversion) -> None:
        plan, request, work, stage = conversion.plan, conversion.request, conversion.work, conversion.stage
        told = lstm_lengths.needed(conversion.manifest.get("members", []))
        if request.precision == "int8":
            static_int8.check(plan)
            conversion.say("converting to ONNX, and calibrating")
            write_layers(plan, static_int8.chosen(plan.graphs), work / "layers", told)
            static_int8.write(plan, request.calibration or (), conversion.manifest, stage, work)
        else:
            conversion.say("converting to ONNX")
            layers = conversion.layers
            if told or layers is None:
                layers = work / "layers"
                write_layers(plan, plan.graphs, layers, told)
            arguments = (layers, stage / "onnx", list(plan.graphs), work, request.precision, told)
            conversion.start(converter.convert_to_onnx, *arguments)
        add_page(plan, stage)

    def finish(self, conversion: Conversion) -> None:
        if conversion.request.text:
            write_text(conversion.plan, conversion.stage)
            conversion.manifest["formats"][self.name]["text_file"] = onnx_text.FILE

    def contents(self, directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
        import onnx

        signatures: dict[str, Ports] = {}
        found = Contents({}, signatures)
        configs, precision = manifest.get("members", []), manifest["precision"]
        for name, file in manifest["formats"][self.name]["files"].items():
            model = onnx.load(str(directory / file))
            onnx.checker.check_model(model, full_check=True)
            signatures[name] = signature(model)
            found.operators[name] = to_onnx.operators(model.graph)
            found.failures += operator_failures(name, found.operators[name], configs, precision)
        if found.operators.get("encode", {}).get("Loop"):
            found.warnings.append(
                "onnx: `encode` holds a Loop (an LSTM with layer normalisation, or a copy bridge over features): slow, "
                "and not every ONNX runtime has it"
            )
        return found

    def open_text(self, path: pathlib.Path) -> tuple[TextReader | None, list[str]]:
        onnx_text.require_extensions()
        return onnx_text.TextSession(path), []

    def summary(self, operators: Mapping[str, Any]) -> str:
        return "; ".join(
            f"{name}: {counts.get('LSTM', 0) + counts.get(QUANTISED_LSTM, 0)} LSTM, {counts.get('GRU', 0)} GRU, "
            f"{counts.get('Loop', 0)} Loop"
            for name, counts in operators.items()
        )


def write_layers(plan: Plan, graphs: Sequence[Graph], folder: pathlib.Path, unmasked: bool = False) -> None:
    """Write a SavedModel whose recurrent layers ONNX has nodes for; `unmasked`: see `lstm_lengths`."""
    masks = lstm_lengths.unmasked(plan.model) if unmasked else contextlib.nullcontext()
    with loops.without_cudnn(plan.model), gru.recognised(plan.model), masks:
        write_saved_model(folder, graphs)


def add_page(plan: Plan, stage: pathlib.Path) -> None:
    """Copy the JavaScript runtime and its page beside ONNX files of a translator that they can run."""
    net = plan.net
    if net is not None and net.source_features is None and net.config.copy_words is None:
        copy_web(stage)


def write_text(plan: Plan, stage: pathlib.Path) -> None:
    """Derive the file for text from the one for ids."""
    import onnx

    assert plan.net is not None
    assert plan.tokenizers is not None
    model = onnx.load(str(stage / "onnx" / "translate.onnx"))
    onnx.save(
        onnx_text.add_text(model, plan.tokenizers, knobs_of(plan.settings, plan.net)), str(stage / onnx_text.FILE)
    )
