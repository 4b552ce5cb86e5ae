"""State of a beam search, and one step of extending its hypotheses."""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_attention.search.contract import NEVER, SearchResult, filled_or_infinite, top_k
from keras_attention.search.phrases import Phrases
from keras_attention.types import Tensor


class Beams(NamedTuple):
    """State of the beam in the loop, besides step, alignments and decoder state; `(B, K)` unless noted."""

    tokens: Tensor
    log_probs: Tensor  # of the model
    totals: Tensor  # log_probs after constraints changed them: the basis of scores
    scores: Tensor  # NEVER marks an empty slot
    lengths: Tensor
    live: Tensor
    finished: Tensor
    ids: Tensor  # (B, K, L)
    ancestors: Tensor  # (B, K, L): the slot whose step predicted the token at each position
    margins: Tensor  # (B,)


class Growth(NamedTuple):
    """Settings of one step that extends the hypotheses.

    Attributes:
        t: int scalar, the number of tokens so far.
        limits: int32 `(B,)`, maximum number of tokens of each row.
        normaliser: float scalar, the divisor of totals of `t + 1` tokens.
        eos_id, pad_id: ids of the special tokens.
        penalty: added to the scores of all continuations of a hypothesis, `(B, K, 1)`, or `None`.
        phrases: required phrases of every hypothesis, or `None`.
    """

    t: Tensor
    limits: Tensor
    normaliser: Tensor
    eos_id: int
    pad_id: int
    penalty: Tensor | None = None
    phrases: Phrases | None = None


def first_beams(batch: Tensor | int, beam_size: int, length: int, bos_id: Tensor | int, pad_id: int) -> Beams:
    """One live empty hypothesis in slot 0, and empty slots; `bos_id`: one for all rows, or one for each."""
    first = ops.broadcast_to(ops.equal(ops.arange(beam_size, dtype="int32"), 0)[None, :], (batch, beam_size))
    scores = ops.where(first, ops.zeros((), dtype="float32"), NEVER)
    return Beams(
        tokens=ops.zeros((batch, beam_size), dtype="int32") + ops.reshape(ops.cast(bos_id, "int32"), (-1, 1)),
        log_probs=scores,
        totals=scores,
        scores=scores,
        lengths=ops.zeros((batch, beam_size), dtype="int32"),
        live=first,
        finished=ops.zeros((batch, beam_size), dtype="bool"),
        ids=ops.full((batch, beam_size, length), pad_id, dtype="int32"),
        ancestors=ops.zeros((batch, beam_size, length), dtype="int32"),
        margins=ops.full((batch,), -NEVER, dtype="float32"),
    )


def active_in(
    beams: Beams, t: Tensor, limits: Tensor, longest: Tensor | None = None, now: Tensor | None = None
) -> Tensor:
    """Return the hypotheses that are extended at step t, bool `(B, K)`.

    `longest` `(B,)` and `now` are the length penalties of the maximum length and of one token more than so far.
    With them, a row stops once no live hypothesis can overtake the best finished one or is ahead of it already.
    Totals only fall, and the greater of the two is the largest divisor that they can get. With a penalty that
    favours short outputs the current total is divided by more than that.
    """
    active = ops.logical_and(beams.live, (t < limits)[:, None])
    if longest is None:
        return active
    best = ops.max(ops.where(beams.finished, beams.scores, NEVER), axis=1, initial=NEVER)
    reachable = beams.totals / ops.maximum(longest, now)[:, None]
    reachable = ops.where(active, ops.maximum(reachable, beams.scores), NEVER)
    return ops.logical_and(active, (ops.max(reachable, axis=1, initial=NEVER) > best)[:, None])


def advance(
    beams: Beams,
    growth: Growth,
    active: Tensor,
    log_probs: Tensor,
    allowed: Tensor | None = None,
    ranking: Tensor | None = None,
) -> tuple[Beams, Tensor]:
    """Extend each active hypothesis by one token, and keep the K best of these and of the frozen ones.

    Only the best K + 1 tokens of a hypothesis can be among the best K + 1 of all. They are selected first, by the
    ranking within a hypothesis, so that the remaining work is on few candidates.

    Args:
        beams: the hypotheses.
        growth: see `Growth`.
        active: bool `(B, K)`, from `active_in`.
        log_probs: float32 `(B * K, V)`, of the model.
        allowed: log_probs after the constraints, NEVER for a forbidden token; `None` if unchanged.
        ranking: `allowed` as ranked in this step only; `None` if it does not differ.

    Returns:
        The new beams, and the flat parent row `(B * K,)` of each.
    """
    batch, beam_size, length = ops.shape(beams.ids)
    vocabulary = log_probs.shape[-1]
    rows = batch * beam_size
    allowed = log_probs if allowed is None else allowed
    ranking = allowed if ranking is None else ranking

    # Padding is never chosen, and EOS may be forbidden: two more than the K + 1 that are needed.
    width = min(beam_size + 3, vocabulary)
    values, words = top_k(ranking, width)
    values = ops.reshape(values, (batch, beam_size, width))
    words = ops.reshape(words, (batch, beam_size, width))
    phrases, progress = growth.phrases, None
    if phrases is not None:
        there = phrases.missing(beams.ids), phrases.begun(beams.ids, growth.t)
        ranked = ops.reshape(ranking, (batch, beam_size, vocabulary))
        values, words = phrases.add_candidates(ranked, values, words, *there)
        progress = phrases.progress(words, *there)
    extended = (ops.expand_dims(beams.totals, 2) + values) / growth.normaliser
    if growth.penalty is not None:
        extended = extended + growth.penalty
    possible = ops.logical_and(ops.expand_dims(active, 2), ops.not_equal(words, growth.pad_id))
    possible = ops.logical_and(possible, values > NEVER / 2)
    if phrases is not None:
        room = phrases.leave_room(progress, words, growth.t, growth.limits, growth.eos_id)
        possible = ops.logical_and(possible, room)
    extended = ops.where(possible, ops.maximum(extended, NEVER), NEVER)
    # A frozen hypothesis has one candidate: itself, followed by padding.
    frozen = ops.expand_dims(ops.where(active, NEVER, beams.scores), 2)
    width = words.shape[2] + 1
    candidates = ops.reshape(ops.concatenate([frozen, extended], axis=2), (batch, beam_size * width))
    words = ops.concatenate([ops.full_like(words[:, :, :1], growth.pad_id), words], axis=2)
    if phrases is None:
        best, chosen = top_k(candidates, beam_size + 1)
        scores, chosen, dropped = best[:, :beam_size], chosen[:, :beam_size], best[:, beam_size]
        gap = ops.where(dropped > NEVER / 2, scores[:, -1] - dropped, -NEVER)
    else:
        # A frozen hypothesis contains all phrases.
        whole = ops.zeros_like(words[:, :, :1]) + ops.expand_dims(phrases.total, 2)
        progress = ops.reshape(ops.concatenate([whole, progress], axis=2), ops.shape(candidates))
        scores, chosen, gap = phrases.choose(candidates, progress, beam_size)

    first_rows = ops.arange(batch, dtype="int32")[:, None] * beam_size
    slots = chosen // width
    parents = ops.reshape(first_rows + slots, (rows,))
    chosen_words = ops.take(ops.reshape(words, (-1,)), ops.reshape(first_rows * width + chosen, (rows,)))

    def inherit(values: Tensor) -> Tensor:
        """Gather `(B, K, ...)` from the parents."""
        flat = ops.reshape(values, (rows, *values.shape[2:]))
        return ops.reshape(ops.take(flat, parents, axis=0), (batch, beam_size, *values.shape[2:]))

    def picked(table: Tensor) -> Tensor:
        """Gather `(B, K)` from a table `(B * K, V)`: the value of each chosen token after its parent."""
        found = ops.take(ops.reshape(table, (-1,)), parents * vocabulary + chosen_words)
        return ops.reshape(found, (batch, beam_size))

    filled = scores > NEVER / 2
    grown = ops.logical_and(inherit(active), filled)
    tokens = ops.where(grown, ops.reshape(chosen_words, (batch, beam_size)), growth.pad_id)
    ended = ops.logical_and(grown, ops.equal(tokens, growth.eos_id))
    here = ops.equal(ops.arange(length, dtype="int32"), growth.t)[None, None, :]
    new_log_probs = inherit(beams.log_probs) + ops.where(grown, picked(log_probs), 0.0)
    totals = new_log_probs
    if allowed is not log_probs:
        totals = inherit(beams.totals) + ops.where(grown, picked(allowed), 0.0)
    if ranking is not allowed:  # a term that only ranks this step is no part of the score
        scores = ops.where(grown, _score(totals, growth, inherit), scores)
    new = Beams(
        tokens=tokens,
        log_probs=new_log_probs,
        totals=totals,
        scores=scores,
        lengths=ops.where(filled, inherit(beams.lengths) + ops.cast(grown, "int32"), 0),
        live=ops.logical_and(grown, ops.logical_not(ended)),
        finished=ops.logical_or(ops.logical_and(inherit(beams.finished), filled), ended),
        ids=ops.where(here, tokens[:, :, None], inherit(beams.ids)),
        ancestors=ops.where(here, slots[:, :, None], inherit(beams.ancestors)),
        margins=ops.where(ops.any(active, axis=1), ops.minimum(beams.margins, gap), beams.margins),
    )
    return new, parents


def _score(totals: Tensor, growth: Growth, inherit: Callable[[Tensor], Tensor]) -> Tensor:
    scores = totals / growth.normaliser
    return scores if growth.penalty is None else scores + inherit(growth.penalty)[:, :, 0]


def gather_result(beams: Beams, alignments: Tensor, pad_id: int, ranked: bool = True) -> SearchResult:
    """Trace each hypothesis' ancestors through the alignments `(L, B * K, S)`, and mark empty slots.

    Margins include the gaps between neighbours where the hypotheses are `ranked` by their scores. In groups they
    are not: diversity affects their order.
    """
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
    if ranked and beam_size > 1:
        better, worse = beams.scores[:, :-1], beams.scores[:, 1:]
        gaps = ops.where(worse > NEVER / 2, better - worse, -NEVER)
        margins = ops.minimum(margins, ops.min(gaps, axis=1, initial=-NEVER))
    return {
        "ids": ops.where(inside, beams.ids, pad_id),
        "lengths": beams.lengths,
        "log_probs": filled_or_infinite(beams.log_probs, filled),
        "scores": filled_or_infinite(beams.scores, filled),
        "finished": beams.finished,
        "alignments": ordered * ops.cast(inside, "float32")[:, :, :, None],
        "margins": margins,
    }
