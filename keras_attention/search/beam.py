"""Beam search with length and coverage penalties, constraints and diverse groups, over fixed-size buffers."""

from typing import Any

import keras
from keras import ops

from keras_attention.search.beam_state import Beams, Growth, active_in, advance, first_beams, gather_result
from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import (
    SearchResult,
    Step,
    batch_size_of,
    check_capacity,
    float32_step,
    row_limits,
    sort_hypotheses,
    source_length_of,
    take_rows,
    tile_rows,
)
from keras_attention.search.penalties import coverage_mask, coverage_penalty_term, length_penalty_factor
from keras_attention.search_policy import STOPS
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


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
    length_penalty_kind: str = "gnmt",
    coverage_penalty: Tensor | float = 0.0,
    source_mask: Tensor | None = None,
    constraints: Constraints | None = None,
    groups: int = 1,
    diversity: Tensor | float = 0.5,
    stop: str = "all",
    finished_first: bool = False,
    bos_id: Tensor | int = BOS_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Beam search: keep the K hypotheses of highest penalised score at every step.

        score(Y) = log P(Y) / ((5 + length) / 6) ** alpha + beta sum_s log min(sum_t a_t(s), 1)

    (Wu et al. 2016, arXiv 1609.08144, equation 14), a_t the alignment that token t was predicted with. Live and
    finished hypotheses share the K slots. A finished one is frozen: its score never changes. At the maximum length a
    live hypothesis is kept, marked unfinished. Padding is never chosen. Ties are broken by the previous rank of the
    hypothesis, then by the lower id.

    With `groups` above 1 the search is diverse (Vijayakumar et al. 2016, arXiv 1610.02424, algorithm 1): each group
    has an equal share of the K. The groups choose their tokens one after the other. A token is penalised by
    `diversity` for each hypothesis of an earlier group that chose it at this step. Only the ranking uses this penalty.

    Args:
        step: see `Step`. Log-probabilities are at most 0.
        state: the state before the first token, `B` rows.
        memory: tensors that every step reads, `B` rows.
        beam_size: K, at least 1.
        batch_size: B; inferred from the first tensor of the state or the memory if `None`.
        max_length: maximum number of tokens, EOS counted: an int, a scalar, or int `(B,)`.
        capacity: static length L of the buffers; `max_length` if that is an int.
        source_length: S of the alignments; found by one extra step if `None`.
        length_penalty: alpha, a number or a scalar tensor; 0 ranks by plain log-probability.
        length_penalty_kind: `"gnmt"` as above, or `"average"` for `length ** alpha`.
        coverage_penalty: GNMT beta, a number or a scalar tensor, at least 0: against untranslated source tokens.
        source_mask: bool `(B, S)`, true at the source positions to be covered. Required for a coverage penalty.
        constraints: see `Constraints`.
        groups: number of groups, a divisor of K.
        diversity: strength of the dissimilarity between groups, a number or a scalar tensor.
        stop: `"all"`: until every hypothesis is finished; `"best"`: until no live hypothesis can overtake the best
            finished one. The first hypothesis is the same; those behind it may be left unfinished, and lack phrases.
        finished_first: whether finished hypotheses rank before those cut at the maximum length, regardless of
            scores.
        bos_id: first input token, for all rows, or int32 `(B,)` where `source_length` is given.
        eos_id, pad_id: ids of the special tokens.

    Returns:
        A `SearchResult`.

    Raises:
        ValueError: for a beam below 1, buffers without a length, groups that do not divide the beam, a coverage
            penalty without `source_mask`, and as `Constraints.check`.
    """
    constraints = constraints or Constraints()
    length = check_capacity(capacity, max_length)
    _check(beam_size, groups, stop)
    constraints.check(max_length, length, None, eos_id, pad_id)
    wanted = coverage_mask(coverage_penalty, source_mask)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    limits = row_limits(max_length, batch, length)
    step = float32_step(step)
    state, memory = tile_rows(state, beam_size), tile_rows(memory, beam_size)
    rows, size = batch * beam_size, beam_size // groups
    if source_length is None:
        source_length = source_length_of(step, rows, bos_id, state, memory)
    alignments = ops.zeros((length, rows, source_length), dtype="float32")
    # Attention accumulated by each source position; empty without a coverage penalty.
    coverage = [] if wanted is None else [ops.zeros((rows, source_length), dtype="float32")]
    phrases = constraints.required(pad_id)

    def normaliser(words: Tensor) -> Tensor:
        return length_penalty_factor(words, length_penalty, length_penalty_kind)

    def active(t: Tensor, beams: Beams) -> Tensor:
        return active_in(beams, t, limits, *((normaliser(limits), normaliser(t + 1)) if stop == "best" else ()))

    def unfinished(t: Tensor, beams: list[list[Tensor]], *_: Any) -> Tensor:
        return ops.any(ops.concatenate([active(t, Beams(*group)) for group in beams], axis=1))

    def grow(t: Tensor, group: Beams, log_probs: Tensor, penalty: Tensor | None, earlier: list[Tensor]) -> Any:
        allowed = log_probs
        if constraints.changes_log_probs:
            allowed = constraints.apply(log_probs, group.ids, t, eos_id, pad_id)
        ranking = allowed
        if earlier:
            chosen = ops.one_hot(ops.concatenate(earlier, axis=1), log_probs.shape[-1], dtype="float32")
            less = ops.cast(diversity, "float32") * ops.sum(chosen, axis=1)
            ranking = allowed - tile_rows(less, size)
        growth = Growth(t, limits, normaliser(t + 1), eos_id, pad_id, penalty, phrases)
        return advance(group, growth, active(t, group), log_probs, allowed, ranking)

    def body(
        t: Tensor, beams: list[list[Tensor]], alignments: Tensor, coverage: list[Tensor], leaves: list[Tensor]
    ) -> tuple[Any, ...]:
        current = [Beams(*group) for group in beams]
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        tokens = _joined([group.tokens for group in current])
        log_probs, new_state, alignment = step(ops.reshape(tokens, (rows,)), packed, memory)
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), alignment[None])
        coverage = [sums + alignment for sums in coverage]
        penalty = None
        for sums in coverage:
            by_slot = ops.reshape(sums, (batch, beam_size, source_length))
            penalty = ops.expand_dims(coverage_penalty_term(by_slot, wanted, coverage_penalty), 2)
        new: list[Beams] = []
        parents: list[Tensor] = []
        for number, group in enumerate(current):
            ours = slice(number * size, (number + 1) * size)
            table = log_probs
            if groups > 1:
                table = ops.reshape(log_probs, (batch, beam_size, log_probs.shape[-1]))[:, ours]
                table = ops.reshape(table, (batch * size, log_probs.shape[-1]))
            part = None if penalty is None else penalty[:, ours]
            grown, origin = grow(t, group, table, part, [group.tokens for group in new])
            new.append(grown)
            # Indices of the group's rows among all rows.
            origin = ops.reshape(origin, (batch, size)) + ops.arange(batch, dtype="int32")[:, None] * (beam_size - size)
            parents.append(origin + number * size)
        chosen = ops.reshape(_joined(parents), (rows,))
        leaves = keras.tree.flatten(take_rows(new_state, chosen))
        return t + 1, [list(group) for group in new], alignments, take_rows(coverage, chosen), leaves

    start = ops.convert_to_tensor(0, dtype="int32")
    beams = [list(first_beams(batch, size, length, bos_id, pad_id)) for _ in range(groups)]
    _, beams, alignments, *_ = ops.while_loop(
        unfinished, body, (start, beams, alignments, coverage, keras.tree.flatten(state))
    )
    found = []
    for number, group in enumerate(beams):
        ours = slice(number * size, (number + 1) * size)
        part = alignments
        if groups > 1:
            part = ops.reshape(alignments, (length, batch, beam_size, source_length))[:, :, ours]
            part = ops.reshape(part, (length, batch * size, source_length))
        found.append(gather_result(Beams(*group), part, pad_id, ranked=groups == 1 and not finished_first))
    return sort_hypotheses(found, finished_first=finished_first) if groups > 1 or finished_first else found[0]


def _check(beam_size: int, groups: int, stop: str) -> None:
    if beam_size < 1:
        raise ValueError(f"Expected: beam_size >= 1. Received: beam_size={beam_size}")
    if groups < 1 or beam_size % groups:
        raise ValueError(f"Expected: groups, a divisor of beam_size={beam_size}. Received: groups={groups}")
    if stop not in STOPS:
        raise ValueError(f"Expected: stop in {STOPS}. Received: stop={stop!r}")


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
