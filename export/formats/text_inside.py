"""What an artefact holds for text in place of ids: which models can, and the files and graphs for it."""

import pathlib
from collections.abc import Sequence
from typing import Any

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer

from ..graphs import tokenizers as text_graph
from ..graphs.graph import Graph
from ..graphs.knobs import knobs_of
from ..plan import Members, Plan
from .saved_model import write_saved_model
from .to_onnx import text as onnx_text
from .to_tflite import text as litert_text

DEFAULTS = SearchPolicy()


def check_text(
    formats: Sequence[str],
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
    model: Any,
    settings: SearchPolicy = DEFAULTS,
) -> None:
    """Raises UserError where no file can read sentences: another format, other tokenizers, copied words, samples."""
    if settings.method == "sample":
        raise UserError("A text file has no input for numbers to draw by. Expected: another method, or no text inside")
    checks = {"tflite": litert_text.check_tokenizers, "onnx": onnx_text.check_tokenizers}
    chosen = [checks[name] for name in formats if name in checks]
    if not chosen:
        raise UserError(
            "Text inside is an option for TFLite and ONNX; the SavedModel has it always. "
            f"Expected: one of them among the formats. Received: {', '.join(formats)}"
        )
    for check in chosen:
        check(tokenizers)
    try:
        net = model.ensemble if isinstance(model, Members) else EncoderDecoder(model)
        copies = net.config.copy_words
    except ValueError:
        raise UserError("Only a translator reads text. Expected: a model of build_seq2seq, or no text inside") from None
    if copies is not None:
        raise UserError("A model that copies words reads ids of each text's own. Expected: no text inside for it")


def write_litert_text(plan: Plan, folder: pathlib.Path) -> None:
    """The SavedModel that becomes the file for text."""
    assert plan.net is not None
    assert plan.tokenizers is not None
    knobs = knobs_of(plan.settings, plan.net)
    graph = litert_text.text_graph(plan.stepped_graphs[-1], plan.tokenizers, knobs, plan.net.max_source_length)
    write_saved_model(folder, [graph])


def write_onnx_text(plan: Plan, stage: pathlib.Path) -> None:
    """The ONNX file for text, from the one for ids."""
    import onnx

    assert plan.net is not None
    assert plan.tokenizers is not None
    model = onnx.load(str(stage / "onnx" / "translate.onnx"))
    onnx.save(
        onnx_text.add_text(model, plan.tokenizers, knobs_of(plan.settings, plan.net)), str(stage / onnx_text.FILE)
    )


def text_graphs(plan: Plan) -> list[tuple[Graph, list[Any]]]:
    """`translate_text` and the resources it holds: where there are tokenizers, no words of a text's own, no draws."""
    if plan.net is None or plan.tokenizers is None or plan.net.config.copy_words is not None:
        return []
    if plan.settings.method == "sample":
        return []
    source, target = (text_graph.graph_tokenizer(tokenizer) for tokenizer in plan.tokenizers)
    graph = text_graph.text_graph(
        plan.graphs[-1], source, target, knobs_of(plan.settings, plan.net), plan.net.max_source_length
    )
    return [(graph, [*source.resources, *target.resources])]
