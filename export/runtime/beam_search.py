"""Beam search with length, coverage and repetition penalties, in NumPy, over a `step` function.

The search of the graph `translate`, as a reference for devices that run only `encode` and `decode_step`.
"""

from collections.abc import Callable, Mapping

import numpy as np

from .inputs import Arrays


def refusals(knobs: Arrays, t: int, special_ids: Mapping[str, int]) -> np.ndarray | None:
    """Return the tokens that may not follow at position t, bool `(1 or B, V)`; `None` if all may.

    At a position of a prefix these are all tokens but its own.
    """
    refused = ~knobs["allowed"][None]
    if t + 1 < knobs["min_length"]:
        refused[:, special_ids["eos"]] = True
    forced = knobs["prefix"][:, t : t + 1]
    if (forced != special_ids["pad"]).any():
        others = np.arange(refused.shape[1]) != forced
        refused = np.where(forced == special_ids["pad"], refused, others)
    return refused if refused.any() else None


def repetition_penalised(log_probs: np.ndarray, ids: np.ndarray, penalty: float, eos: int) -> np.ndarray:
    """Multiply the log-probabilities `(B*K, V)` of tokens that are among the ids `(B*K, t)`, except EOS."""
    rows = np.arange(len(ids))[:, None]
    changed = log_probs.copy()
    changed[rows, ids] = np.where(ids == eos, log_probs[rows, ids], log_probs[rows, ids] * np.float32(penalty))
    return changed


def repeated_ngrams(ids: np.ndarray, vocabulary: int, n: int) -> np.ndarray:
    """Return the tokens that would repeat an n-gram of the ids `(B*K, t)`, bool `(B*K, V)`."""
    t = ids.shape[1]
    repeated = np.zeros((len(ids), vocabulary), bool)
    for start in range(t - n + 1):
        same = (ids[:, start : start + n - 1] == ids[:, t - n + 1 : t]).all(axis=1)
        repeated[same, ids[same, start + n - 1]] = True
    return repeated


def coverage_term(coverage: np.ndarray, source_mask: np.ndarray, beta: float) -> np.ndarray:
    """`beta * sum_s log(min(coverage_s, 1))` over real positions (Wu et al. 2016, equation 14), float32 `(B, K)`."""
    logs = np.log(np.clip(coverage, np.float32(1e-6), np.float32(1.0))) * source_mask[:, None]
    return np.asarray(np.float32(beta) * logs.sum(axis=2, dtype=np.float32))


def length_penalty_factor(length: int, alpha: float, kind: str = "gnmt") -> np.float32:
    """GNMT's `((5 + length) / 6) ** alpha` (Wu et al. 2016, equation 14), or `length ** alpha` of the average."""
    base = np.float32(5.0 + length) / np.float32(6.0) if kind == "gnmt" else np.float32(length)
    return np.float32(np.power(base, np.float32(alpha)))


def top_indices(values: np.ndarray, count: int) -> np.ndarray:
    """Return the columns of the `count` largest values of each row, best first; ties go to the lower column."""
    thresholds = np.partition(values, -count, axis=1)[:, -count]
    rows = []
    for row, threshold in zip(values, thresholds, strict=True):
        columns = np.flatnonzero(row >= threshold)
        rows.append(columns[np.argsort(-row[columns], kind="stable")[:count]])
    return np.stack(rows)


def beam_search(
    step: Callable[[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]],
    state: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    limits: np.ndarray,
    knobs: Arrays,
    source_mask: np.ndarray,
    special_ids: Mapping[str, int],
    length_penalty_kind: str = "gnmt",
    no_repeat_ngram: int = 0,
    finished_first: bool = False,
) -> dict[str, np.ndarray]:
    """Beam search (beam size 1: greedy), one `step` for all hypotheses at a time.

    The K slots of a row hold live and finished hypotheses, ranked by log-probability over length penalty, plus the
    coverage penalty; a finished one is frozen. Ties are broken by the previous rank of the hypothesis, then by the
    lower id.

    Args:
        step: `step(tokens (B*K,), state) -> log_probs (B*K, V), state, alignments (B*K, S)`.
        state: initial state, B*K rows, the K copies of a row adjacent.
        shape: B, K, S.
        limits: maximum number of tokens of each row, EOS counted, `(B,)`.
        knobs: `min_length`, `length_penalty`, `allowed`, `prefix` and, where the artefact has them,
            `coverage_penalty` and `repetition_penalty`.
        source_mask: bool `(B, S)`, true at the source positions to be covered.
        special_ids: ids of `pad`, `bos`, `eos`.
        length_penalty_kind: `"gnmt"` or `"average"`.
        no_repeat_ngram: block repeated n-grams of this size; 0 disables.
        finished_first: rank finished hypotheses before those cut at their limit, regardless of scores.

    Returns:
        `ids (B, K, L)`, `lengths` with EOS, `log_probs`, `scores`, `finished`, all `(B, K)`, and `alignments
        (B, K, L, S)`, best first; an empty slot has score -inf and length 0.
    """
    batch, beams, source_length = shape
    max_length = int(limits.max())
    pad, eos = special_ids["pad"], special_ids["eos"]
    length_penalty, beta = float(knobs["length_penalty"]), float(knobs.get("coverage_penalty", 0.0))
    coverage = np.zeros((batch * beams, source_length), np.float32)
    ids = np.full((batch, beams, max_length), pad, np.int32)
    alignments = np.zeros((batch, beams, max_length, source_length), np.float32)
    lengths, finished = np.zeros((batch, beams), np.int32), np.zeros((batch, beams), bool)
    scores = np.full((batch, beams), -np.inf, np.float32)
    scores[:, 0] = 0.0
    # The basis of scores: the model's log-probabilities, and the same after a repetition penalty.
    log_probs, totals, active = scores, scores, np.isfinite(scores)
    repetition = float(knobs.get("repetition_penalty", 1.0))
    tokens, rows = np.full((batch * beams,), special_ids["bos"], np.int32), np.arange(batch)[:, None]
    for t in range(max_length):
        step_log_probs, state, alignment = step(tokens, state)
        vocabulary, changed = step_log_probs.shape[-1], step_log_probs
        forced = knobs["prefix"][:, t : t + 1] if t < knobs["prefix"].shape[1] else np.full((batch, 1), pad)
        history, free = ids.reshape(batch * beams, -1)[:, :t], np.repeat(forced[:, 0] == pad, beams)
        if repetition != 1.0:  # within a prefix, no other constraint applies
            penalised = repetition_penalised(step_log_probs, history, repetition, eos)
            changed = np.where(free[:, None], penalised, step_log_probs)
        model_table = log_probs[:, :, None] + step_log_probs.reshape(batch, beams, vocabulary)
        extended = totals[:, :, None] + changed.reshape(batch, beams, vocabulary)
        ranked = extended / length_penalty_factor(t + 1, length_penalty, length_penalty_kind)
        if beta != 0:
            coverage += alignment
            ranked += coverage_term(coverage.reshape(batch, beams, -1), source_mask, beta)[:, :, None]
        possible, refused = active[:, :, None], refusals(knobs, t, special_ids)
        if refused is not None:
            possible = possible & ~refused[:, None]
        if no_repeat_ngram:
            repeated = repeated_ngrams(history, vocabulary, no_repeat_ngram) & free[:, None]
            possible = possible & ~repeated.reshape(batch, beams, vocabulary)
        candidates = np.where(possible, ranked, -np.inf)
        candidates[:, :, pad] = np.where(active, -np.inf, scores)  # a frozen hypothesis has one candidate: itself
        flat = candidates.reshape(batch, beams * vocabulary)
        chosen = top_indices(flat, beams)
        slots, words = chosen // vocabulary, (chosen % vocabulary).astype(np.int32)
        scores = np.take_along_axis(flat, chosen, axis=1)
        filled = np.isfinite(scores)
        grown = active[rows, slots] & filled
        ended = grown & (words == eos)
        log_probs = np.where(grown, model_table[rows, slots, words], log_probs[rows, slots])
        totals = np.where(grown, extended[rows, slots, words], totals[rows, slots])
        lengths = np.where(filled, lengths[rows, slots] + grown, 0).astype(np.int32)
        finished = (finished[rows, slots] & filled) | ended
        active = grown & ~ended & (t + 1 < limits)[:, None]
        ids, alignments = ids[rows, slots], alignments[rows, slots]
        ids[:, :, t] = np.where(grown, words, pad)
        new_alignment = alignment.reshape(batch, beams, source_length)[rows, slots]
        alignments[:, :, t] = np.where(grown[:, :, None], new_alignment, 0.0)
        parents = (rows * beams + slots).reshape(-1)
        state = {name: value[parents] for name, value in state.items()}
        coverage = coverage[parents]
        tokens = ids[:, :, t].reshape(-1)
        if not active.any():
            break
    found = {
        "ids": np.where(filled[:, :, None], ids, pad),
        "lengths": lengths,
        "log_probs": np.where(filled, log_probs, -np.inf).astype(np.float32),
        "scores": scores,
        "finished": finished,
        "alignments": np.where(filled[:, :, None, None], alignments, 0.0).astype(np.float32),
    }
    if finished_first:
        order = np.argsort(~finished, axis=1, kind="stable")
        found = {name: value[rows, order] for name, value in found.items()}
    return found
