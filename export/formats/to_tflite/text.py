"""TFLite files that read text: sentences in, pieces of the translations out, separate from the file for ids.

Sentences are split into subwords by tensorflow-text's operator for sentencepiece, which is not built into TFLite: a
device registers it (in C++, or in Python from tensorflow-text), while the file for ids needs none. Its inverse
crashes LiteRT, so that translations are returned as pieces: joined, with a space for each "▁" and without the
first one, they are the text.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer
from keras_attention.types import EOS_ID, Tensor, TensorDict

from ...graphs.graph import Graph
from ...graphs.knobs import Knob
from ...graphs.port import Port
from ...graphs.tokenizers import filled
from ..subwords import SPACE, subword_models, written_pieces

FILE = "translate_text.tflite"
OPERATORS = {"TFText>FastSentencepieceTokenize", "RaggedTensorToTensor"}
"""Operators of tensorflow-text that the file needs."""
UNIGRAM, CHAR = 1, 4
"""Kinds of sentencepiece models that the operator segments as sentencepiece does; others are silently wrong."""


def check_tokenizers(tokenizers: tuple[Tokenizer, Tokenizer] | None) -> None:
    """Raise UserError unless the operator gives the source tokenizer's ids, and pieces join to the target's text."""
    for side, model in zip(("source", "target"), subword_models(tokenizers, "a LiteRT"), strict=True):
        trainer = model.trainer_spec
        if trainer.model_type not in (UNIGRAM, CHAR) or trainer.byte_fallback:
            kind = "byte fallback" if trainer.byte_fallback else trainer.ModelType.Name(trainer.model_type)
            raise UserError(
                "The operator for text inside a LiteRT file reads unigram and char models without byte fallback. "
                f"Expected: one of these on the {side} side, or no --text. Received: {kind}"
            )


def text_graph(
    translate: Graph, tokenizers: tuple[Tokenizer, Tokenizer], knobs: tuple[Knob, ...], longest: int | None
) -> Graph:
    """Return the graph `translate_text(text) -> pieces, lengths, scores`.

    Args:
        translate: the search over ids, in the form for TFLite.
        tokenizers: subword tokenizers of source and target.
        knobs: knobs of `translate`, each at its default.
        longest: maximum number of source tokens, EOS counted; further tokens are truncated.
    """
    import tensorflow_text

    source, target = tokenizers
    assert isinstance(source, SubwordTokenizer)
    reader = tensorflow_text.FastSentencepieceTokenizer(model=source.model)
    written = tf.constant(written_pieces(target))

    def translate_text(text: Tensor) -> TensorDict:
        ids = reader.tokenize(text)
        rows = tf.pad(tf.cast(ids.to_tensor(), tf.int32), [[0, 0], [0, 1]])
        lengths = tf.cast(ids.row_lengths(), tf.int32)
        rows = tf.where(tf.range(tf.shape(rows)[1])[None, :] == lengths[:, None], EOS_ID, rows)
        if longest is not None:
            rows = rows[:, :longest]
        found = translate.function(rows, *(filled(knob, tf.shape(rows)[0]) for knob in knobs))
        flat = tf.gather(written, tf.reshape(found["ids"], (-1,)))
        return {
            "pieces": tf.reshape(flat, tf.shape(found["ids"])),
            "lengths": found["lengths"],
            "scores": found["scores"],
        }

    ports = {port.name: port for port in translate.outputs}
    outputs = (Port("pieces", "string", ports["ids"].axes), ports["lengths"], ports["scores"])
    return Graph("translate_text", translate_text, (Port("text", "string", ("batch",)),), outputs)


def join(pieces: np.ndarray) -> str:
    """Return the text of one row of pieces, without leading spaces, as sentencepiece does."""
    return b"".join(pieces.tolist()).decode("utf-8").replace(SPACE, " ").lstrip(" ")


class TextInterpreter:
    """The file, run by LiteRT with tensorflow-text's operators."""

    def __init__(self, path: pathlib.Path):
        from ai_edge_litert.interpreter import InterpreterWithCustomOps
        from tensorflow_text import tflite_registrar

        self.interpreter = InterpreterWithCustomOps(
            model_path=str(path), custom_op_registerers=tflite_registrar.SELECT_TFTEXT_OPS
        )
        self.runner = self.interpreter.get_signature_runner("translate_text")

    def run(self, sentences: Sequence[str]) -> list[list[str]]:
        """Return the texts of each sentence's hypotheses, best first."""
        found = self.runner(text=np.array([sentence.encode() for sentence in sentences]))
        return [[join(pieces) for pieces in row] for row in found["pieces"]]
