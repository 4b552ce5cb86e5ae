"""Sampling: words drawn from the model's distribution, or from its likelier part."""

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
    source_length_of,
    tile_rows,
    top_k,
)
from keras_attention.search.constraints import Constraints
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor


class _Samples(NamedTuple):
    """`(B * K,)` where nothing else is said."""

    tokens: Tensor
    log_probs: Tensor
    totals: Tensor
    lengths: Tensor
    live: Tensor
    finished: Tensor
    ids: Tensor  # (B * K, L)


def sample_search(
    step: Step,
    state: Any,
    memory: Any,
    *,
    num_samples: int = 1,
    temperature: Tensor | float = 1.0,
    top_k_words: int | None = None,
    top_p: Tensor | float = 1.0,
    seed: int | None = None,
    uniforms: Tensor | None = None,
    batch_size: Tensor | int | None = None,
    max_length: Tensor | int = 100,
    capacity: int | None = None,
    source_length: Tensor | int | None = None,
    length_penalty: Tensor | float = 0.0,
    length_penalty_kind: str = "gnmt",
    constraints: Constraints | None = None,
    bos_id: int = BOS_ID,
    eos_id: int = EOS_ID,
    pad_id: int = PAD_ID,
) -> SearchResult:
    """Draws each word from `softmax(log P / temperature)`, cut to its likeliest words.

    Cut to `top_k_words` (Fan, Lewis and Dauphin 2018, arXiv 1805.04833, section 5.2), then to the fewest words that
    together hold `top_p` of what is left (nucleus: Holtzman et al. 2019, arXiv 1904.09751, section 3.1). A word
    is found by inverting the distribution function at a number of `uniforms`, so that one seed gives the same outputs
    wherever the same log-probabilities come out, in an exported graph too.

    Args:
        step: see `Step`.
        state: the state before the first word, `B` rows.
        memory: what every step reads, `B` rows.
        num_samples: K, hypotheses drawn for each row, independent of each other.
        temperature: above 0; below 1 likely words are drawn more often. A number or a scalar tensor.
        top_k_words: a fixed number; all words if `None`.
        top_p: in (0, 1], a number or a scalar tensor; the likeliest word always stays.
        seed: of the numbers drawn; `None` for other ones in each call. Needs a batch size that is known.
        uniforms: float `(B, K, L)` in [0, 1), in place of a seed.
        batch_size, max_length, capacity, source_length: see `beam_search`.
        length_penalty, length_penalty_kind: of the returned scores, see `beam_search`.
        constraints: see `Constraints`; all but phrases. They change the log-probabilities before the temperature.
        bos_id, eos_id, pad_id: ids of the special words.

    Returns:
        A `SearchResult`, the hypotheses in the order that they were drawn, not ranked; margins are 0, for a draw may
        turn on any difference.

    Raises:
        ValueError: for numbers out of range, buffers without a length, phrases, and what `Constraints.check` finds.
    """
    constraints = constraints or Constraints()
    length = check_capacity(capacity, max_length)
    _check(num_samples, temperature, top_k_words, top_p, constraints)
    constraints.check(max_length, length, None, eos_id, pad_id)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    rows = batch * num_samples
    if uniforms is None:
        uniforms = keras.random.uniform((batch, num_samples, length), seed=seed)
    uniforms = ops.reshape(ops.cast(ops.convert_to_tensor(uniforms), "float32"), (rows, length))
    limits = row_limits(max_length, batch, length)
    limits = ops.reshape(ops.tile(limits[:, None], (1, num_samples)), (rows,))
    state, memory = tile_rows(state, num_samples), tile_rows(memory, num_samples)
    if source_length is None:
        source_length = source_length_of(step, rows, bos_id, state, memory)
    positions = ops.arange(length, dtype="int32")

    def draw(log_probs: Tensor, chance: Tensor) -> Tensor:
        """int32 `(rows,)`: the word where the distribution function passes `chance`.

        Words come in the order of their ids, or where there is a cut the likeliest first.
        """
        vocabulary = log_probs.shape[-1]
        is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
        allowed = ops.where(is_pad, NEVER, ops.maximum(log_probs, NEVER))
        everything = top_k_words is None and isinstance(top_p, int | float) and top_p == 1
        if everything:  # in any order: a sort of all words would cost more than the step
            values, words = allowed, None
        else:
            values, words = top_k(allowed, min(top_k_words or vocabulary, vocabulary))
        energies = values / ops.cast(temperature, "float32")
        weights = ops.exp(energies - ops.logsumexp(energies, axis=-1, keepdims=True))
        if words is not None:
            before = ops.cumsum(weights, axis=-1) - weights
            kept = ops.logical_and(before < ops.cast(top_p, "float32"), values > NEVER / 2)
            kept = ops.logical_or(kept, ops.equal(ops.arange(ops.shape(values)[1], dtype="int32"), 0)[None, :])
            weights = ops.where(kept, weights, 0.0)
        reached = ops.cumsum(weights, axis=-1)
        rank = ops.sum(ops.cast(reached <= chance[:, None] * reached[:, -1:], "int32"), axis=1)
        # Sums of floats may end below the whole: then it is the last word that has a weight.
        last = ops.sum(ops.cast(reached < reached[:, -1:], "int32"), axis=1)
        rank = ops.minimum(rank, last)
        return rank if words is None else _at(words, rank)

    def body(t: Tensor, samples: list[Tensor], alignments: Tensor, leaves: list[Tensor]) -> tuple[Any, ...]:
        current = _Samples(*samples)
        packed = keras.tree.pack_sequence_as(state, list(leaves))
        log_probs, new_state, alignment = step(current.tokens, packed, memory)
        allowed = log_probs
        if constraints.changes_log_probs:
            history = ops.reshape(current.ids, (batch, num_samples, length))
            allowed = constraints.apply(log_probs, history, t, eos_id, pad_id)
        words = draw(allowed, ops.take(uniforms, t, axis=1))
        running = ops.logical_and(current.live, t < limits)
        picked = _at(allowed, words)
        possible = picked > NEVER / 2
        grown = ops.logical_and(running, possible)
        tokens = ops.where(grown, words, pad_id)
        ended = ops.logical_and(grown, ops.equal(tokens, eos_id))
        shown = ops.cast(alignment, "float32") * ops.cast(grown, "float32")[:, None]
        new = _Samples(
            tokens=tokens,
            log_probs=current.log_probs + ops.where(running, ops.where(possible, _at(log_probs, words), NEVER), 0.0),
            totals=current.totals + ops.where(running, ops.where(possible, picked, NEVER), 0.0),
            lengths=current.lengths + ops.cast(grown, "int32"),
            live=ops.logical_and(grown, ops.logical_not(ended)),
            finished=ops.logical_or(current.finished, ended),
            ids=ops.where(ops.equal(positions, t)[None, :], tokens[:, None], current.ids),
        )
        alignments = ops.scatter_update(alignments, ops.reshape(t, (1, 1)), shown[None])
        return t + 1, list(new), alignments, keras.tree.flatten(new_state)

    def unfinished(t: Tensor, samples: list[Tensor], *_: Any) -> Tensor:
        return ops.any(ops.logical_and(_Samples(*samples).live, t < limits))

    first = _Samples(
        tokens=ops.full((rows,), bos_id, dtype="int32"),
        log_probs=ops.zeros((rows,), dtype="float32"),
        totals=ops.zeros((rows,), dtype="float32"),
        lengths=ops.zeros((rows,), dtype="int32"),
        live=ops.ones((rows,), dtype="bool"),
        finished=ops.zeros((rows,), dtype="bool"),
        ids=ops.full((rows, length), pad_id, dtype="int32"),
    )
    alignments = ops.zeros((length, rows, source_length), dtype="float32")
    start = ops.convert_to_tensor(0, dtype="int32")
    _, samples, alignments, *_ = ops.while_loop(
        unfinished, body, (start, list(first), alignments, keras.tree.flatten(state))
    )
    drawn = _Samples(*samples)
    found = drawn.totals > NEVER / 2  # a row that nothing could go on in has no hypothesis
    scores = drawn.totals / length_penalty_factor(drawn.lengths, length_penalty, length_penalty_kind)
    alignments = ops.transpose(alignments, (1, 0, 2)) * ops.cast(found, "float32")[:, None, None]
    result = {
        "ids": ops.where(found[:, None], drawn.ids, pad_id),
        "lengths": ops.where(found, drawn.lengths, 0),
        "log_probs": ops.where(found, drawn.log_probs, -float("inf")),
        "scores": ops.where(found, scores, -float("inf")),
        "finished": ops.logical_and(drawn.finished, found),
        "alignments": alignments,
    }
    shaped = {name: ops.reshape(value, (batch, num_samples, *value.shape[1:])) for name, value in result.items()}
    shaped["alignments"] = ops.reshape(alignments, (batch, num_samples, length, source_length))
    return {**shaped, "margins": ops.zeros((batch,), dtype="float32")}  # type: ignore[typeddict-item]


def _check(num_samples: int, temperature: Any, top_k_words: int | None, top_p: Any, constraints: Constraints) -> None:
    if num_samples < 1:
        raise ValueError(f"Expected: num_samples >= 1. Received: num_samples={num_samples}")
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(f"Expected: temperature > 0 (greedy_search for 0). Received: temperature={temperature}")
    if top_k_words is not None and top_k_words < 1:
        raise ValueError(f"Expected: top_k_words >= 1. Received: top_k_words={top_k_words}")
    if isinstance(top_p, int | float) and not 0 < top_p <= 1:
        raise ValueError(f"Expected: 0 < top_p <= 1. Received: top_p={top_p}")
    if constraints.phrases is not None:
        raise ValueError("Expected: beam_search for constraints with phrases. Received: sample_search")


def _at(table: Tensor, columns: Tensor) -> Tensor:
    """`table[i, columns[i]]` of `(N, W)`."""
    count, width = ops.shape(table)
    places = ops.arange(count, dtype="int32") * width + columns
    return ops.take(ops.reshape(table, (-1,)), places)
