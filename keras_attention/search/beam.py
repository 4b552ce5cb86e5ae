"""Beam search with a length penalty, over fixed-size buffers."""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_attention.search.common import (
    NEVER,
    SearchResult,
    Step,
    batch_size_of,
    check_capacity,
    coverage_penalty_term,
    length_penalty_factor,
    penalises_coverage,
    row_limits,
    source_length_of,
    take_rows,
    tile_rows,
    top_k,
)
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


class _Beams(NamedTuple):
    """What the loop carries beside the step, the alignments and the state; `(B, K)` where nothing else is said."""

    tokens: Tensor
    log_probs: Tensor
    scores: Tensor  # NEVER marks an empty slot
    lengths: Tensor
    live: Tensor
    finished: Tensor
    ids: Tensor  # (B, K, L)
    ancestors: Tensor  # (B, K, L): the slot whose step predicted the word at each position
    margins: Tensor  # (B,)


def beam_search(
    step: Step,
    state: Any,
    memory: Any,
    *,
    beam_size: int = 5,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int = 100,
    capacity: int | None = None,
    source_length: Tensor | int | None = None,
    length_penalty: Tensor | float = 1.0,
    coverage_penalty: Tensor | float = 0.0,
    source_mask: Tensor | None = None,
    bos_id: int = BOS_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Keeps the K hypotheses of highest penalised score at every step.

        score(Y) = log P(Y) / ((5 + length) / 6) ** alpha + beta sum_s log min(sum_t a_t(s), 1)

    (Wu et al. 2016, arXiv 1609.08144, equation 14), a_t the alignment that word t was predicted with. Live and finished
    hypotheses share the K slots. A finished one is frozen: its score never changes. At the maximum length a live
    hypothesis is kept as it is, marked unfinished. Padding is never chosen; among equal scores the hypothesis ranked
    higher before, and then the lower id, comes first.

    Args:
        step: see `Step`.
        state: the state before the first word, `B` rows.
        memory: what every step reads, `B` rows.
        beam_size: K, at least 1.
        batch_size: B; read off the first tensor of the state or the memory if `None`.
        max_length: most words, EOS counted: an int, a scalar, or int `(B,)`.
        capacity: static length L of the buffers; `max_length` if that is an int.
        source_length: S of the alignments; found by one step more if `None`.
        length_penalty: GNMT alpha, a number or a scalar tensor; 0 ranks by plain log-probability.
        coverage_penalty: GNMT beta, a number or a scalar tensor: against sources left untranslated.
        source_mask: bool `(B, S)`, true at the source positions that should be covered; all if `None`.
        bos_id, eos_id, pad_id: ids of the special words.

    Returns:
        A `SearchResult`.

    Raises:
        ValueError: for a beam below 1, or buffers without a length.
    """
    if beam_size < 1:
        raise ValueError(f"Expected: beam_size >= 1. Received: beam_size={beam_size}")
    length = check_capacity(capacity, max_length)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    limits = row_limits(max_length, batch, length)
    state, memory = tile_rows(state, beam_size), tile_rows(memory, beam_size)
    rows = batch * beam_size
    if source_length is None:
        source_length = source_length_of(step, rows, bos_id, state, memory)
    alignments = ops.zeros((length, rows, source_length), dtype="float32")
    # The attention that each source position got so far; nothing at all where it is not asked for.
    coverage = [ops.zeros((rows, source_length), dtype="float32")] if penalises_coverage(coverage_penalty) else []
    wanted = None if source_mask is None else ops.expand_dims(ops.convert_to_tensor(source_mask), 1)

    def unfinished(t: Tensor, beams: list[Tensor], *_: Any) -> Tensor:
        return ops.any(ops.logical_and(_Beams(*beams).live, (t < limits)[:, None]))

    def body(
        t: Tensor, beams: list[Tensor], alignments: Tensor, coverage: list[Tensor], leaves: list[Tensor]
    ) -> tuple[Any, ...]:
        current = _Beams(*beams)
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        log_probs, new_state, alignment = step(ops.reshape(current.tokens, (rows,)), packed, memory)
        alignment = ops.cast(alignment, "float32")
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), alignment[None])
        active = ops.logical_and(current.live, (t < limits)[:, None])
        coverage = [sums + alignment for sums in coverage]
        penalty: Tensor | float = 0.0
        for sums in coverage:
            by_slot = ops.reshape(sums, (batch, beam_size, source_length))
            penalty = coverage_penalty_term(by_slot, wanted, coverage_penalty)[:, :, None]
        chosen, parents = _advance(current, log_probs, active, t, length_penalty, penalty, eos_id, pad_id)
        coverage = take_rows(coverage, parents)
        return t + 1, list(chosen), alignments, coverage, keras.tree.flatten(take_rows(new_state, parents))

    start = ops.convert_to_tensor(0, dtype="int32")
    beams = list(_first_beams(batch, beam_size, length, bos_id, pad_id))
    _, beams, alignments, *_ = ops.while_loop(
        unfinished, body, (start, beams, alignments, coverage, keras.tree.flatten(state))
    )
    return _result(_Beams(*beams), alignments, pad_id)


def _first_beams(batch: Tensor | int, beam_size: int, length: int, bos_id: int, pad_id: int) -> _Beams:
    """One live hypothesis without a word in slot 0, and empty slots."""
    first = ops.broadcast_to(ops.equal(ops.arange(beam_size, dtype="int32"), 0)[None, :], (batch, beam_size))
    scores = ops.where(first, 0.0, NEVER)
    return _Beams(
        tokens=ops.full((batch, beam_size), bos_id, dtype="int32"),
        log_probs=scores,
        scores=scores,
        lengths=ops.zeros((batch, beam_size), dtype="int32"),
        live=first,
        finished=ops.zeros((batch, beam_size), dtype="bool"),
        ids=ops.full((batch, beam_size, length), pad_id, dtype="int32"),
        ancestors=ops.zeros((batch, beam_size, length), dtype="int32"),
        margins=ops.full((batch,), -NEVER, dtype="float32"),
    )


def _advance(
    beams: _Beams,
    step_log_probs: Tensor,
    active: Tensor,
    t: Tensor,
    length_penalty: Tensor | float,
    penalty: Tensor | float,
    eos_id: int,
    pad_id: int,
) -> tuple[_Beams, Tensor]:
    """Extends the active hypotheses by one word each, and keeps the K best of these and of the frozen ones.

    `penalty`, `(B, K, 1)` or 0, is added to the scores of all words that may follow a hypothesis. A frozen hypothesis
    has one candidate, itself, in the column of padding, which no active one may choose.

    Returns:
        The new beams, and the flat row `(B * K,)` that each of them continues.
    """
    batch, beam_size, length = ops.shape(beams.ids)
    vocabulary = step_log_probs.shape[-1]
    rows = batch * beam_size
    extended = ops.reshape(step_log_probs, (batch, beam_size, vocabulary)) + beams.log_probs[:, :, None]
    is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, None, :]
    extended_scores = extended / length_penalty_factor(t + 1, length_penalty)
    if not isinstance(penalty, float):
        extended_scores = extended_scores + penalty
    candidates = ops.where(
        active[:, :, None],
        ops.where(is_pad, NEVER, ops.maximum(extended_scores, NEVER)),
        ops.where(is_pad, beams.scores[:, :, None], NEVER),
    )
    best, indices = top_k(ops.reshape(candidates, (batch, beam_size * vocabulary)), beam_size + 1)
    scores, indices = best[:, :beam_size], indices[:, :beam_size]
    slots, words = indices // vocabulary, indices % vocabulary
    first_rows = ops.arange(batch, dtype="int32")[:, None] * beam_size
    parents = ops.reshape(first_rows + slots, (rows,))

    def inherit(values: Tensor) -> Tensor:
        """`(B, K, ...)` of the parents."""
        flat = ops.reshape(values, (rows, *values.shape[2:]))
        return ops.reshape(ops.take(flat, parents, axis=0), (batch, beam_size, *values.shape[2:]))

    filled = scores > NEVER / 2
    grown = ops.logical_and(inherit(active), filled)
    ended = ops.logical_and(grown, ops.equal(words, eos_id))
    picked = ops.reshape(
        ops.take(ops.reshape(extended, (-1,)), ops.reshape(first_rows * vocabulary + indices, (rows,))),
        (batch, beam_size),
    )
    here = ops.equal(ops.arange(length, dtype="int32"), t)[None, None, :]
    tokens = ops.where(grown, words, pad_id)
    any_active = ops.any(active, axis=1)
    dropped = best[:, beam_size]
    gap = ops.where(dropped > NEVER / 2, best[:, beam_size - 1] - dropped, -NEVER)
    new = _Beams(
        tokens=tokens,
        log_probs=ops.where(grown, picked, inherit(beams.log_probs)),
        scores=scores,
        lengths=ops.where(filled, inherit(beams.lengths) + ops.cast(grown, "int32"), 0),
        live=ops.logical_and(grown, ops.logical_not(ended)),
        finished=ops.logical_or(ops.logical_and(inherit(beams.finished), filled), ended),
        ids=ops.where(here, tokens[:, :, None], inherit(beams.ids)),
        ancestors=ops.where(here, slots[:, :, None], inherit(beams.ancestors)),
        margins=ops.where(any_active, ops.minimum(beams.margins, gap), beams.margins),
    )
    return new, parents


def _result(beams: _Beams, alignments: Tensor, pad_id: int) -> SearchResult:
    """Follows the ancestors of each hypothesis through the alignments `(L, B * K, S)`, and marks empty slots."""
    filled = beams.scores > NEVER / 2
    batch, beam_size, length = ops.shape(beams.ids)
    source_length = ops.shape(alignments)[2]
    rows = batch * beam_size
    positions = ops.arange(length, dtype="int32")[None, None, :]
    first_rows = ops.arange(batch, dtype="int32")[:, None, None] * beam_size
    origin = positions * rows + first_rows + beams.ancestors
    flat = ops.take(ops.reshape(alignments, (length * rows, source_length)), ops.reshape(origin, (-1,)), axis=0)
    ordered = ops.reshape(flat, (batch, beam_size, length, source_length))
    inside = positions < beams.lengths[:, :, None]
    margins = beams.margins
    if beam_size > 1:
        better, worse = beams.scores[:, :-1], beams.scores[:, 1:]
        gaps = ops.where(worse > NEVER / 2, better - worse, -NEVER)
        margins = ops.minimum(margins, ops.min(gaps, axis=1))
    infinity = float("inf")
    return {
        "ids": ops.where(inside, beams.ids, pad_id),
        "lengths": beams.lengths,
        "log_probs": ops.where(filled, beams.log_probs, -infinity),
        "scores": ops.where(filled, beams.scores, -infinity),
        "finished": beams.finished,
        "alignments": ordered * ops.cast(inside, "float32")[:, :, :, None],
        "margins": margins,
    }
