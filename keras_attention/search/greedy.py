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
    coverage_penalty: Tensor | float = 0.0,
    source_mask: Tensor | None = None,
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
        length_penalty: GNMT alpha of the returned scores.
        coverage_penalty: GNMT beta of the returned scores.
        source_mask: bool `(B, S)`, true at the source positions that should be covered; all if `None`.
        bos_id, eos_id, pad_id: ids of the special words.

    Returns:
        A `SearchResult` with K = 1.
    """
    length = check_capacity(capacity, max_length)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    limits = row_limits(max_length, batch, length)
    positions = ops.arange(length, dtype="int32")[None, :]
    leaves = keras.tree.flatten(state)
    if source_length is None:
        source_length = source_length_of(step, batch, bos_id, state, memory)

    def body(
        t: Tensor,
        token: Tensor,
        log_probs: Tensor,
        lengths: Tensor,
        finished: Tensor,
        ids: Tensor,
        margins: Tensor,
        alignments: Tensor,
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        running = ops.logical_and(ops.logical_not(finished), t < limits)
        step_log_probs, new_state, alignment = step(token, keras.tree.pack_sequence_as(state, list(leaves)), memory)
        is_pad = ops.equal(ops.arange(step_log_probs.shape[-1], dtype="int32"), pad_id)[None, :]
        values, words = top_k(ops.where(is_pad, NEVER, step_log_probs), 2)
        word = ops.where(running, words[:, 0], pad_id)
        gap = (values[:, 0] - values[:, 1]) / length_penalty_factor(t + 1, length_penalty)
        ids = ops.where(ops.equal(positions, t), word[:, None], ids)
        alignments = ops.scatter_update(
            alignments, ops.reshape(t, (1, 1)), ops.cast(alignment, "float32")[None] * _column(running)
        )
        return (
            t + 1,
            word,
            log_probs + ops.where(running, values[:, 0], 0.0),
            lengths + ops.cast(running, "int32"),
            ops.logical_or(finished, ops.equal(word, eos_id)),
            ids,
            ops.where(running, ops.minimum(margins, gap), margins),
            alignments,
            *keras.tree.flatten(new_state),
        )

    def unfinished(
        t: Tensor, token: Tensor, log_probs: Tensor, lengths: Tensor, finished: Tensor, *_: Tensor
    ) -> Tensor:
        return ops.any(ops.logical_and(ops.logical_not(finished), t < limits))

    loop = (
        ops.convert_to_tensor(0, dtype="int32"),
        ops.full((batch,), bos_id, dtype="int32"),
        ops.zeros((batch,), dtype="float32"),
        ops.zeros((batch,), dtype="int32"),
        ops.zeros((batch,), dtype="bool"),
        ops.full((batch, length), pad_id, dtype="int32"),
        ops.full((batch,), -NEVER, dtype="float32"),
        ops.zeros((length, batch, source_length), dtype="float32"),
        *leaves,
    )
    _, _, log_probs, lengths, finished, ids, margins, alignments, *_ = ops.while_loop(unfinished, body, loop)
    scores = log_probs / length_penalty_factor(lengths, length_penalty)
    if penalises_coverage(coverage_penalty):
        scores = scores + coverage_penalty_term(ops.sum(alignments, axis=0), source_mask, coverage_penalty)
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
