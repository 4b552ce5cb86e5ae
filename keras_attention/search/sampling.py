"""Sampling: words drawn from the model's distribution, or from its likelier part."""

from typing import Any

import keras
from keras import ops

from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import NEVER, SearchResult, Step, batch_size_of, check_capacity, top_k
from keras_attention.search.single_path import at, follow
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor

NEGLIGIBLE = 1e-5
"""A probability that no draw is said to turn on."""


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
        A `SearchResult`, the hypotheses in the order that they were drawn, not ranked. A margin is in probability: the
        smallest distance, in any draw of the row, between the number drawn and a border of the word's interval, or
        between `top_p` and what is held against it, or between the log-probabilities on both sides of the cut to
        `top_k_words`.

    Raises:
        ValueError: for numbers out of range, buffers without a length, phrases, and what `Constraints.check` finds.
    """
    length = check_capacity(capacity, max_length)
    _check(num_samples, temperature, top_k_words, top_p)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    if uniforms is None:
        uniforms = keras.random.uniform((batch, num_samples, length), dtype="float32", seed=seed)
    chances = ops.reshape(ops.cast(ops.convert_to_tensor(uniforms), "float32"), (batch * num_samples, length))

    def draw(log_probs: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The words where the distribution function passes a chance; another one is never far.

        Words come in the order of their ids, or where there is a cut the likeliest first.
        """
        vocabulary, chance = log_probs.shape[-1], ops.take(chances, t, axis=1)
        is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
        allowed = ops.where(is_pad, NEVER, ops.maximum(log_probs, NEVER))
        everything = top_k_words is None and isinstance(top_p, int | float) and top_p == 1
        if everything:  # in any order: a sort of all words would cost more than the step
            values, words, gaps = allowed, None, ops.full_like(chance, -NEVER)
        else:
            count = min(top_k_words or vocabulary, vocabulary)
            values, words = top_k(allowed, min(count + 1, vocabulary))
            gaps = ops.full_like(chance, -NEVER) if count == vocabulary else values[:, count - 1] - values[:, count]
            values, words = values[:, :count], words[:, :count]
        energies = values / ops.cast(temperature, "float32")
        weights = ops.exp(energies - ops.logsumexp(energies, axis=-1, keepdims=True))
        if words is not None:
            before = ops.cumsum(weights, axis=-1) - weights
            kept = ops.logical_and(before < ops.cast(top_p, "float32"), values > NEVER / 2)
            first = ops.equal(ops.arange(ops.shape(values)[1], dtype="int32"), 0)[None, :]
            kept = ops.logical_or(kept, first)
            # What the cut may take or leave matters as much as it weighs.
            counts = ops.logical_and(weights > NEGLIGIBLE, ops.logical_not(first))
            near = ops.where(counts, ops.abs(before - ops.cast(top_p, "float32")), -NEVER)
            gaps = ops.minimum(gaps, ops.min(near, axis=-1, initial=-NEVER))
            weights = ops.where(kept, weights, 0.0)
        reached = ops.cumsum(weights, axis=-1)
        aim = chance[:, None] * reached[:, -1:]
        # Both ends of the whole are no borders: nothing is beyond them.
        inside = ops.logical_and(reached > 0, reached < reached[:, -1:])
        gaps = ops.minimum(gaps, ops.min(ops.where(inside, ops.abs(reached - aim), -NEVER), axis=1, initial=-NEVER))
        rank = ops.sum(ops.cast(reached <= aim, "int32"), axis=1)
        # Sums of floats may end below the whole: then it is the last word that has a weight.
        last = ops.sum(ops.cast(reached < reached[:, -1:], "int32"), axis=1)
        rank = ops.minimum(rank, last)
        return rank if words is None else at(words, rank), gaps

    return follow(
        step,
        state,
        memory,
        draw,
        count=num_samples,
        batch_size=batch,
        max_length=max_length,
        capacity=length,
        source_length=source_length,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        constraints=constraints,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )


def _check(num_samples: int, temperature: Any, top_k_words: int | None, top_p: Any) -> None:
    if num_samples < 1:
        raise ValueError(f"Expected: num_samples >= 1. Received: num_samples={num_samples}")
    if isinstance(temperature, int | float) and temperature <= 0:
        raise ValueError(f"Expected: temperature > 0 (greedy_search for 0). Received: temperature={temperature}")
    if top_k_words is not None and top_k_words < 1:
        raise ValueError(f"Expected: top_k_words >= 1. Received: top_k_words={top_k_words}")
    if isinstance(top_p, int | float) and not 0 < top_p <= 1:
        raise ValueError(f"Expected: 0 < top_p <= 1. Received: top_p={top_p}")
