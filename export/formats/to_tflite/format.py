"""TFLite, run by LiteRT: one file with a signature for each graph, built-in operators only."""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import Tokenizer

from ...graphs import loops
from ...graphs.knobs import knobs_of
from ...plan import Plan
from ...request import Request
from .. import converter
from ..base import Contents, Conversion, Format, TextReader, graph_names
from ..saved_model import write_saved_model
from . import fused_lstm, int8_embeddings
from . import text as litert_text
from .contents import operator_failures, operators, signatures


class TFLite(Format):
    """One TFLite file, and optionally one that reads sentences."""

    name = "tflite"
    aliases = ("litert",)
    precisions = ("float32", "float16", "dynamic_int8")
    interpreter = "LiteRT"
    text_file = litert_text.FILE

    def check(self, request: Request) -> None:
        if request.precision == "float16":
            check_float16(request.model)

    def check_tokenizers(self, tokenizers: tuple[Tokenizer, Tokenizer] | None) -> None:
        litert_text.check_tokenizers(tokenizers)

    def describe(self, plan: Plan, request: Request) -> dict[str, Any]:
        return {"file": "model.tflite", "signatures": graph_names(plan)}

    def convert(self, conversion: Conversion) -> None:
        plan, request, work, stage = conversion.plan, conversion.request, conversion.work, conversion.stage
        conversion.say("converting to TFLite")
        with contextlib.ExitStack() as stack:
            if plan.net is None:
                stack.enter_context(loops.stepped(plan.model))
            if request.precision == "dynamic_int8":
                stack.enter_context(int8_embeddings.int8_lookups(plan.model))
            write_saved_model(work / "loops", plan.stepped_graphs)
            if request.text:
                write_text(plan, work / "text")
        entry = conversion.manifest["formats"][self.name]
        files, names = (work / "loops", stage / entry["file"]), graph_names(plan)
        conversion.start(converter.convert_to_tflite, *files, names, request.precision)
        if request.text:
            files, names = (work / "text", stage / litert_text.FILE), ["translate_text"]
            conversion.start(converter.convert_to_tflite, *files, names, request.precision, True)
            entry["text_file"] = litert_text.FILE

    def contents(self, directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
        path = directory / manifest["formats"][self.name]["file"]
        counts = operators(path)
        return Contents(counts, signatures(path), operator_failures(counts))

    def open_text(self, path: pathlib.Path) -> tuple[TextReader | None, list[str]]:
        custom, known = set(operators(path)["custom"]), litert_text.OPERATORS
        if custom - known:
            return None, [f"tflite text: operators. Expected: {sorted(known)}. Received: {sorted(custom)}"]
        return litert_text.TextInterpreter(path), []

    def summary(self, operators: Mapping[str, Any]) -> str:
        fused = operators["builtin"].get(fused_lstm.OPERATOR, 0)
        return f"{len(operators['builtin'])} kinds, all built-in, no Flex, {fused or 'no'} fused LSTM"

    def operator_counts(self, operators: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
        return {self.name: operators["builtin"]}


def check_float16(model: Any) -> None:
    """Raise `UserError` for a weight that a float16 TFLite file would change to another number."""
    most, least = (float(bound) for bound in (np.finfo(np.float16).max, np.finfo(np.float16).tiny))
    for weight in getattr(model, "weights", ()):
        values = np.asarray(weight)
        if values.dtype.kind != "f" or not values.size:
            continue
        largest = float(np.abs(values).max())
        if not largest <= most:
            fault, bound = "too large", f"at most {most:g}"
        elif 0 < largest < least:
            fault, bound = "too small", f"at least {least:.1g}"
        else:
            continue
        raise UserError(
            f"The weight {weight.path} is {fault} for float16. Expected: {bound} as its largest number. "
            f"Received: {largest:g}. Export in float32, or as ONNX alone (--to onnx)"
        )


def write_text(plan: Plan, folder: pathlib.Path) -> None:
    """Write the SavedModel that is converted to the file for text."""
    assert plan.net is not None
    assert plan.tokenizers is not None
    knobs = knobs_of(plan.settings, plan.net)
    graph = litert_text.text_graph(plan.stepped_graphs[-1], plan.tokenizers, knobs, plan.net.max_source_length)
    write_saved_model(folder, [graph])
