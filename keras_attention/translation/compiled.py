"""How texts are searched for: what takes the place of a beam, constraints in words, and the compiled search."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.models.pointer_generator import TextIds
from keras_attention.ranges import check_ranges
from keras_attention.search import Constraints, allow_words
from keras_attention.search.contract import LENGTH_PENALTIES
from keras_attention.text.tokenizers import UNKNOWN_ID, Tokenizer
from keras_attention.types import BOS_ID, Tensor


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Outputs are drawn, `n_best` of them, in place of a search; see `sample_search`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_ranges(temperature=self.temperature, top_k=self.top_k, seed=self.seed)
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is out of range. Expected above 0, at most 1. Received: {self.top_p}")


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Contrastive search in place of a beam; see `contrastive_search`."""

    candidates: int = 5
    alpha: float = 0.6

    def __post_init__(self) -> None:
        check_ranges(candidates=self.candidates)
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha is out of range. Expected 0 to 1. Received: {self.alpha}")


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Outputs are searched for in both directions and ranked by what both say of them; see `agreement_search`.

    Args:
        weight: of the backward direction.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"The weight of agreement is out of range. Expected 0 to 1. Received: {self.weight}")


@dataclasses.dataclass(frozen=True)
class Wishes:
    """Constraints on outputs, in words.

    Args:
        min_length: fewest tokens of an output, EOS counted.
        prefixes: what each output begins with, one string for each text, or one for all; it ends at a word's end.
        phrases: what must be in each output: strings for all texts, or a list of strings for each. Beam search only.
        banned: tokens of the vocabulary that no output holds; words of several tokens cannot be banned.
        no_repeat_ngram: no so many tokens in a row come twice; 0 for no such rule.
        repetition_penalty: above 1, makes tokens that are there already less likely.
    """

    min_length: int = 0
    prefixes: str | Sequence[str] = ""
    phrases: Sequence[str] | Sequence[Sequence[str]] = ()
    banned: Sequence[str] = ()
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        names = "min_length", "no_repeat_ngram", "repetition_penalty"
        check_ranges(**{name: getattr(self, name) for name in names})

    def fixed(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What does not differ from text to text, as arguments of `SearchModel`.

        Raises UserError for a banned word that is unknown, or more than one token.
        """
        ids = [tokenizer.encode(word) for word in self.banned]
        if unknown := [word for word, row in zip(self.banned, ids, strict=True) if UNKNOWN_ID in row]:
            raise UserError(f"The banned word {unknown[0]!r} is not in the target vocabulary. Expected words that are")
        for word, row in zip(self.banned, ids, strict=True):
            if len(row) != 1:
                pieces = " ".join(tokenizer.tokens(row))
                raise UserError(f"{word!r} is several tokens, {pieces}. Expected words of one token to ban")
        return {
            "banned": tuple(sorted(row[0] for row in ids)),
            "min_length": self.min_length,
            "no_repeat_ngram": self.no_repeat_ngram,
            "repetition_penalty": self.repetition_penalty,
        }

    def prefix_ids(self, writers: Sequence[TextIds]) -> list[list[int]]:
        """Ids of each text's prefix. Raises UserError for unknown words, and another number of prefixes than texts."""
        count = len(writers)
        texts = [self.prefixes] * count if isinstance(self.prefixes, str) else list(self.prefixes)
        if len(texts) != count:
            raise UserError(f"Expected a prefix for each of {count} texts. Received: {len(texts)}")
        return [_encode(writer, text, "prefix") for writer, text in zip(writers, texts, strict=True)]

    def phrase_ids(self, writers: Sequence[TextIds]) -> list[list[list[int]]]:
        """Ids of each text's phrases. Raises UserError for unknown words, empty phrases, another number than texts."""
        count = len(writers)
        for_all = all(isinstance(phrase, str) for phrase in self.phrases)
        rows: list[Any] = [self.phrases] * count if for_all else list(self.phrases)
        if len(rows) != count:
            raise UserError(f"Expected phrases for each of {count} texts. Received: {len(rows)}")
        found = [
            [_encode(writer, phrase, "phrase") for phrase in row] for writer, row in zip(writers, rows, strict=True)
        ]
        if any(not phrase for row in found for phrase in row):
            raise UserError("A phrase that must be in the output is empty. Expected words")
        return found


Method: TypeAlias = Sampling | Contrast | Agreement
"""What searches in place of a beam."""


def _encode(tokenizer: TextIds, text: str, what: str) -> list[int]:
    ids = tokenizer.encode(text) if text else []
    if UNKNOWN_ID in ids:
        unknown = tokenizer.unknown(text)
        raise UserError(
            f"The {what} {text!r} holds what the model cannot write: {unknown[0] if unknown else text!r}. "
            "Expected words of the target vocabulary, or of the text itself where a model copies them"
        )
    return ids


def check_beam(beam_size: int, n_best: int, groups: int, method: Method | None, length_penalty_kind: str) -> None:
    """Raises UserError where the number of hypotheses, or the length penalty's kind, does not fit the search."""
    check_ranges(beam_size=beam_size, n_best=n_best, groups=groups)
    most = n_best if isinstance(method, Sampling) else 1 if isinstance(method, Contrast) else beam_size
    if n_best > most:
        raise UserError(f"n_best is out of range. Expected at most {most}, the beam. Received: {n_best}")
    if length_penalty_kind not in LENGTH_PENALTIES:
        raise UserError(
            f"Unknown length_penalty_kind. Expected one of {', '.join(LENGTH_PENALTIES)}. "
            f"Received: {length_penalty_kind}"
        )
    if beam_size % groups:
        raise UserError(f"Expected groups that divide the beam of {beam_size}. Received: {groups}")


def check_process(process: int) -> None:
    """Raises RuntimeError in a fork of `process`: the backend's threads stayed behind, and a search would hang."""
    if process != os.getpid():
        raise RuntimeError(
            "A Translator does not work in a forked process. Expected: one that is loaded in the process that uses it, "
            f"as with multiprocessing's 'spawn'. Received: one of process {process}"
        )


def why_empty(text: str, tokenizer: Tokenizer) -> str | None:
    """Why nothing of a text is left to translate, and what is expected; None where something is."""
    if not text.strip():
        return "empty line. Expected a sentence"
    if not tokenizer.encode(text):  # what the tokenizer drops, as a lone U+200B
        return "nothing that is seen: no token is left of it. Expected a sentence"
    return None


def check_room(
    texts: Sequence[str],
    rows: Sequence[Sequence[int]],
    prefixes: Sequence[Sequence[int]],
    phrases: Sequence[Sequence[Sequence[int]]],
    min_length: int,
    max_length: int,
    factor: float | None,
    offset: int,
) -> None:
    """Raises UserError where what is asked for does not fit below a text's maximum length."""
    for text, row, prefix, wanted in zip(texts, rows, prefixes, phrases, strict=True):
        limit = max_length if factor is None else max(min(max_length, int(factor * len(row)) + offset), 1)
        needed = max(min_length, len(prefix), sum(len(phrase) for phrase in wanted))
        if needed > limit:
            raise UserError(
                f"{text!r} may have outputs of {limit} tokens, and what is asked for needs {needed}. Expected a "
                "smaller minimum, fewer words that must be there, or a greater maximum length"
            )


class SearchModel(keras.Model):
    """Ids -> the arrays of a search, compiled by Keras on every backend.

    Called with a dict of `source` `(B, S)` and, where wanted, `prefix` `(B, P)` and `phrases` `(B, C, N)`.

    Args:
        models: of `build_seq2seq`, one or several that answer as one; their weights may change between calls.
        combination: of several, see `ensemble_step`.
        method: `None` for greedy or beam search, or `Sampling`, `Contrast`, `Agreement`.
        banned: ids that never follow.
        min_length, no_repeat_ngram, repetition_penalty: see `Constraints`.
        phrase_shape: C and N of the phrases, which a graph has to know; `None` for no phrases.
        **options: arguments of `Searching.search`, or with a method those that `sample`, `contrast`, `agree` know.
    """

    def __init__(
        self,
        models: keras.Model | Sequence[keras.Model],
        combination: str = "probabilities",
        method: Method | None = None,
        banned: Sequence[int] = (),
        min_length: int = 0,
        no_repeat_ngram: int = 0,
        repetition_penalty: float = 1.0,
        phrase_shape: tuple[int, int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.inner = [models] if isinstance(models, keras.Model) else list(models)
        self.net = as_one(self.inner, combination)
        self.method = method
        self.banned = list(banned)
        self.phrase_shape = phrase_shape
        self.rules: dict[str, Any] = {
            "min_length": min_length,
            "no_repeat_ngram": no_repeat_ngram,
            "repetition_penalty": repetition_penalty,
        }
        self.options = options
        # XLA would compile each shape anew; TensorFlow's plain graphs take any shape, and JAX has no other way.
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        allowed = allow_words(self.net.config.output_vocabulary, banned=self.banned) if self.banned else None
        phrases = None
        if self.phrase_shape is not None:
            phrases = ops.reshape(inputs["phrases"], (-1, *self.phrase_shape))
        constraints = Constraints(allowed=allowed, prefix=inputs.get("prefix"), phrases=phrases, **self.rules)
        source = inputs["source"]
        if isinstance(self.method, Sampling):
            return dict(
                self.net.sample(
                    source,
                    constraints=constraints,
                    temperature=self.method.temperature,
                    top_k_words=self.method.top_k,
                    top_p=self.method.top_p,
                    uniforms=inputs["uniforms"],
                    **self.options,
                )
            )
        if isinstance(self.method, Contrast):
            contrast = dataclasses.asdict(self.method)
            return dict(self.net.contrast(source, constraints=constraints, **contrast, **self.options))
        if isinstance(self.method, Agreement):
            weight = self.method.weight
            return dict(self.net.agree(source, constraints=constraints, backward_weight=weight, **self.options))
        return dict(self.net.search(source, constraints=constraints, **self.options))


class ScoreModel(keras.Model):
    """A dict of `source`, `target` and `labels` -> what `Searching.score` returns, compiled by Keras."""

    def __init__(self, models: Sequence[keras.Model], combination: str = "probabilities") -> None:
        super().__init__()
        self.inner = list(models)
        self.net = as_one(self.inner, combination)
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.net.score(inputs["source"], inputs["target"], inputs["labels"])  # type: ignore[no-any-return]


def as_one(models: Sequence[keras.Model], combination: str = "probabilities") -> Any:
    """What searches with one model, or with several that answer as one."""
    members = [EncoderDecoder(model) for model in models]
    return members[0] if len(members) == 1 else Ensemble(members, combination)


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


def pad_phrases(rows: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int32]:
    """Phrases of each row, padded to the most and the longest: int32 `(B, C, N)`."""
    count = max(len(row) for row in rows)
    flat = pad_rows([phrase for row in rows for phrase in [*row, *[[]] * (count - len(row))]])
    return flat.reshape(len(rows), count, -1)


def why_nothing(search: SearchModel, source: npt.NDArray[np.int32], text: str) -> str:
    """A message for a text without an output."""
    state, memory = search.net.encode(source)
    log_probs, _, _ = search.net.step(np.full(len(source), BOS_ID, np.int32), state, memory)
    if np.isnan(ops.convert_to_numpy(log_probs)).any():
        return "The model's probabilities are no numbers (NaN): its weights are damaged. Expected a trained model"
    return f"{text!r}: no output is as asked for. Expected fewer constraints, a wider beam or a greater length"
