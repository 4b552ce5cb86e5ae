"""Pointer-generator: copying source words into the output, including out-of-vocabulary words.

Out-of-vocabulary words of a source get ids of their own, for that source only: V, V + 1, …, up to a fixed number.
Shapes are therefore static, and every search works on the extended vocabulary unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_attention.attention.choices import check_whole
from keras_attention.attention.shapes import check_shapes
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.types import UNK_ID, Shape, Tensor

SMALLEST = 1e-20
"""Lower bound of probabilities, for finite logarithms: ids without a word have probability 0."""


def without_copies(ids: Tensor, vocabulary: int) -> Tensor:
    """Replace the ids of copied words, V and above, by the unknown id, for an embedding of V tokens."""
    return ops.where(ids < vocabulary, ids, UNK_ID)


@keras.saving.register_keras_serializable(package="keras_attention")
class PointerGenerator(keras.layers.Layer):
    """Mixture of the output layer's distribution and a copy distribution from attention.

        p_t(w) = g_t softmax(z_t)(w) + (1 - g_t) sum_{s: x_s = w} a_t(s)        g_t = sigmoid(v . h~_t + b)

    (See, Liu and Manning 2017, arXiv 1704.04368, equations 8 and 9. There g_t reads context, state and input; here the
    attentional vector, which is computed from them.) Source and target share one vocabulary of V tokens; ids from V on
    stand for out-of-vocabulary words of the source, see `CopiedWords`.

    Args:
        copy_words: number of ids for such words.

    Call arguments:
        logits: float `(B, T, V)`, z.
        attentional: float `(B, T, A)`, h~.
        alignment: float `(B, T, S)`, a.
        source: int32 `(B, S)`, x; ids below `V + copy_words`.

    Returns:
        Float32 log-probabilities `(B, T, V + copy_words)`, at least the logarithm of 1e-20.

    Raises:
        ValueError: for `copy_words` below 1.
    """

    def __init__(self, copy_words: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole(copy_words=copy_words)
        if copy_words < 1:
            raise ValueError(f"Expected: copy_words >= 1. Received: copy_words={copy_words}")
        self.autocast = False  # logits are float32, and remain so
        self.supports_masking = True
        self.copy_words = copy_words
        self.gate = keras.layers.Dense(1, activation="sigmoid", name="gate", dtype=self.dtype_policy)

    def build(self, logits_shape: Shape, attentional_shape: Shape, *_: Shape, **__: Shape) -> None:
        self.gate.build(attentional_shape)
        self.built = True

    def call(self, logits: Tensor, attentional: Tensor, alignment: Tensor, source: Tensor) -> Tensor:
        shapes = {"logits": (logits.shape, "B T V"), "attentional": (attentional.shape, "B T A")}
        shapes |= {"alignment": (alignment.shape, "B T S"), "source": (source.shape, "B S")}
        check_shapes("PointerGenerator", shapes)
        generate = ops.cast(self.gate(attentional), "float32")
        written = generate * ops.softmax(ops.cast(logits, "float32"), axis=-1)
        written = ops.pad(written, ((0, 0), (0, 0), (0, self.copy_words)))
        # A product with one-hot rows, not a scatter: duplicate words of the source are summed on every backend, in
        # gradients, in TFLite and in ONNX.
        words = ops.one_hot(source, logits.shape[-1] + self.copy_words, dtype="float32")
        pointed = ops.matmul((1.0 - generate) * ops.cast(alignment, "float32"), words)
        return ops.log(ops.maximum(written + pointed, SMALLEST))

    def compute_output_spec(self, logits: Any, attentional: Any, alignment: Any, source: Any) -> keras.KerasTensor:
        return keras.KerasTensor((*logits.shape[:-1], logits.shape[-1] + self.copy_words), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "copy_words": self.copy_words}


class CopiedWords:
    """Ids of one source and its outputs: the vocabulary's own, and from V on the source's out-of-vocabulary words.

    Args:
        tokenizer: tokenizer of both sides.
        source: the text.
        most: maximum number of such words with an id, in the order of the text; later ones remain unknown.

    >>> from keras_attention.text import WordTokenizer
    >>> words = CopiedWords(WordTokenizer.train(["call at", "at call"]), "call Ada at Ada", 2)
    >>> words.encode("call Ada at Ada"), words.decode([5, 6, 2])
    ([5, 6, 4, 6], 'call Ada')
    """

    def __init__(self, tokenizer: Tokenizer, source: str, most: int) -> None:
        self.tokenizer = tokenizer
        read = zip(tokenizer.pieces(source), tokenizer.encode(source), strict=True)
        self.found = list(dict.fromkeys(piece for piece, index in read if index == UNK_ID))
        self.words = self.found[:most]
        self._ids = {word: tokenizer.vocabulary_size + number for number, word in enumerate(self.words)}

    def encode(self, text: str) -> list[int]:
        """Return the ids of the source, or of one of its outputs."""
        ids = self.tokenizer.encode(text)
        if UNK_ID in ids and self.words:
            pieces = self.tokenizer.pieces(text)
            ids = [
                self._ids.get(piece, index) if index == UNK_ID else index
                for piece, index in zip(pieces, ids, strict=True)
            ]
        return ids

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id; `<unk>` for one that stands for no word of this source."""
        size, known = self.tokenizer.vocabulary_size, [*ids]
        tokens = self.tokenizer.tokens([index if index < size else UNK_ID for index in known])
        return [
            self.words[index - size] if 0 <= index - size < len(self.words) else token
            for index, token in zip(known, tokens, strict=True)
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, without special ids and ids that stand for no word."""
        size = self.tokenizer.vocabulary_size
        kept = [index for index in ids if UNK_ID < index < size + len(self.words)]
        if all(index < size for index in kept):
            return self.tokenizer.decode(kept)
        return self.tokenizer.join(self.tokens(kept))

    def unknown(self, text: str) -> list[str]:
        """Return the words of a text that are neither in the vocabulary nor copyable, in order."""
        read = zip(self.pieces(text), self.encode(text), strict=True)
        return [piece for piece, index in read if index == UNK_ID]

    def pieces(self, text: str) -> list[str]:
        return self.tokenizer.pieces(text)

    def join(self, tokens: Iterable[str]) -> str:
        return self.tokenizer.join(tokens)


TextIds: TypeAlias = Tokenizer | CopiedWords
"""Encoder and decoder of one text's ids."""


def of_text(tokenizers: tuple[Tokenizer, Tokenizer], source: str, copy_words: int | None) -> tuple[TextIds, TextIds]:
    """Return the tokenizers of one source and its outputs: the given ones if nothing is copied."""
    if copy_words is None:
        return tokenizers
    words = CopiedWords(tokenizers[0], source, copy_words)
    return words, words
