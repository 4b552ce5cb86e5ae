"""Loop and result of searches that extend each hypothesis along a single path."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
from keras import ops

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
    source_length_of,
    tile_rows,
)
from keras_attention.search.penalties import length_penalty_factor
from keras_attention.types import Tensor

Choose: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`choose(log_probs, t) -> words, gaps`: given float32 `(N, V)`, which may hold NEVER and below, return the next tokens
int32 `(N,)`, and the gap between each choice and its alternative, float32 `(N,)`."""


class Paths(NamedTuple):
    """State of the paths, `(N,)` unless noted."""

    tokens: Tensor
    log_probs: Tensor  # of the model
    totals: Tensor  # log_probs after constraints changed them; below NEVER / 2 where no token was allowed
    lengths: Tensor
    live: Tensor
    finished: Tensor
    ids: Tensor  # (N, L)
    margins: Tensor


def first_paths(rows: Tensor | int, length: int, bos_id: int, pad_id: int) -> Paths:
    """N empty paths."""
    return Paths(
        tokens=ops.full((rows,), bos_id, dtype="int32"),
        log_probs=ops.zeros((rows,), dtype="float32"),
        totals=ops.zeros((rows,), dtype="float32"),
        lengths=ops.zeros((rows,), dtype="int32"),
        live=ops.ones((rows,), dtype="bool"),
        finished=ops.zeros((rows,), dtype="bool"),
        ids=ops.full((rows, length), pad_id, dtype="int32"),
        margins=ops.full((rows,), -NEVER, dtype="float32"),
    )


def extend(
    paths: Paths,
    words: Tensor,
    gaps: Tensor,
    log_probs: Tensor,
    allowed: Tensor,
    t: Tensor,
    limits: Tensor,
    eos_id: int,
    pad_id: int,
) -> tuple[Paths, Tensor]:
    """Append the chosen tokens where they are allowed; return the paths, and which of them grew, bool `(N,)`."""
    running = ops.logical_and(paths.live, t < limits)
    chosen = at(allowed, words)
    possible = chosen > NEVER / 2
    grown = ops.logical_and(running, possible)
    tokens = ops.where(grown, words, pad_id)
    ended = ops.logical_and(grown, ops.equal(tokens, eos_id))
    picked = chosen if allowed is log_probs else at(log_probs, words)
    here = ops.equal(ops.arange(paths.ids.shape[1], dtype="int32"), t)[None, :]
    new = Paths(
        tokens=tokens,
        log_probs=paths.log_probs + ops.where(running, ops.where(possible, picked, NEVER), 0.0),
        totals=paths.totals + ops.where(running, ops.where(possible, chosen, NEVER), 0.0),
        lengths=paths.lengths + ops.cast(grown, "int32"),
        live=ops.logical_and(grown, ops.logical_not(ended)),
        finished=ops.logical_or(paths.finished, ended),
        ids=ops.where(here, tokens[:, None], paths.ids),
        margins=ops.where(running, ops.minimum(paths.margins, gaps), paths.margins),
    )
    return new, grown


def any_live(paths: Paths, t: Tensor, limits: Tensor) -> Tensor:
    """Return whether any path is live at step t."""
    return ops.any(ops.logical_and(paths.live, t < limits))


def follow(
    step: Step,
    state: Any,
    memory: Any,
    choose: Choose,
    *,
    count: int = 1,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int,
    capacity: int | None,
    source_length: Tensor | int | None,
    length_penalty: Tensor | float,
    length_penalty_kind: str,
    constraints: Constraints | None,
    bos_id: int,
    eos_id: int,
    pad_id: int,
) -> SearchResult:
    """Extend paths by `choose` until each ends, `count` of them for each row; arguments as in searches."""
    constraints = constraints or Constraints()
    length = check_capacity(capacity, max_length)
    constraints.check(max_length, length, None, eos_id, pad_id, phrases_allowed=False)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    rows = batch * count
    step = float32_step(step)
    limits = row_limits(max_length, batch, length)
    if count > 1:
        state, memory, limits = tile_rows((state, memory, limits), count)
    if source_length is None:
        source_length = source_length_of(step, rows, bos_id, state, memory)

    def body(t: Tensor, paths: list[Tensor], alignments: Tensor, leaves: list[Tensor]) -> tuple[Any, ...]:
        current = Paths(*paths)
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        log_probs, new_state, alignment = step(current.tokens, packed, memory)
        allowed = log_probs
        if constraints.changes_log_probs:
            history = ops.reshape(current.ids, (batch, count, length))
            allowed = constraints.apply(log_probs, history, t, eos_id, pad_id)
        words, gaps = choose(allowed, t)
        new, grown = extend(current, words, gaps, log_probs, allowed, t, limits, eos_id, pad_id)
        shown = alignment * ops.cast(grown, "float32")[:, None]
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), shown[None])
        return t + 1, list(new), alignments, keras.tree.flatten(new_state)

    def unfinished(t: Tensor, paths: list[Tensor], *_: Any) -> Tensor:
        return any_live(Paths(*paths), t, limits)

    start = ops.convert_to_tensor(0, dtype="int32")
    alignments = ops.zeros((length, rows, source_length), dtype="float32")
    first = list(first_paths(rows, length, bos_id, pad_id))
    _, paths, alignments, *_ = ops.while_loop(unfinished, body, (start, first, alignments, keras.tree.flatten(state)))
    return gather_paths(Paths(*paths), alignments, batch, count, length_penalty, length_penalty_kind, pad_id)


def gather_paths(
    paths: Paths,
    alignments: Tensor,
    batch: Tensor | int,
    count: int,
    length_penalty: Tensor | float,
    length_penalty_kind: str,
    pad_id: int,
) -> SearchResult:
    """Return the result of `batch * count` paths with alignments `(L, N, S)`; a path that could not go on is empty."""
    found = paths.totals > NEVER / 2
    scores = paths.totals / length_penalty_factor(paths.lengths, length_penalty, length_penalty_kind)
    shown = ops.transpose(alignments, (1, 0, 2)) * ops.cast(found, "float32")[:, None, None]
    length, source_length = paths.ids.shape[1], ops.shape(alignments)[2]

    def shaped(values: Tensor, *tail: Any) -> Tensor:
        return ops.reshape(values, (batch, count, *tail))

    return {
        "ids": shaped(ops.where(found[:, None], paths.ids, pad_id), length),
        "lengths": shaped(ops.where(found, paths.lengths, 0)),
        "log_probs": shaped(filled_or_infinite(paths.log_probs, found)),
        "scores": shaped(filled_or_infinite(scores, found)),
        "finished": shaped(ops.logical_and(paths.finished, found)),
        "alignments": shaped(shown, length, source_length),
        "margins": ops.min(shaped(paths.margins), axis=1, initial=-NEVER),
    }


def at(table: Tensor, columns: Tensor) -> Tensor:
    """Gather `table[i, columns[i]]` of `(N, W)`."""
    count, width = ops.shape(table)
    places = ops.arange(count, dtype="int32") * width + columns
    return ops.take(ops.reshape(table, (-1,)), places)
