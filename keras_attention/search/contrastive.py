"""Contrastive search: likely tokens whose representation does not repeat that of earlier ones."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import (
    NEVER,
    SearchResult,
    Step,
    batch_size_of,
    check_capacity,
    float32_step,
    row_limits,
    take_rows,
    tile_rows,
    top_k,
)
from keras_attention.search.single_path import Paths, any_live, extend, first_paths, gather_paths
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


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
    """Of the k likeliest tokens, choose the one of the best score (Su et al. 2022, arXiv 2202.06417, equation 5).

        (1 - alpha) P(w | before) - alpha max_j cos(h_w, h_j)

    `h_w` is the representation of the candidate after one step, and `h_j` those of the earlier tokens. All k
    candidates take the step in one batch, and the state of the chosen one is kept: one step per token.

    Args:
        step: see `Step`.
        state: the state before the first token, `B` rows.
        memory: tensors that every step reads, `B` rows.
        representation: maps a state of N rows to `(N, D)`, for instance the decoder's h.
        candidates: k, at least 1; 1 is greedy search.
        alpha: in [0, 1], a number or a scalar tensor; 0 is greedy search.
        batch_size, max_length, capacity: see `beam_search`.
        length_penalty, length_penalty_kind: of the returned scores, see `beam_search`.
        constraints: see `Constraints`; phrases are excluded.
        bos_id, eos_id, pad_id: ids of the special tokens.

    Returns:
        A `SearchResult` with K = 1; `log_probs` are those of the model. A margin is the smallest gap between the
            scores of a chosen token and the runner-up, or between the log-probabilities of the last candidate and the
            first token that was none.

    Raises:
        ValueError: for numbers out of range, buffers without a length, phrases, and as `Constraints.check`.
    """
    constraints = constraints or Constraints()
    length = check_capacity(capacity, max_length)
    if candidates < 1:
        raise ValueError(f"Expected: candidates >= 1. Received: candidates={candidates}")
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"Expected: 0 <= alpha <= 1. Received: alpha={alpha}")
    constraints.check(max_length, length, None, eos_id, pad_id, phrases_allowed=False)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    limits = row_limits(max_length, batch, length)
    positions = ops.arange(length, dtype="int32")
    step = float32_step(step)

    log_probs, state, alignment = step(ops.full((batch,), bos_id, dtype="int32"), state, memory)
    vocabulary = log_probs.shape[-1]
    count = min(candidates, vocabulary)
    wide_memory = tile_rows(memory, count)
    is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
    depth = representation(state).shape[-1]

    def body(
        t: Tensor, paths: list[Tensor], seen: list[Tensor], alignments: Tensor, leaves: list[Tensor]
    ) -> tuple[Any, ...]:
        current, (following, alignment, vectors) = Paths(*paths), seen
        allowed = following
        if constraints.changes_log_probs:
            allowed = constraints.apply(following, current.ids[:, None], t, eos_id, pad_id)
        values, words = top_k(ops.where(is_pad, NEVER, ops.maximum(allowed, NEVER)), min(count + 1, vocabulary))
        gaps = ops.full((batch,), -NEVER, "float32")
        if count < vocabulary:
            gaps = ops.where(values[:, count] > NEVER / 2, values[:, count - 1] - values[:, count], -NEVER)
        values, words = values[:, :count], words[:, :count]
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        after, new_state, new_alignment = step(ops.reshape(words, (-1,)), tile_rows(packed, count), wide_memory)
        new_vectors = ops.reshape(_unit(ops.cast(representation(new_state), "float32")), (batch, count, depth))
        alike = ops.matmul(new_vectors, ops.transpose(vectors, (0, 2, 1)))
        repeats = ops.where(t > 0, ops.max(ops.where(positions < t, alike, -1.0), axis=2, initial=-1.0), 0.0)
        weight = ops.cast(alpha, "float32")
        merits = (1.0 - weight) * ops.exp(values) - weight * repeats
        merits, best = top_k(ops.where(values > NEVER / 2, merits, NEVER), min(2, count))
        if count > 1:
            gaps = ops.minimum(gaps, merits[:, 0] - merits[:, 1])
        rows = ops.arange(batch, dtype="int32") * count + best[:, 0]

        def chosen(tensor: Tensor) -> Tensor:
            return ops.take(ops.reshape(tensor, (batch * count, *tensor.shape[2:])), rows, axis=0)

        new, grown = extend(current, chosen(words), gaps, following, allowed, t, limits, eos_id, pad_id)
        shown = alignment * ops.cast(grown, "float32")[:, None]
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), shown[None])
        vectors = ops.where(ops.equal(positions, t)[None, :, None], chosen(new_vectors)[:, None], vectors)
        seen = [ops.take(after, rows, axis=0), ops.take(new_alignment, rows, axis=0), vectors]
        return t + 1, list(new), seen, alignments, keras.tree.flatten(take_rows(new_state, rows))

    def unfinished(t: Tensor, paths: list[Tensor], *_: Any) -> Tensor:
        return any_live(Paths(*paths), t, limits)

    # Log-probabilities and alignment of the next token; unit-length vectors of the earlier ones.
    seen = [log_probs, alignment, ops.zeros((batch, length, depth), dtype="float32")]
    alignments = ops.zeros((length, batch, ops.shape(alignment)[1]), dtype="float32")
    start = ops.convert_to_tensor(0, dtype="int32")
    first = list(first_paths(batch, length, bos_id, pad_id))
    _, paths, _, alignments, *_ = ops.while_loop(
        unfinished, body, (start, first, seen, alignments, keras.tree.flatten(state))
    )
    return gather_paths(Paths(*paths), alignments, batch, 1, length_penalty, length_penalty_kind, pad_id)


def _unit(vectors: Tensor) -> Tensor:
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-12))
