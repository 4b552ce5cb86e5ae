"""Text in, ranked hypotheses out: a run directory as a translator."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.seq2seq import EncoderDecoder
from keras_attention.text import Tokenizer
from keras_attention.types import EOS_ID, Tensor

LENGTH_FACTOR = 2.0
LENGTH_OFFSET = 10
PADDING_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One output of a search.

    Attributes:
        text: decoded output.
        tokens: its pieces, with `</s>` at the end where the search finished.
        score: log-probability over the length penalty; hypotheses are ranked by it.
        log_prob: summed log-probability of the tokens.
        alignment: float32 `(len(tokens), len(source_tokens))`, for each token the attention it was predicted with.
        source_tokens: pieces of the source, with `</s>` at the end.
        finished: False where the search met its maximum length.
    """

    text: str
    tokens: list[str]
    score: float
    log_prob: float
    alignment: npt.NDArray[np.float32]
    source_tokens: list[str]
    finished: bool


class SearchModel(keras.Model):
    """Source ids `(B, S)` -> the arrays of `EncoderDecoder.search(**options)`, compiled by Keras on every backend.

    Args:
        model: of `build_seq2seq`; its weights may change between calls.
        **options: arguments of `EncoderDecoder.search`.
    """

    def __init__(self, model: keras.Model, **options: Any) -> None:
        super().__init__()
        self.inner = model
        self.net = EncoderDecoder(model)
        self.options = options
        # XLA would compile each shape anew; TensorFlow's plain graphs take any shape, and JAX has no other way.
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, source: Tensor) -> dict[str, Tensor]:
        return dict(self.net.search(source, **self.options))


def length_batches(rows: Sequence[Sequence[int]], batch_size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Indices of rows in batches of like length, longest first: the largest buffers are made once."""
    order = np.argsort([-len(row) for row in rows], kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad_rows(rows: Sequence[Sequence[int]], multiple: int = 1) -> npt.NDArray[np.int32]:
    """Rows padded on the right with 0 to the longest, rounded up to a multiple: int32 `(B, L)`."""
    longest = max(max((len(row) for row in rows), default=0), 1)
    result = np.zeros((len(rows), -(-longest // multiple) * multiple), np.int32)
    for index, row in enumerate(rows):
        result[index, : len(row)] = row
    return result


class Translator:
    """Translates texts with a model and its tokenizers.

    Example: `Translator.load("runs/dates").translate(["Sunday, 22 Nov. 2026"])[0][0].text`.

    Args:
        model: of `build_seq2seq`, or loaded from a file.
        source_tokenizer, target_tokenizer: see `keras_attention.text`.
        max_source_length: most tokens of a source (EOS aside); the limit of training.
    """

    def __init__(
        self,
        model: keras.Model,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        max_source_length: int | None = None,
    ) -> None:
        self.model = model
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.max_source_length = max_source_length
        self._searches: dict[tuple[Any, ...], SearchModel] = {}

    @classmethod
    def load(cls, path: str | pathlib.Path | RunDirectory) -> Translator:
        """The translator of a run directory. Raises UserError for one that is missing or damaged."""
        run = path if isinstance(path, RunDirectory) else RunDirectory.open(path)
        return cls(run.load_model(), run.source_tokenizer, run.target_tokenizer, run.max_source_length)

    @property
    def has_attention(self) -> bool:
        """False for a plain encoder-decoder, whose alignments are zero."""
        return EncoderDecoder(self.model).config.attention != "none"

    def problem(self, text: str) -> str | None:
        """Why `text` cannot be translated faithfully, and what to do; None where it can."""
        if not text.strip():
            return "empty line. Expected a sentence"
        unknown = self.source_tokenizer.unknown(text)
        if unknown:
            part = unknown[0]
            name = f"character {part!r} (U+{ord(part):04X})" if len(part) == 1 else f"word {part!r}"
            return f"{name} was never seen in training. Expected only what the training text holds"
        length = len(self.source_tokenizer.encode(text))
        if self.max_source_length is not None and length > self.max_source_length:
            return (
                f"{length} tokens. Expected at most {self.max_source_length}, the limit of training. Split the sentence"
            )
        return None

    def translate(
        self,
        texts: Sequence[str],
        beam_size: int = 5,
        n_best: int = 1,
        *,
        max_length: int = 200,
        max_length_factor: float | None = LENGTH_FACTOR,
        max_length_offset: int = LENGTH_OFFSET,
        length_penalty: float = 1.0,
        coverage_penalty: float = 0.0,
        batch_size: int = 32,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of each text, best first; batches are made of texts of like length.

        Args:
            texts: not empty strings; one longer than `max_source_length` is cut to it, unknown characters become
                `<unk>`.
            beam_size: K; 1 is greedy search.
            n_best: at most K.
            max_length: most tokens of an output, EOS counted; and at most
                `max_length_factor * source tokens + max_length_offset` of them.
            length_penalty: alpha of the GNMT length penalty.
            coverage_penalty: beta of the GNMT coverage penalty; 0 for none.
            batch_size: texts at a time.
            on_batch: called with the number of texts just done, for a progress bar.

        Raises:
            UserError: for an empty text, and for numbers out of range.
        """
        for name, value in (("beam_size", beam_size), ("n_best", n_best), ("max_length", max_length)):
            if value < 1:
                raise UserError(f"{name} is out of range. Expected 1 or more. Received: {value}")
        if n_best > beam_size:
            raise UserError(f"n_best is out of range. Expected at most beam_size={beam_size}. Received: {n_best}")
        if coverage_penalty and not self.has_attention:
            raise UserError(
                "This model has no attention, so that nothing tells which words of the source are covered. "
                f"Expected a coverage penalty of 0. Received: {coverage_penalty}"
            )
        search = self._search(
            beam_size=beam_size,
            max_length=max_length,
            max_length_factor=max_length_factor,
            max_length_offset=max_length_offset,
            length_penalty=length_penalty,
            coverage_penalty=coverage_penalty,
        )
        rows = [[*self.source_tokenizer.encode(text)[: self.max_source_length], EOS_ID] for text in texts]
        for number, row in enumerate(rows, 1):
            if len(row) == 1:
                raise UserError(f"Text {number} is empty. Expected a sentence. Received: {texts[number - 1]!r}")
        results: list[list[Hypothesis]] = [[] for _ in rows]
        for indices in length_batches(rows, batch_size):
            found = search.predict_on_batch(pad_rows([rows[i] for i in indices], PADDING_MULTIPLE))
            for position, index in enumerate(indices):
                results[index] = self._hypotheses(found, position, rows[index], n_best)
            if on_batch is not None:
                on_batch(len(indices))
        return results

    def _search(self, **options: Any) -> SearchModel:
        key = tuple(sorted(options.items()))
        if key not in self._searches:
            self._searches[key] = SearchModel(self.model, **options)
        return self._searches[key]

    def _hypotheses(self, found: dict[str, Any], row: int, source: list[int], n_best: int) -> list[Hypothesis]:
        source_tokens = self.source_tokenizer.tokens(source)
        hypotheses = []
        for k in range(n_best):
            length = int(found["lengths"][row, k])
            if length == 0:
                break
            ids = [int(index) for index in found["ids"][row, k, :length]]
            hypotheses.append(
                Hypothesis(
                    text=self.target_tokenizer.decode(ids),
                    tokens=self.target_tokenizer.tokens(ids),
                    score=float(found["scores"][row, k]),
                    log_prob=float(found["log_probs"][row, k]),
                    alignment=np.asarray(found["alignments"][row, k, :length, : len(source)], np.float32),
                    source_tokens=source_tokens,
                    finished=bool(found["finished"][row, k]),
                )
            )
        return hypotheses
