"""Greedy search: the likeliest token at every step."""

from typing import Any

from keras import ops

from keras_attention.search.constraints import Constraints
from keras_attention.search.contract import NEVER, SearchResult, Step, top_k
from keras_attention.search.penalties import coverage_mask, coverage_penalty_term, length_penalty_factor
from keras_attention.search.single_path import at, follow
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
    """Greedy search to EOS or the maximum length, with the same hypotheses as a beam of 1.

    Padding is never chosen; ties go to the lower id.

    Args:
        step: see `Step`.
        state: the state before the first token.
        memory: tensors that every step reads.
        batch_size: B; inferred from the first tensor of the state or the memory if `None`.
        max_length: maximum number of tokens, EOS counted: an int, a scalar, or int `(B,)`.
        capacity: static length L of the buffers; `max_length` if that is an int.
        source_length: S of the alignments; found by one extra step if `None`.
        length_penalty: alpha of the returned scores.
        length_penalty_kind: `"gnmt"` or `"average"`, see `length_penalty_factor`.
        coverage_penalty: GNMT beta of the returned scores.
        source_mask: bool `(B, S)`, true at the source positions to be covered. Required for a coverage penalty.
        constraints: see `Constraints`; phrases are excluded, which require beam search.
        bos_id, eos_id, pad_id: ids of the special tokens.

    Returns:
        A `SearchResult` with K = 1.

    Raises:
        ValueError: for buffers without a length, phrases, a coverage penalty without `source_mask`, and as
            `Constraints.check`.
    """
    wanted = coverage_mask(coverage_penalty, source_mask)

    def likeliest(log_probs: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        # The best two of the best three, one of which may be padding.
        values, words = top_k(log_probs, 3)
        values, order = top_k(ops.where(ops.equal(words, pad_id), NEVER, ops.maximum(values, NEVER)), 2)
        gaps = (values[:, 0] - values[:, 1]) / length_penalty_factor(t + 1, length_penalty, length_penalty_kind)
        return at(words, order[:, 0]), gaps

    result = follow(
        step,
        state,
        memory,
        likeliest,
        batch_size=batch_size,
        max_length=max_length,
        capacity=capacity,
        source_length=source_length,
        length_penalty=length_penalty,
        length_penalty_kind=length_penalty_kind,
        constraints=constraints,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )
    if wanted is not None:
        coverage = ops.sum(result["alignments"], axis=2)
        result["scores"] = result["scores"] + coverage_penalty_term(coverage, wanted, coverage_penalty)
    return result
