"""Tokenizers inside a TensorFlow graph, with the same ids as the Python ones."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf

from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer, VocabularyTokenizer
from keras_attention.types import EOS_ID, UNK_ID, Tensor, TensorDict

from .graph import Graph
from .knobs import Knob
from .port import Port

FIRST_ORDINARY_ID = UNK_ID + 1


class GraphTokenizer(Protocol):
    """Text to ids and back, as TensorFlow operators; `resources` must be tracked by the SavedModel."""

    resources: list[Any]

    def encode(self, text: Tensor) -> Any:
        """Encode text `(B,)` to ragged int32 `(B, None)`, without BOS and EOS."""

    def decode(self, ids: Any) -> Tensor:
        """Decode ragged int32 `(N, None)`, without special ids, to text `(N,)`."""


class GraphSubwords:
    """A sentencepiece model, run by tensorflow-text.

    TensorFlow finds a loaded model by the name of the node that made it, over all SavedModels of a process. The name
    is therefore a hash of the content: two tokenizers of one artefact, or of two, never share a vocabulary.
    """

    def __init__(self, tokenizer: SubwordTokenizer):
        import tensorflow_text

        name = f"subwords_{hashlib.sha256(tokenizer.model).hexdigest()}"
        self.tokenizer = tensorflow_text.SentencepieceTokenizer(model=tokenizer.model, out_type=tf.int32, name=name)
        self.resources = [self.tokenizer]

    def encode(self, text: Tensor) -> Any:
        return self.tokenizer.tokenize(text)

    def decode(self, ids: Any) -> Tensor:
        return self.tokenizer.detokenize(ids)


class GraphVocabulary:
    """Characters or whitespace-separated words, looked up in a table."""

    def __init__(self, tokenizer: VocabularyTokenizer):
        self.kind, self.separator = tokenizer.kind, tokenizer.separator
        ordinary = tokenizer.vocabulary[FIRST_ORDINARY_ID:]
        ids = tf.range(FIRST_ORDINARY_ID, len(tokenizer.vocabulary), dtype=tf.int32)
        initializer = tf.lookup.KeyValueTensorInitializer(tf.constant(ordinary, tf.string), ids)
        self.table = tf.lookup.StaticHashTable(initializer, default_value=UNK_ID)
        self.vocabulary = tf.constant(tokenizer.vocabulary, tf.string)
        self.resources = [self.table]

    def encode(self, text: Tensor) -> Any:
        pieces = tf.strings.unicode_split(text, "UTF-8") if self.kind == "char" else tf.strings.split(text)
        return tf.ragged.map_flat_values(self.table.lookup, pieces)

    def decode(self, ids: Any) -> Tensor:
        return tf.strings.reduce_join(tf.gather(self.vocabulary, ids), axis=-1, separator=self.separator)


def graph_tokenizer(tokenizer: Tokenizer) -> GraphTokenizer:
    """Return the in-graph equivalent of a tokenizer.

    Raises:
        TypeError: for a tokenizer without one.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        return GraphSubwords(tokenizer)
    if isinstance(tokenizer, VocabularyTokenizer):
        return GraphVocabulary(tokenizer)
    raise TypeError(f"Expected: a subword, character or word tokenizer. Received: {type(tokenizer).__name__}")


def source_ids(tokenizer: GraphTokenizer, text: Tensor) -> Tensor:
    """Encode text `(B,)` to right-padded int32 `(B, S)`, each row ending with EOS."""
    ids = tokenizer.encode(text)
    end = tf.fill(tf.stack([tf.shape(text)[0], 1]), tf.constant(EOS_ID, tf.int32))
    return tf.concat([ids, end], axis=1).to_tensor()


def target_text(tokenizer: GraphTokenizer, ids: Tensor) -> Tensor:
    """Decode ids `(B, K, L)` to text `(B, K)`, without special ids."""
    batch, beam_size, length = tf.unstack(tf.shape(ids))
    rows = tf.reshape(ids, tf.stack([batch * beam_size, length]))
    text = tokenizer.decode(tf.ragged.boolean_mask(rows, rows >= FIRST_ORDINARY_ID))
    return tf.reshape(text, tf.stack([batch, beam_size]))


def filled(knob: Knob, batch: Tensor) -> Tensor:
    """Return a knob's default, repeated over the batch where it has that axis."""
    axes = {"batch": batch, "prefix_length": 1}
    shape = [axes[axis] if isinstance(axis, str) else axis for axis in knob.port.axes]
    return tf.fill(shape, tf.constant(knob.default, knob.port.dtype))


def text_graph(
    translate: Graph,
    source: GraphTokenizer,
    target: GraphTokenizer,
    knobs: Sequence[Knob],
    longest: int | None = None,
) -> Graph:
    """Return the graph `translate_text(text) -> text, scores`: the K translations of each string, and their scores.

    Args:
        translate: the search over ids.
        source, target: tokenizers.
        knobs: knobs of `translate`, each at its default.
        longest: maximum number of source tokens, EOS counted; a longer text is an error of the call.
    """

    def translate_text(text: Tensor) -> TensorDict:
        ids = source_ids(source, text)
        if longest is not None:
            message = f"a text is longer than the {longest} tokens, EOS counted, that this model can read"
            with tf.control_dependencies([tf.debugging.assert_less_equal(tf.shape(ids)[1], longest, message)]):
                ids = tf.identity(ids)
        result = translate.function(ids, *(filled(knob, tf.shape(ids)[0]) for knob in knobs))
        return {"text": target_text(target, result["ids"]), "scores": result["scores"]}

    hypotheses = translate.outputs[0].axes[1]
    return Graph(
        "translate_text",
        translate_text,
        (Port("text", "string", ("batch",)),),
        (Port("text", "string", ("batch", hypotheses)), Port("scores", "float32", ("batch", hypotheses))),
    )
