"""Greedy search: the likeliest word at every step."""

from typing import Any

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
    top_k,
)
from keras_attention.search.constraints import Constraints
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


def greedy_search(
    step: Step,
    state: Any,
    memory: Any,
    *,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int = 100,
    capacity: int | None = None,
    source_length: Tensor | int | None = None,
    length_penalty: Tensor | float = 0.0,
    length_penalty_kind: str = "gnmt",
    coverage_penalty: Tensor | float = 0.0,
    source_mask: Tensor | None = None,
    constraints: Constraints | None = None,
    bos_id: int = BOS_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Follows the likeliest word until EOS or the maximum length; the same hypotheses as a beam of 1.

    Padding is never chosen; ties go to the lower id.

    Args:
        step: see `Step`.
        state: the state before the first word.
        memory: what every step reads.
        batch_size: B; read off the first tensor of the state or the memory if `None`.
        max_length: most words, EOS counted: an int, a scalar, or int `(B,)`.
        capacity: static length L of the buffers; `max_length` if that is an int.
        source_length: S of the alignments; found by one step more if `None`.
        length_penalty: alpha of the returned scores.
        length_penalty_kind: `"gnmt"` or `"average"`, see `length_penalty_factor`.
        coverage_penalty: GNMT beta of the returned scores.
        source_mask: bool `(B, S)`, true at the source positions that should be covered; all if `None`.
        constraints: what hypotheses may not hold, or must; all but phrases, which beam search knows.
        bos_id, eos_id, pad_id: ids of the special words.

    Returns:
        A `SearchResult` with K = 1.

    Raises:
        ValueError: for buffers without a length, phrases, and what `Constraints.check` finds.
    """
    constraints = constraints or Constraints()
    if constraints.phrases is not None:
        raise ValueError(
            "Expected: beam_search, of any beam_size, for constraints with phrases. Received: greedy_search"
        )
    length = check_capacity(capacity, max_length)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    constraints.check(max_length, length, None, eos_id, pad_id)
    limits = row_limits(max_length, batch, length)
    positions = ops.arange(length, dtype="int32")[None, :]
    leaves = keras.tree.flatten(state)
    if source_length is None:
        source_length = source_length_of(step, batch, bos_id, state, memory)

    def body(
        t: Tensor,
        token: Tensor,
        log_probs: Tensor,
        totals: Tensor,
        lengths: Tensor,
        finished: Tensor,
        ids: Tensor,
        margins: Tensor,
        alignments: Tensor,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        running = ops.logical_and(ops.logical_not(finished), t < limits)
        step_log_probs, new_state, alignment = step(token, keras.tree.pack_sequence_as(state, list(leaves)), memory)
        vocabulary = step_log_probs.shape[-1]
        allowed = step_log_probs
        if constraints.changes_log_probs:
            allowed = constraints.apply(step_log_probs, ids[:, None], t, eos_id, pad_id)
        is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
        values, words = top_k(ops.where(is_pad, NEVER, ops.maximum(allowed, NEVER)), 2)
        possible = values[:, 0] > NEVER / 2
        word = ops.where(ops.logical_and(running, possible), words[:, 0], pad_id)
        picked = values[:, 0]
        if allowed is not step_log_probs:
            places = ops.arange(batch, dtype="int32") * vocabulary + word
            picked = ops.where(possible, ops.take(ops.reshape(step_log_probs, (-1,)), places), NEVER)
        gap = (values[:, 0] - values[:, 1]) / length_penalty_factor(t + 1, length_penalty, length_penalty_kind)
        ids = ops.where(ops.equal(positions, t), word[:, None], ids)
        alignments = ops.scatter_update(
            alignments, ops.reshape(t, (1, 1)), ops.cast(alignment, "float32")[None] * _column(running)
        )
        return (
            t + 1,
            word,
            log_probs + ops.where(running, picked, 0.0),
            totals + ops.where(running, values[:, 0], 0.0),
            lengths + ops.cast(running, "int32"),
            ops.logical_or(finished, ops.logical_or(ops.equal(word, eos_id), ops.logical_not(possible))),
            ids,
            ops.where(running, ops.minimum(margins, gap), margins),
            alignments,
            *keras.tree.flatten(new_state),
        )

    def unfinished(
        t: Tensor,
        token: Tensor,
        log_probs: Tensor,
        totals: Tensor,
        lengths: Tensor,
        finished: Tensor,
        *_: Tensor,
    ) -> Tensor:
        return ops.any(ops.logical_and(ops.logical_not(finished), t < limits))

    loop = (
        ops.convert_to_tensor(0, dtype="int32"),
        ops.full((batch,), bos_id, dtype="int32"),
        ops.zeros((batch,), dtype="float32"),
        ops.zeros((batch,), dtype="float32"),
        ops.zeros((batch,), dtype="int32"),
        ops.zeros((batch,), dtype="bool"),
        ops.full((batch, length), pad_id, dtype="int32"),
        ops.full((batch,), -NEVER, dtype="float32"),
        ops.zeros((length, batch, source_length), dtype="float32"),
        *leaves,
    )
    _, _, log_probs, totals, lengths, finished, ids, margins, alignments, *_ = ops.while_loop(unfinished, body, loop)
    scores = totals / length_penalty_factor(lengths, length_penalty, length_penalty_kind)
    if penalises_coverage(coverage_penalty):
        scores = scores + coverage_penalty_term(ops.sum(alignments, axis=0), source_mask, coverage_penalty)
    # A row that nothing could go on in has no hypothesis.
    found = totals > NEVER / 2
    lengths, finished = ops.where(found, lengths, 0), ops.logical_and(finished, found)
    ids = ops.where(found[:, None], ids, pad_id)
    log_probs, scores = (ops.where(found, values, -float("inf")) for values in (log_probs, scores))
    alignments = alignments * _column(found)
    return {
        "ids": ids[:, None],
        "lengths": lengths[:, None],
        "log_probs": log_probs[:, None],
        "scores": scores[:, None],
        "finished": finished[:, None],
        "alignments": ops.expand_dims(ops.transpose(alignments, (1, 0, 2)), 1),
        "margins": margins,
    }


def _column(flags: Tensor) -> Tensor:
    return ops.cast(flags, "float32")[None, :, None]
