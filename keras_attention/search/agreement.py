"""Bidirectional beam search, ranked by the agreement of both directions of one model."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_attention.search.beam import beam_search
from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import (
    NEVER,
    SearchResult,
    Step,
    batch_size_of,
    check_capacity,
    filled_or_infinite,
    float32_step,
    row_limits,
    sort_hypotheses,
    source_length_of,
    tile_rows,
)
from keras_attention.search.penalties import length_penalty_factor
from keras_attention.types import BACKWARD_ID, BOS_ID, EOS_ID, PAD_ID, Tensor


def agreement_search(
    step: Step,
    state: Any,
    memory: Any,
    *,
    beam_size: int = 5,
    backward_weight: Tensor | float = 0.5,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int = 100,
    capacity: int | None = None,
    source_length: Tensor | int | None = None,
    length_penalty: Tensor | float = 1.0,
    length_penalty_kind: str = "gnmt",
    constraints: Constraints | None = None,
    bos_id: int = BOS_ID,
    backward_id: int = BACKWARD_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Return the K hypotheses that both directions rank best, among those that a beam in either direction finished.

        score(Y) = ((1 - w) log p(y_1 .. y_T, EOS) + w log p(y_T .. y_1, EOS)) / lp(T + 1)

    (Liu et al. 2016, NAACL, "Agreement on Target-bidirectional Neural Machine Translation"), lp the length penalty of
    `beam_search`. The step is that of a model which generates left-to-right after `bos_id`, and right-to-left after
    `backward_id`. Both beams are one search over twice the rows; then each direction scores the other's hypotheses. A
    row without a finished hypothesis in either beam keeps the hypotheses of the left-to-right one. Hypotheses are
    compared by their ids: two segmentations of one text are two.

    Args:
        step, state, memory: see `beam_search`.
        beam_size: K of either beam, and of the result.
        backward_weight: w, from 0 to 1, a number or a scalar tensor.
        batch_size, max_length, capacity, source_length: see `beam_search`.
        length_penalty, length_penalty_kind: see `beam_search`.
        constraints: see `Constraints`; prefix and phrases are excluded, as they apply to one direction only. A
            repetition penalty shapes the beams, and is no part of the scores above.
        bos_id, backward_id, eos_id, pad_id: ids of the special tokens.

    Returns:
        A `SearchResult`, all in left-to-right order: `log_probs` are the sum above before the length penalty (the
            forward direction's for unfinished hypotheses), and alignments those of the forward direction.

    Raises:
        ValueError: for a weight out of range, a prefix or phrases, and what `beam_search` raises.
    """
    constraints = constraints or Constraints()
    if isinstance(backward_weight, int | float) and not 0 <= backward_weight <= 1:
        raise ValueError(f"Expected: 0 <= backward_weight <= 1. Received: {backward_weight=}")
    if constraints.prefix is not None or constraints.phrases is not None:
        raise ValueError("A prefix and phrases know one direction. Expected: neither, or beam_search with them")
    length = check_capacity(capacity, max_length)
    constraints.check(max_length, length, None, eos_id, pad_id)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    step = float32_step(step)
    if source_length is None:
        source_length = source_length_of(step, batch, bos_id, state, memory)
    state, memory = _twice(state), _twice(memory)
    ways = [ops.full((batch,), first, dtype="int32") for first in (bos_id, backward_id)]
    found = beam_search(
        step,
        state,
        memory,
        beam_size=beam_size,
        batch_size=2 * batch,
        max_length=_twice(row_limits(max_length, batch, length)),
        capacity=length,
        source_length=source_length,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        constraints=_of_both(constraints),
        bos_id=ops.concatenate(ways, axis=0),
        eos_id=eos_id,
        pad_id=pad_id,
    )
    # Each direction scores the other's hypotheses.
    turned = _turn(found["ids"], found["lengths"])
    first_words = tile_rows(ops.concatenate(ways[::-1], axis=0), beam_size)
    read, alignments = _read(step, state, memory, turned, found["lengths"], first_words, source_length)

    forwards = ops.expand_dims(ops.arange(2 * batch, dtype="int32") < batch, 1)
    written, first_scores = (ops.maximum(found[name], NEVER) for name in ("log_probs", "scores"))
    weight = ops.cast(backward_weight, "float32")
    ahead, behind = ops.where(forwards, written, read), ops.where(forwards, read, written)
    agreed = (1.0 - weight) * ahead + weight * behind
    # Exclude hypotheses that a direction with a nonzero weight cannot generate.
    possible = ops.logical_and(
        ops.logical_or(ahead > NEVER / 2, weight >= 1.0), ops.logical_or(behind > NEVER / 2, weight <= 0.0)
    )
    scores = agreed / length_penalty_factor(found["lengths"], length_penalty, length_penalty_kind)

    ids = ops.where(ops.expand_dims(forwards, 2), found["ids"], turned)
    (ours, theirs), (candidate, other) = _halves(ids), _halves(ops.logical_and(found["finished"], possible))
    other = ops.logical_and(other, ops.logical_not(_among(theirs, ours, candidate)))
    nothing = ops.logical_not(ops.any(ops.logical_or(candidate, other), axis=1, keepdims=True))
    unfinished = ops.logical_and(_twice(nothing), forwards)
    kept = ops.logical_and(ops.concatenate([ops.logical_or(candidate, nothing), other], axis=0), found["lengths"] > 0)
    result: dict[str, Tensor] = {
        **found,
        "ids": ids,
        "log_probs": ops.where(unfinished, written, agreed),
        "scores": ops.where(unfinished, first_scores, scores),
        "alignments": ops.concatenate([_halves(found["alignments"])[0], alignments], axis=0),
    }
    left = _keep(result, kept, pad_id)
    ways_apart: Any = [{name: _halves(value)[way] for name, value in left.items()} for way in (0, 1)]
    return sort_hypotheses(ways_apart, beam_size)


def _twice(tree: Any) -> Any:
    """Concatenate all rows with themselves."""
    return keras.tree.map_structure(lambda tensor: ops.concatenate([tensor, tensor], axis=0), tree)


def _halves(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and the last B of 2 B rows."""
    both = ops.reshape(tensor, (2, -1, *ops.shape(tensor)[1:]))
    return both[0], both[1]


def _of_both(constraints: Constraints) -> Constraints:
    """Return the constraints for twice the rows, where they may differ by row."""
    given = {}
    for name, axes in (("min_length", 1), ("allowed", 2)):
        value = getattr(constraints, name)
        tensor = None if value is None else ops.convert_to_tensor(value)
        if tensor is not None and len(tensor.shape) == axes and tensor.shape[0] != 1:
            given[name] = _twice(tensor)
    return dataclasses.replace(constraints, **given)


def _turn(ids: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the tokens of ids `(B, K, L)`; EOS and padding keep their positions."""
    batch, beam_size, length = ops.shape(ids)
    rows = batch * beam_size
    positions, ends = ops.arange(length, dtype="int32")[None, :], ops.reshape(lengths, (rows, 1)) - 1
    origin = ops.where(positions < ends, ends - 1 - positions, positions)
    origin = origin + ops.arange(rows, dtype="int32")[:, None] * length
    turned = ops.take(ops.reshape(ids, (-1,)), ops.reshape(origin, (-1,)), axis=0)
    return ops.reshape(turned, (batch, beam_size, length))


def _read(
    step: Step, state: Any, memory: Any, ids: Tensor, lengths: Tensor, first_words: Tensor, source_length: Tensor | int
) -> tuple[Tensor, Tensor]:
    """Score given hypotheses token by token: log-probabilities `(2 B, K)` of all, and alignments of the last B.

    Args:
        step: see `Step`.
        state, memory: of 2 B rows.
        ids, lengths: ids `(2 B, K, L)` and lengths `(2 B, K)` of the hypotheses.
        first_words: first input of each, `(2 B K,)`.
        source_length: S of the alignments `(B, K, L, S)`.
    """
    batch, beam_size, length = ops.shape(ids)
    rows = batch * beam_size
    state, memory = tile_rows(state, beam_size), tile_rows(memory, beam_size)
    words, counts = ops.transpose(ops.reshape(ids, (rows, length))), ops.reshape(lengths, (rows,))
    longest = ops.max(counts, initial=0)

    def body(t: Tensor, tokens: Tensor, totals: Tensor, alignments: Tensor, leaves: list[Tensor]) -> tuple[Any, ...]:
        log_probs, new_state, alignment = step(tokens, keras.tree.pack_sequence_as(state, list(leaves)), memory)
        written = ops.take(words, t, axis=0)
        places = ops.arange(rows, dtype="int32") * log_probs.shape[-1] + written
        picked = ops.maximum(ops.take(ops.reshape(log_probs, (-1,)), places, axis=0), NEVER)
        totals = totals + ops.where(t < counts, picked, 0.0)
        seen = _halves(alignment)[1]
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), seen[None])
        return t + 1, written, totals, alignments, keras.tree.flatten(new_state)

    def unread(t: Tensor, *_: Any) -> Tensor:
        return t < longest

    start = ops.convert_to_tensor(0, dtype="int32")
    totals = ops.zeros((rows,), dtype="float32")
    alignments = ops.zeros((length, rows // 2, source_length), dtype="float32")
    _, _, totals, alignments, _ = ops.while_loop(
        unread, body, (start, first_words, totals, alignments, keras.tree.flatten(state))
    )
    alignments = ops.reshape(alignments, (length, batch // 2, beam_size, source_length))
    inside = ops.arange(length, dtype="int32")[None, None, :] < _halves(lengths)[1][:, :, None]
    alignments = ops.transpose(alignments, (1, 2, 0, 3)) * ops.cast(inside, "float32")[:, :, :, None]
    return ops.reshape(totals, (batch, beam_size)), alignments


def _among(ids: Tensor, others: Tensor, there: Tensor) -> Tensor:
    """Return whether ids `(B, K, L)` are among those of `others` that `there` marks, bool `(B, K)`."""
    same = ops.all(ops.equal(ids[:, :, None], others[:, None]), axis=3)
    return ops.any(ops.logical_and(same, there[:, None]), axis=2)


def _keep(result: dict[str, Tensor], kept: Tensor, pad_id: int) -> dict[str, Tensor]:
    """Return the result with only the slots `kept`, bool `(2 B, K)`; the others are emptied."""
    return {
        **result,
        "ids": ops.where(ops.expand_dims(kept, 2), result["ids"], pad_id),
        "lengths": ops.where(kept, result["lengths"], 0),
        "log_probs": filled_or_infinite(result["log_probs"], kept),
        "scores": filled_or_infinite(result["scores"], kept),
        "finished": ops.logical_and(result["finished"], kept),
        "alignments": result["alignments"] * ops.cast(kept, "float32")[:, :, None, None],
    }
