"""Write the files of an artefact: those of every format, the tokenizers, the runtimes, and the manifest of all."""

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from .. import manifest as artefact
from .. import runtime
from ..graphs import gru, loops, lstm_lengths
from ..graphs.graph import Graph
from ..plan import Plan, source_rows
from . import converter as conversion
from .runtime_copy import copy_runtime, copy_web
from .saved_model import write_saved_model
from .text_inside import text_graphs, write_litert_text, write_onnx_text
from .to_npu import convert as npu
from .to_onnx import int8_plan as static_int8
from .to_onnx import text as onnx_text
from .to_tflite import int8_embeddings
from .to_tflite import text as litert_text

Progress = Callable[[str], None]


def begin_manifest(
    plan: Plan, formats: Sequence[str], precision: str, stage: pathlib.Path, text: bool = False
) -> dict[str, Any]:
    """The part of a manifest that every artefact has; writes the tokenizers and the runtime of a translator."""
    graphs = list(plan.graphs)
    manifest: dict[str, Any] = {
        "format_version": runtime.FORMAT_VERSION,
        "kind": "model" if plan.net is None else "translator",
        "precision": precision,
        "versions": artefact.versions(),
        "formats": artefact.describe_formats(formats, graphs, text),
        "signatures": {graph.name: graph.to_dict() for graph in graphs},
    }
    if plan.net is not None:
        files = {}
        for side, tokenizer in zip(("source", "target"), plan.tokenizers or (), strict=False):
            files[side] = tokenizer.save(stage, side)
        manifest |= artefact.describe_translator(plan.net, graphs, plan.settings, plan.tokenizers, files)
        copy_runtime(stage, formats)
    return manifest


def convert_for_npu(
    plan: Plan,
    calibration: Sequence[Any],
    source_length: int,
    stage: pathlib.Path,
    work: pathlib.Path,
    say: Progress,
) -> dict[str, Any]:
    """Write the files of the NPU target, the tokenizers and the runtime; returns the manifest."""
    assert plan.net is not None
    manifest = begin_manifest(plan, ["npu"], "int8", stage)
    manifest["formats"] = {"npu": npu.describe(plan, source_length)}
    manifest["max_source_length"] = min(source_length, manifest["max_source_length"] or source_length)
    say("calibrating, and converting to int8")
    rows, _, _ = source_rows(plan.net, plan.tokenizers, calibration, source_length)
    entry = manifest["formats"]["npu"]
    entry["mask_bias"] = npu.write(plan, rows, manifest, stage, work)
    entry["graphs"] = npu.describe_graphs(entry, stage)
    return artefact.complete(manifest, stage)


def convert_to_int8(
    plan: Plan, calibration: Sequence[Any], stage: pathlib.Path, work: pathlib.Path, say: Progress
) -> dict[str, Any]:
    """Write the int8 ONNX files, the tokenizers and the runtimes; returns the manifest."""
    static_int8.check(plan)
    manifest = begin_manifest(plan, ["onnx"], "int8", stage)
    manifest["formats"] = artefact.describe_formats(["onnx"], static_int8.chosen(plan.graphs), False)
    add_page(plan, stage)
    say("converting to ONNX, and calibrating")
    write_layers(plan, static_int8.chosen(plan.graphs), work / "layers", lstm_lengths.needed(manifest["members"]))
    static_int8.write(plan, calibration, manifest, stage, work)
    return artefact.complete(manifest, stage)


def write_layers(plan: Plan, graphs: Sequence[Graph], folder: pathlib.Path, unmasked: bool = False) -> None:
    """A SavedModel whose recurrent layers ONNX has nodes for; `unmasked`: see `lstm_lengths`."""
    masks = lstm_lengths.unmasked(plan.model) if unmasked else contextlib.nullcontext()
    with loops.without_cudnn(plan.model), gru.recognised(plan.model), masks:
        write_saved_model(folder, graphs)


def add_page(plan: Plan, stage: pathlib.Path) -> None:
    """Lay the runtime and the page in JavaScript beside ONNX files of a translator that they can run."""
    net = plan.net
    if net is not None and net.source_features is None and net.config.copy_words is None:
        copy_web(stage)


def convert(
    plan: Plan,
    formats: Sequence[str],
    stage: pathlib.Path,
    work: pathlib.Path,
    say: Progress,
    precision: str = "float32",
    text_inside: bool = False,
) -> dict[str, Any]:
    """Write the files of every format, the tokenizers and the runtime; returns the manifest, complete with them."""
    graphs = list(plan.graphs)
    text = text_graphs(plan)
    manifest = begin_manifest(plan, formats, precision, stage, bool(text))
    if "onnx" in formats:
        add_page(plan, stage)
    if "saved_model" in formats:
        say("writing the SavedModel")
        for graph, _ in text:
            manifest["signatures"][graph.name] = graph.to_dict()
        resources = [resource for _, used in text for resource in used]
        with loops.without_cudnn(plan.model), gru.recognised(plan.model):
            write_saved_model(stage / "saved_model", [*(graph for graph, _ in text), *graphs], resources)
    with conversion.background() as start:
        if "onnx" in formats:
            say("converting to ONNX")
            layers, told = stage / "saved_model", lstm_lengths.needed(manifest.get("members", []))
            if text or told or "saved_model" not in formats:  # the converter knows no operators on text
                layers = work / "layers"
                write_layers(plan, graphs, layers, told)
            start(conversion.convert_to_onnx, layers, stage / "onnx", graphs, work, precision, told)
        if "tflite" in formats:
            say("converting to TFLite")
            with contextlib.ExitStack() as stack:
                if plan.net is None:
                    stack.enter_context(loops.stepped(plan.model))
                if precision == "dynamic_int8":
                    stack.enter_context(int8_embeddings.int8_lookups(plan.model))
                write_saved_model(work / "loops", plan.stepped_graphs)
                if text_inside:
                    write_litert_text(plan, work / "text")
            names = [graph.name for graph in graphs]
            start(conversion.convert_to_tflite, work / "loops", stage / "model.tflite", names, precision)
            if text_inside:
                names = ["translate_text"]
                start(conversion.convert_to_tflite, work / "text", stage / litert_text.FILE, names, precision, True)
                manifest["formats"]["tflite"]["text_file"] = litert_text.FILE
    if text_inside and "onnx" in formats:
        write_onnx_text(plan, stage)
        manifest["formats"]["onnx"]["text_file"] = onnx_text.FILE
    return artefact.complete(manifest, stage)
