"""Sampling of tokens from the model's distribution, or from its likelier part."""

from typing import Any

import keras
from keras import ops

from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import NEVER, SearchResult, Step, batch_size_of, check_capacity, top_k
from keras_attention.search.single_path import at, follow
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, Tensor

NEGLIGIBLE = 1e-5
"""Probability below which a token is ignored in margins."""


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
    """Sample each token from `softmax(log P / temperature)`, truncated to its likeliest tokens.

    Truncated to `top_k_words` (Fan, Lewis and Dauphin 2018, arXiv 1805.04833, section 5.2), then to the fewest
    tokens that together hold `top_p` of the rest (nucleus: Holtzman et al. 2019, arXiv 1904.09751, section 3.1). A
    token is sampled by inverting the distribution function at one of the `uniforms`. One seed therefore gives the
    same outputs wherever the log-probabilities are the same, in an exported graph too.

    Args:
        step: see `Step`.
        state: the state before the first token, `B` rows.
        memory: tensors that every step reads, `B` rows.
        num_samples: K, independent samples of each row.
        temperature: above 0; below 1 likely tokens are drawn more often. A number or a scalar tensor.
        top_k_words: a static number; all tokens if `None`.
        top_p: in (0, 1], a number or a scalar tensor; the likeliest token is always kept.
        seed: seed of the draws; `None` for a new one in each call. Needs a known batch size.
        uniforms: float `(B, K, L)` in [0, 1), in place of a seed.
        batch_size, max_length, capacity, source_length: see `beam_search`.
        length_penalty, length_penalty_kind: of the returned scores, see `beam_search`.
        constraints: see `Constraints`; phrases are excluded. They change the log-probabilities before the temperature.
        bos_id, eos_id, pad_id: ids of the special tokens.

    Returns:
        A `SearchResult`, the hypotheses in the order of the draws, not ranked. A margin is in probability: the
            smallest distance, over the row's draws, between the number drawn and a border of the token's interval, or
            between `top_p` and the cumulative probability that it is compared with, or between the log-probabilities on
            both sides of the cut to `top_k_words`.

    Raises:
        ValueError: for numbers out of range, buffers without a length, phrases, and as `Constraints.check`.
    """
    length = check_capacity(capacity, max_length)
    _check(num_samples, temperature, top_k_words, top_p)
    batch = batch_size_of((state, memory)) if batch_size is None else batch_size
    if uniforms is None:
        uniforms = keras.random.uniform((batch, num_samples, length), dtype="float32", seed=seed)
    chances = ops.reshape(ops.cast(ops.convert_to_tensor(uniforms), "float32"), (batch * num_samples, length))

    def draw(log_probs: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Draw tokens by inverting the distribution function at `chance`, and the distance to another choice.

        Tokens are in the order of their ids, or, if truncated, the likeliest first.
        """
        vocabulary, chance = log_probs.shape[-1], ops.take(chances, t, axis=1)
        is_pad = ops.equal(ops.arange(vocabulary, dtype="int32"), pad_id)[None, :]
        allowed = ops.where(is_pad, NEVER, ops.maximum(log_probs, NEVER))
        everything = top_k_words is None and isinstance(top_p, int | float) and top_p == 1
        if everything:  # in any order: a sort of all tokens would cost more than the step
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
            # A token of negligible weight may be kept or cut without effect, so that it does not count in the margin.
            counts = ops.logical_and(weights > NEGLIGIBLE, ops.logical_not(first))
            near = ops.where(counts, ops.abs(before - ops.cast(top_p, "float32")), -NEVER)
            gaps = ops.minimum(gaps, ops.min(near, axis=-1, initial=-NEVER))
            weights = ops.where(kept, weights, 0.0)
        reached = ops.cumsum(weights, axis=-1)
        aim = chance[:, None] * reached[:, -1:]
        # The ends of the distribution are no borders: nothing is beyond them.
        inside = ops.logical_and(reached > 0, reached < reached[:, -1:])
        gaps = ops.minimum(gaps, ops.min(ops.where(inside, ops.abs(reached - aim), -NEVER), axis=1, initial=-NEVER))
        rank = ops.sum(ops.cast(reached <= aim, "int32"), axis=1)
        # Rounded sums may end below the total: then the last token of nonzero weight is chosen.
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
