"""ONNX files that read text: sentences in, translations out, in a separate file from the one for ids.

Its tokenizer and string operators are those of onnxruntime-extensions, which a session registers as a library;
the files for ids need none. The graph in between is `translate` unchanged, with the knobs at their defaults.
"""

import importlib.util
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer
from keras_attention.types import EOS_ID, PAD_ID

from ...graphs.knobs import Knob
from .. import child_process
from ..converter import last_words
from ..subwords import SPACE, subword_models, written_pieces
from . import read_text
from .loops import set_items

FILE = "onnx/translate_text.onnx"
DOMAIN = "ai.onnx.contrib"
OUTPUT = "translations"
OWN = "text/"
"""Prefix of the names of tensors that are not those of `translate`."""


def require_extensions() -> None:
    """Raise UserError if the package with the file's operators is not installed, without importing it."""
    if importlib.util.find_spec("onnxruntime_extensions") is None:
        raise UserError(
            "Text inside an ONNX file needs onnxruntime-extensions, which is not installed. "
            "Run: pip install 'keras-luong[text]'"
        )


def check_tokenizers(tokenizers: tuple[Tokenizer, Tokenizer] | None) -> None:
    """Raise UserError unless the source has a sentencepiece tokenizer, and pieces join to the text of the target."""
    models = subword_models(tokenizers, "an ONNX")
    if models[1].trainer_spec.byte_fallback:
        raise UserError("Pieces that are bytes do not join to text. Expected: a target tokenizer without byte fallback")
    require_extensions()


def add_text(model: Any, tokenizers: tuple[Tokenizer, Tokenizer], knobs: Sequence[Knob]) -> Any:
    """Extend `translate` over ids to `translate_text(text) -> translations, scores`; the model is changed in place.

    Args:
        model: the ONNX model of `translate`, of any precision.
        tokenizers: subword tokenizers of source and target.
        knobs: knobs of `translate`.
    """
    import onnx
    from onnx import TensorProto, helper

    source, target = tokenizers
    assert isinstance(source, SubwordTokenizer)
    graph = model.graph
    scores = onnx.ValueInfoProto()
    scores.CopyFrom(next(port for port in graph.output if port.name == "scores"))
    beams = scores.type.tensor_type.shape.dim[1].dim_value
    before, after = _Nodes(), _Nodes()
    _read_text(before, source.model)
    for knob in knobs:
        _fill(before, knob)
    _write_text(after, target, beams)
    set_items(graph.node, [*before.nodes, *graph.node, *after.nodes])
    set_items(graph.input, [helper.make_tensor_value_info("text", TensorProto.STRING, ["batch"])])
    graph.initializer.extend([*before.constants, *after.constants])
    written = helper.make_tensor_value_info(OUTPUT, TensorProto.STRING, ["batch", beams])
    set_items(graph.output, [written, scores])
    graph.name = "translate_text"
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


class _Nodes:
    """Nodes and constants under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any, dtype: str = "int64") -> str:
        from onnx import TensorProto, helper, numpy_helper

        if dtype == "string":
            encoded = [value.encode("utf-8") for value in values]
            self.constants.append(helper.make_tensor(OWN + name, TensorProto.STRING, [len(encoded)], encoded))
        else:
            self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), OWN + name))
        return OWN + name

    def node(self, kind: str, inputs: Sequence[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes))
        return outputs[0]


def _read_text(own: _Nodes, model: bytes) -> None:
    """Add nodes for `source_ids` `(B, S)` of `text` `(B,)`: all sentences' ids, put into padded rows with EOS."""
    off = own.constant("off", [False], "bool")
    settings = [own.constant("n_best", [0]), own.constant("alpha", [0.0], "float32"), off, off, off]
    flat, starts = f"{OWN}flat", f"{OWN}starts"
    own.node("SentencepieceTokenizer", ["text", *settings], flat, starts, domain=DOMAIN, model=model)
    zero, one, last = own.constant("zero", [0]), own.constant("one", [1]), own.constant("last", [-1])
    most = own.constant("most", [np.iinfo(np.int64).max])
    first = own.node("Slice", [starts, zero, last, zero], f"{OWN}first")
    lengths = own.node("Sub", [own.node("Slice", [starts, one, most, zero], f"{OWN}next"), first], f"{OWN}lengths")
    longest = own.node("ReduceMax", [lengths], f"{OWN}longest", keepdims=0)
    width = own.node("Add", [longest, own.constant("one_more", 1)], f"{OWN}width")
    positions = own.node("Range", [own.constant("start", 0), width, own.constant("step", 1)], f"{OWN}positions")
    lengths = own.node("Unsqueeze", [lengths, one], f"{OWN}lengths_column")
    first = own.node("Unsqueeze", [first, one], f"{OWN}first_column")
    ends = own.constant("ends", [EOS_ID, PAD_ID], "int32")
    padded = own.node("Concat", [own.node("Cast", [flat], f"{OWN}ids", to=6), ends], f"{OWN}padded", axis=0)
    eos = own.node("Size", [flat], f"{OWN}eos")
    pad = own.node("Add", [eos, f"{OWN}one_more"], f"{OWN}pad")
    tail = own.node("Where", [own.node("Equal", [positions, lengths], f"{OWN}at_end"), eos, pad], f"{OWN}tail")
    inside = own.node("Less", [positions, lengths], f"{OWN}inside")
    places = own.node("Where", [inside, own.node("Add", [positions, first], f"{OWN}place"), tail], f"{OWN}places")
    own.node("Gather", [padded, places], "source_ids")


def _fill(own: _Nodes, knob: Knob) -> None:
    """Add a knob's default, under its name."""
    port = knob.port
    if "batch" not in port.axes:
        sizes = [axis if isinstance(axis, int) else 1 for axis in port.axes]
        own.node("Identity", [own.constant(port.name, np.full(sizes, knob.default), port.dtype)], port.name)
        return
    value = own.constant(port.name, np.full([1] * len(port.axes), knob.default), port.dtype)
    batch = own.node("Shape", ["text"], f"{OWN}{port.name}_batch")
    ones = own.constant(f"{port.name}_ones", [1] * (len(port.axes) - 1))
    own.node("Expand", [value, own.node("Concat", [batch, ones], f"{OWN}{port.name}_shape", axis=0)], port.name)


def _write_text(own: _Nodes, target: Tokenizer, beams: int) -> None:
    """Add nodes for the text `(B, K)` of `ids` `(B, K, L)`: pieces joined, marks as spaces, the first one removed."""
    pieces = own.constant("pieces", written_pieces(target), "string")
    sizes = own.node("Shape", ["ids"], f"{OWN}shape")
    capacity = own.node("Slice", [sizes, f"{OWN}last", f"{OWN}most"], f"{OWN}capacity")
    shape = own.node("Concat", [f"{OWN}last", capacity], f"{OWN}rows_shape", axis=0)
    rows = own.node("Reshape", ["ids", shape], f"{OWN}rows")
    text = own.node("Gather", [pieces, rows], f"{OWN}pieces_of_rows")
    empty = own.constant("empty", [""], "string")
    text = own.node("StringJoin", [text, empty, f"{OWN}one"], f"{OWN}joined", domain=DOMAIN)
    for name, (pattern, put) in {"spaces": (SPACE, " "), "begin": ("^ ", "")}.items():
        patterns = [own.constant(f"{name}_pattern", [pattern], "string"), own.constant(f"{name}_put", [put], "string")]
        text = own.node("StringRegexReplace", [text, *patterns], f"{OWN}{name}", domain=DOMAIN)
    own.node("Reshape", [text, own.constant("out_shape", [-1, beams])], OUTPUT)


class TextSession:
    """The file, run by ONNX Runtime with the operators of onnxruntime-extensions, in a separate process."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def run(self, sentences: Sequence[str]) -> list[list[str]]:
        """Return the texts of each sentence's hypotheses, best first.

        Raises:
            RuntimeError: with the end of that process' output.
        """
        arguments = [read_text.__file__, str(self.path)]
        finished = child_process.run(arguments, input=json.dumps(list(sentences)), text=True)
        if finished.returncode:
            raise RuntimeError(last_words(finished.stderr) if finished.returncode > 0 else "it crashed")
        found: list[list[str]] = json.loads(finished.stdout)
        return found
