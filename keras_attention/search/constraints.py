"""Constraints on hypotheses, as changes to the log-probabilities before a search ranks them."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from keras import ops

from keras_attention.search.contract import NEVER
from keras_attention.search.phrases import Phrases
from keras_attention.types import EOS_ID, PAD_ID, Tensor


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Constraints on the hypotheses of a search. Tensors among them can be inputs of a graph.

    Args:
        min_length: minimum number of tokens, EOS counted: an int, a scalar, or int `(B,)`. EOS is forbidden before.
        allowed: bool `(V,)` or `(B, V)`, false for banned tokens; see `allow_words`.
        prefix: int `(B, P)`, right-padded: the tokens that each row's hypotheses begin with. Within its length the
            prefix overrides all other constraints.
        phrases: int `(B, C, N)`, right-padded: token sequences that each hypothesis must contain, see `Phrases`. Beam
            search only.
        no_repeat_ngram: block repeated n-grams of this size; 0: none. A static number.
        repetition_penalty: factor on the log-probabilities of tokens already in the hypothesis, except EOS; above 1 it
            lowers them (Keskar et al. 2019, arXiv 1909.05858, section 4.1, there for logits). Scores include it;
            `log_probs` are the model's.

    A row whose constraints cannot be met gets no hypothesis: its scores are -inf. A graph cannot raise.
    """

    min_length: Tensor | int = 0
    allowed: Tensor | None = None
    prefix: Tensor | None = None
    phrases: Tensor | None = None
    no_repeat_ngram: int = 0
    repetition_penalty: Tensor | float = 1.0

    @property
    def changes_log_probs(self) -> bool:
        """Whether there is a constraint other than phrases."""
        return (
            self.no_repeat_ngram > 0
            or self.allowed is not None
            or self.prefix is not None
            or not _is_number(self.min_length, 0)
            or not _is_number(self.repetition_penalty, 1)
        )

    def check(
        self,
        max_length: Any,
        capacity: int,
        vocabulary: int | None = None,
        eos_id: int = EOS_ID,
        pad_id: int = PAD_ID,
        phrases_allowed: bool = True,
    ) -> None:
        """Check the values that are known before the search runs: numbers and NumPy arrays.

        Raises:
            ValueError: for phrases where they are not allowed, a minimum above the maximum length, a prefix or phrases
                that exceed it or contain unknown ids, and a number that is out of range.
        """
        if self.phrases is not None and not phrases_allowed:
            raise ValueError("Only a beam can wait for phrases. Expected: beam_search, of any beam_size, for them")
        if self.no_repeat_ngram < 0:
            raise ValueError(f"Expected: no_repeat_ngram >= 0. Received: no_repeat_ngram={self.no_repeat_ngram}")
        penalty, least, most = _known(self.repetition_penalty), _known(self.min_length), _known(max_length)
        most = np.minimum(capacity if most is None else most, capacity)
        if penalty is not None and not np.all(penalty > 0):
            raise ValueError(f"Expected: repetition_penalty > 0. Received: repetition_penalty={penalty}")
        if least is not None and np.any(least > most):
            raise ValueError(f"Expected: min_length <= max_length. Received: min_length={least}, max_length={most}")
        for name in ("prefix", "phrases"):
            ids = _known(getattr(self, name))
            if ids is None:
                continue
            outside = (ids < 0) | (ids >= vocabulary) if vocabulary is not None else ids < 0
            if np.any(outside):
                raise ValueError(
                    f"Expected: ids of the vocabulary in {name}, 0 <= id < {vocabulary}. Received: {ids[outside][0]}"
                )
            if np.any(ids == eos_id):
                raise ValueError(f"The search adds EOS itself. Expected: no id {eos_id} in {name}. Received: {ids}")
            if np.any((ids[..., :-1] == pad_id) & (ids[..., 1:] != pad_id)):
                raise ValueError(f"Expected: padding on the right of {name} alone. Received: {ids}")
            words = np.sum(ids != pad_id, axis=tuple(range(1, ids.ndim)))
            if np.any(words > most):
                raise ValueError(
                    f"Expected: {name} of at most max_length={most} words. Received: {int(words.max())} words"
                )

    def apply(self, log_probs: Tensor, ids: Tensor, t: Tensor, eos_id: int, pad_id: int) -> Tensor:
        """Apply the constraints: float32 `(B * K, V)`, NEVER or less for forbidden tokens.

        Args:
            log_probs: float32 `(B * K, V)`, of the model.
            ids: int32 `(B, K, L)`, the tokens so far, then padding.
            t: int scalar, their number.
            eos_id, pad_id: ids of the special tokens.
        """
        batch, beam_size, length = ops.shape(ids)
        vocabulary = log_probs.shape[-1]
        history = ops.reshape(ids, (batch * beam_size, length))
        changed = log_probs
        if not _is_number(self.repetition_penalty, 1):
            changed = _penalise_repetition(changed, history, self.repetition_penalty, eos_id)
        if self.no_repeat_ngram:
            changed = _refuse_repetition(changed, history, t, self.no_repeat_ngram, pad_id)
        table = ops.reshape(changed, (batch, beam_size, vocabulary))
        forced = self._forced(t, pad_id)
        if forced is not None and changed is not log_probs:
            raw = ops.reshape(log_probs, (batch, beam_size, vocabulary))
            table = ops.where(ops.expand_dims(ops.equal(forced, pad_id), 2), table, raw)
        refusal = self._refusal(t, vocabulary, forced, eos_id, pad_id)
        if refusal is not None:
            table = table + ops.expand_dims(refusal, 1)
        return ops.reshape(table, (batch * beam_size, vocabulary))

    def _forced(self, t: Tensor, pad_id: int) -> Tensor | None:
        """int32 `(B, 1)`: the token of the prefix at position t, padding after its end."""
        if self.prefix is None:
            return None
        prefix = ops.cast(ops.convert_to_tensor(self.prefix), "int32")
        size = ops.shape(prefix)[1]
        return ops.where(t < size, ops.take(prefix, ops.minimum(t, size - 1), axis=1), pad_id)[:, None]

    def _refusal(self, t: Tensor, vocabulary: int, forced: Tensor | None, eos_id: int, pad_id: int) -> Tensor | None:
        """float32 `(1 or B, V)`: the penalty added to each token, 0 or NEVER and less; `None` if none is forbidden.

        One sum over all hypotheses is cheap in every runtime, unlike a select between two tables. Tables hold 0 and 1
        up to the last product, because float16 cannot store NEVER.
        """
        words = ops.arange(vocabulary, dtype="int32")[None, :]
        refused = None
        if self.allowed is not None:
            mask = ops.cast(ops.convert_to_tensor(self.allowed), "float32")
            refused = 1.0 - ops.reshape(mask, (-1, vocabulary))
        if not _is_number(self.min_length, 0):
            least = ops.reshape(ops.cast(ops.convert_to_tensor(self.min_length), "int32"), (-1, 1))
            too_early = ops.cast(t + 1 < least, "float32")
            ending = too_early * ops.cast(ops.equal(words, eos_id), "float32")
            refused = ending if refused is None else refused + ending
        if forced is not None:
            others = ops.cast(ops.not_equal(words, forced), "float32")
            free = ops.cast(ops.equal(forced, pad_id), "float32")
            others = others * (1.0 - free)
            refused = others if refused is None else refused * free + others
        return None if refused is None else NEVER * refused

    def required(self, pad_id: int) -> Phrases | None:
        """Return the phrases, or `None`."""
        if self.phrases is None:
            return None
        return Phrases(ops.cast(ops.convert_to_tensor(self.phrases), "int32"), pad_id)


def allow_words(
    vocabulary: int, allowed: Iterable[int] | None = None, banned: Iterable[int] = (), eos_id: int = EOS_ID
) -> np.ndarray:
    """Return the mask of allowed tokens, bool `(V,)`, for `Constraints.allowed`. EOS is allowed, unless banned.

    >>> allow_words(6, banned=[4]).tolist()
    [True, True, True, True, False, True]

    Raises:
        ValueError: for an id outside of the vocabulary.
    """
    chosen, refused = (None if allowed is None else [*allowed]), [*banned]
    for index in [*(chosen or []), *refused]:
        if not 0 <= index < vocabulary:
            raise ValueError(f"Expected: ids of the vocabulary, 0 <= id < {vocabulary}. Received: {index}")
    mask = np.ones(vocabulary, bool)
    if chosen is not None:
        mask[:] = False
        mask[[*chosen, eos_id]] = True
    mask[refused] = False
    return mask


def _is_number(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _known(value: Any) -> Any:
    """Return a number or an array as NumPy; `None` for a symbolic tensor and for `None`."""
    return np.asarray(value) if isinstance(value, int | float | list | tuple | np.ndarray | np.generic) else None


def _scatter(table: Tensor, rows: Tensor, columns: Tensor, values: Tensor) -> Tensor:
    """Scatter values into a table `(N, V)` at `(row, column)`; duplicates keep one value, in TFLite their sum."""
    places = ops.stack([ops.reshape(rows, (-1,)), ops.reshape(columns, (-1,))], axis=1)
    return ops.scatter_update(table, places, ops.reshape(values, (-1,)))


def _penalise_repetition(log_probs: Tensor, history: Tensor, penalty: Tensor | float, eos_id: int) -> Tensor:
    """Multiply the log-probabilities of tokens in the history by the penalty. Padding may be included: never chosen.

    A token may occur more than once in a history. The scattered value is therefore a mark, for which summed
    duplicates do no harm.
    """
    rows = ops.zeros_like(history) + ops.arange(ops.shape(history)[0], dtype="int32")[:, None]
    marks = ops.cast(ops.not_equal(history, eos_id), "float32")
    there = _scatter(ops.zeros_like(log_probs), rows, history, marks)
    return ops.where(there > 0, log_probs * ops.cast(penalty, "float32"), log_probs)


def _refuse_repetition(log_probs: Tensor, history: Tensor, t: Tensor, n: int, pad_id: int) -> Tensor:
    """Add NEVER to tokens that would repeat an n-gram of the history `(N, L)`."""
    count, length = ops.shape(history)
    if n > length:
        return log_probs
    positions = ops.arange(length, dtype="int32")[None, :]
    repeats = ops.logical_and(positions < t, t >= n - 1)
    repeats = ops.logical_and(repeats, positions >= n - 1)
    for back in range(1, n):
        last = ops.take(history, ops.maximum(t - back, 0), axis=1)[:, None]
        before = ops.concatenate([ops.full_like(history[:, :back], pad_id), history[:, : length - back]], axis=1)
        repeats = ops.logical_and(repeats, ops.equal(before, last))
    rows = ops.zeros_like(history) + ops.arange(count, dtype="int32")[:, None]
    words = ops.where(repeats, history, pad_id)  # without a repeat padding is forbidden, which is never chosen
    return _scatter(log_probs, rows, words, ops.full_like(ops.cast(words, "float32"), NEVER))
