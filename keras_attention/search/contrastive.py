"""Contrastive search: likely words whose representation does not repeat those before."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_attention.search.common import (
    NEVER,
    SearchResult,
    Step,
    batch_size_of,
    check_capacity,
    length_penalty_factor,
    row_limits,
    take_rows,
    tile_rows,
    top_k,
)
from keras_attention.search.constraints import Constraints
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


class _Path(NamedTuple):
    """`(B,)` where nothing else is said."""

    next_log_probs: Tensor  # (B, V), of the word that comes next
    alignment: Tensor  # (B, S), that word's
    log_probs: Tensor
    lengths: Tensor
    live: Tensor
    finished: Tensor
    ids: Tensor  # (B, L)
    vectors: Tensor  # (B, L, D), of unit length; zero where no word is


def contrastive_search(
    step: Step,
    state: Any,
    memory: Any,
    representation: Callable[[Any], Tensor],
    *,
    candidates: int = 5,
    alpha: Tensor | float = 0.6,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int = 100,
    capacity: int | None = None,
    length_penalty: Tensor | float = 0.0,
    length_penalty_kind: str = "gnmt",
    constraints: Constraints | None = None,
    bos_id: int = BOS_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Of the k likeliest words, the one that scores best (Su et al. 2022, arXiv 2202.06417, equation 5):

        (1 - alpha) P(w | before) - alpha max_j cos(h_w, h_j)

    `h_w` is what the model makes of the word as its next input, and `h_j` of the words before it. All k words go
    through the step at once, and the state of the chosen one is kept, so that there is one step for each word.

    Args:
        step: see `Step`.
        state: the state before the first word, `B` rows.
        memory: what every step reads, `B` rows.
        representation: `(N, D)` of a state with N rows, for instance the decoder's h.
        candidates: k, at least 1; 1 is greedy search.
        alpha: in [0, 1], a number or a scalar tensor; 0 is greedy search.
        batch_size, max_length, capacity: see `beam_search`.
        length_penalty, length_penalty_kind: of the returned scores, see `beam_search`.
        constraints: see `Constraints`; all but phrases.
        bos_id, eos_id, pad_id: ids of the special words.

    Returns:
        A `SearchResult` with K = 1; `log_probs` are those of the model. Margins are 0: a choice turns on differences
        that are not scores.

    Raises:
        ValueError: for numbers out of range, buffers without a length, phrases, and what `Constraints.check` finds.
    """
    constraints = constraints or Constraints()
    length = check_capacity(capacity, max_length)
    if candidates < 1:
        raise ValueError(f"Expected: candidates >= 1. Received: candidates={candidates}")
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"Expected: 0 <= alpha <= 1. Received: alpha={alpha}")
    if constraints.phrases is not None:
        raise ValueError("Expected: beam_search for constraints with phrases. Received: contrastive_search")
    constraints.check(max_length, length, None, eos_id, pad_id)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    limits = row_limits(max_length, batch, length)
    positions = ops.arange(length, dtype="int32")

    log_probs, state, alignment = step(ops.full((batch,), bos_id, dtype="int32"), state, memory)
    vocabulary = log_probs.shape[-1]
    count = min(candidates, vocabulary)
    wide_memory = tile_rows(memory, count)
    is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
    depth = representation(state).shape[-1]

    def body(t: Tensor, path: list[Tensor], alignments: Tensor, leaves: list[Tensor]) -> tuple[Any, ...]:
        current = _Path(*path)
        allowed = current.next_log_probs
        if constraints.changes_log_probs:
            allowed = constraints.apply(allowed, current.ids[:, None], t, eos_id, pad_id)
        values, words = top_k(ops.where(is_pad, NEVER, ops.maximum(allowed, NEVER)), count)
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        after, new_state, alignment = step(ops.reshape(words, (-1,)), tile_rows(packed, count), wide_memory)
        vectors = _unit(ops.cast(representation(new_state), "float32"))
        vectors = ops.reshape(vectors, (batch, count, depth))
        alike = ops.matmul(vectors, ops.transpose(current.vectors, (0, 2, 1)))
        alike = ops.where(positions < t, alike, -1.0)
        repeats = ops.where(t > 0, ops.max(alike, axis=2), 0.0)
        weight = ops.cast(alpha, "float32")
        merits = (1.0 - weight) * ops.exp(values) - weight * repeats
        _, best = top_k(ops.where(values > NEVER / 2, merits, NEVER), 1)
        rows = ops.arange(batch, dtype="int32") * count + best[:, 0]

        def chosen(tensor: Tensor) -> Tensor:
            return ops.take(ops.reshape(tensor, (batch * count, *tensor.shape[2:])), rows, axis=0)

        possible = chosen(values) > NEVER / 2
        running = ops.logical_and(current.live, t < limits)
        grown = ops.logical_and(running, possible)
        tokens = ops.where(grown, chosen(words), pad_id)
        ended = ops.logical_and(grown, ops.equal(tokens, eos_id))
        picked = ops.take(
            ops.reshape(current.next_log_probs, (-1,)), ops.arange(batch, dtype="int32") * vocabulary + tokens
        )
        here = ops.equal(positions, t)
        shown = current.alignment * ops.cast(grown, "float32")[:, None]
        new = _Path(
            next_log_probs=ops.take(after, rows, axis=0),
            alignment=ops.cast(ops.take(alignment, rows, axis=0), "float32"),
            log_probs=current.log_probs + ops.where(running, ops.where(possible, picked, NEVER), 0.0),
            lengths=current.lengths + ops.cast(grown, "int32"),
            live=ops.logical_and(grown, ops.logical_not(ended)),
            finished=ops.logical_or(current.finished, ended),
            ids=ops.where(here[None, :], tokens[:, None], current.ids),
            vectors=ops.where(here[None, :, None], chosen(vectors)[:, None], current.vectors),
        )
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), shown[None])
        return t + 1, list(new), alignments, keras.tree.flatten(take_rows(new_state, rows))

    def unfinished(t: Tensor, path: list[Tensor], *_: Any) -> Tensor:
        return ops.any(ops.logical_and(_Path(*path).live, t < limits))

    first = _Path(
        next_log_probs=log_probs,
        alignment=ops.cast(alignment, "float32"),
        log_probs=ops.zeros((batch,), dtype="float32"),
        lengths=ops.zeros((batch,), dtype="int32"),
        live=ops.ones((batch,), dtype="bool"),
        finished=ops.zeros((batch,), dtype="bool"),
        ids=ops.full((batch, length), pad_id, dtype="int32"),
        vectors=ops.zeros((batch, length, depth), dtype="float32"),
    )
    alignments = ops.zeros((length, batch, ops.shape(alignment)[1]), dtype="float32")
    start = ops.convert_to_tensor(0, dtype="int32")
    _, path, alignments, *_ = ops.while_loop(
        unfinished, body, (start, list(first), alignments, keras.tree.flatten(state))
    )
    end = _Path(*path)
    found = end.log_probs > NEVER / 2
    scores = end.log_probs / length_penalty_factor(end.lengths, length_penalty, length_penalty_kind)
    shown = ops.transpose(alignments, (1, 0, 2)) * ops.cast(found, "float32")[:, None, None]
    return {
        "ids": ops.where(found[:, None], end.ids, pad_id)[:, None],
        "lengths": ops.where(found, end.lengths, 0)[:, None],
        "log_probs": ops.where(found, end.log_probs, -float("inf"))[:, None],
        "scores": ops.where(found, scores, -float("inf"))[:, None],
        "finished": ops.logical_and(end.finished, found)[:, None],
        "alignments": ops.expand_dims(shown, 1),
        "margins": ops.zeros((batch,), dtype="float32"),
    }


def _unit(vectors: Tensor) -> Tensor:
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-12))
