"""SavedModel, run by TensorFlow; takes sentences itself if there are tokenizers."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...graphs import gru, loops
from ...graphs import tokenizers as text_graph
from ...graphs.graph import Graph
from ...graphs.knobs import knobs_of
from ...parity.structure import Ports
from ...plan import Plan
from ...request import Request
from ..base import Contents, Conversion, Format, graph_names
from ..plain_paths import is_pattern, plain_path
from ..saved_model import write_saved_model

TEXT = "translate_text"


class SavedModel(Format):
    """One SavedModel, with every graph as a signature."""

    name = "saved_model"
    aliases = ("savedmodel",)
    interpreter = "TensorFlow"
    order = 0

    def warnings(self, output: pathlib.Path) -> list[str]:
        if not is_pattern(output):
            return []
        return ["saved_model: TensorFlow takes one of []*?\\ in the path for a pattern: move the folder to load it"]

    def describe(self, plan: Plan, request: Request) -> dict[str, Any]:
        names = graph_names(plan)
        return {"folder": "saved_model", "signatures": [*names, TEXT] if reads_text(plan) else names}

    def convert(self, conversion: Conversion) -> None:
        conversion.say("writing the SavedModel")
        plan, folder = conversion.plan, conversion.stage / "saved_model"
        text, resources = text_graphs(plan)
        for graph in text:
            conversion.manifest["signatures"][graph.name] = graph.to_dict()
        with loops.without_cudnn(plan.model), gru.recognised(plan.model):
            write_saved_model(folder, [*text, *plan.graphs], resources)
        if not text:  # the converters do not support operators on text
            conversion.layers = folder

    def contents(self, directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
        found = signatures(self.open(directory, manifest).loaded)
        found.pop("serving_default", None)
        return Contents({}, found)

    def open(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None = None) -> "Interpreter":
        return Interpreter(directory / manifest["formats"][self.name]["folder"])

    def summary(self, operators: Mapping[str, Any]) -> str:
        return "TensorFlow"


class Interpreter:
    """A SavedModel, run like the interpreters of the standalone runtime."""

    format = "saved_model"

    def __init__(self, folder: pathlib.Path):
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  registers the operators of `translate_text`

        with plain_path(folder) as plain:
            self.loaded = tf.saved_model.load(str(plain))
        self.constant = tf.constant

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        outputs = self.loaded.signatures[signature](**{name: self.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}


def signatures(loaded: Any) -> dict[str, Ports]:
    """Return the signatures of a loaded SavedModel."""

    def ports(specs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {"dtype": spec.dtype.name, "axes": None if spec.shape.rank is None else spec.shape.as_list()}
            for name, spec in specs.items()
        }

    return {
        name: {
            "inputs": ports(signature.structured_input_signature[1]),
            "outputs": ports(signature.structured_outputs),
        }
        for name, signature in loaded.signatures.items()
    }


def reads_text(plan: Plan) -> bool:
    """Return whether the graph `translate_text` is possible: with tokenizers, without copied words or sampling."""
    if plan.net is None or plan.tokenizers is None or plan.net.config.copy_words is not None:
        return False
    return plan.settings.method != "sample"


def text_graphs(plan: Plan) -> tuple[list[Graph], list[Any]]:
    """Return `translate_text`, if possible, and its resources."""
    if not reads_text(plan):
        return [], []
    assert plan.net is not None
    assert plan.tokenizers is not None
    source, target = (text_graph.graph_tokenizer(tokenizer) for tokenizer in plan.tokenizers)
    knobs = knobs_of(plan.settings, plan.net)
    graph = text_graph.text_graph(plan.graphs[-1], source, target, knobs, plan.net.max_source_length)
    return [graph], [*source.resources, *target.resources]
