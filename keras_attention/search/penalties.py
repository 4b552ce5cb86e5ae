"""Length and coverage penalties of a hypothesis' score."""

from keras import ops

from keras_attention.search_policy import LENGTH_PENALTIES
from keras_attention.types import Tensor


def length_penalty_factor(length: Tensor, alpha: Tensor | float, kind: str = "gnmt") -> Tensor:
    """Length penalty, the divisor of a log-probability, in float32.

    `"gnmt"`: `((5 + length) / 6) ** alpha` (Wu et al. 2016, arXiv 1609.08144, equation 14); `"average"`:
    `length ** alpha`, with alpha 1 the mean over the tokens.

    Raises:
        ValueError: for an unknown kind.
    """
    if kind not in LENGTH_PENALTIES:
        raise ValueError(f"Expected: length_penalty_kind in {LENGTH_PENALTIES}. Received: length_penalty_kind={kind!r}")
    words = ops.cast(length, "float32")
    base = (5.0 + words) / 6.0 if kind == "gnmt" else ops.maximum(words, 1.0)
    return ops.power(base, ops.cast(alpha, "float32"))


def penalises_coverage(beta: Tensor | float) -> bool:
    """Return False for the number 0, where no coverage is accumulated."""
    return not (isinstance(beta, int | float) and beta == 0)


def coverage_mask(beta: Tensor | float, source_mask: Tensor | None) -> Tensor | None:
    """Return the mask of a coverage penalty, for all hypotheses of a row: `(B, 1, S)`; `None` for no penalty.

    Raises:
        ValueError: for a penalty without a mask, which would include padding.
    """
    if not penalises_coverage(beta):
        return None
    if source_mask is None:
        raise ValueError(
            "A coverage penalty without a mask would take padding for words left untranslated. Expected: source_mask, "
            f"bool (B, S), true at the words of the source. Received: coverage_penalty={beta}, source_mask=None"
        )
    return ops.expand_dims(ops.convert_to_tensor(source_mask), 1)


def coverage_penalty_term(coverage: Tensor, source_mask: Tensor, beta: Tensor | float) -> Tensor:
    """`beta * sum_s log(min(coverage_s, 1))` over real positions s (Wu et al. 2016, arXiv 1609.08144, equation 14).

    Args:
        coverage: float32 `(..., S)`: the attention that each position received from all tokens so far.
        source_mask: bool, true at real positions, of a shape that broadcasts.
        beta: a number or a scalar tensor.

    Returns:
        float32 `(...)`, at most 0. Coverage below 1e-6 counts as 1e-6.
    """
    logs = ops.log(ops.clip(coverage, 1e-6, 1.0)) * ops.cast(source_mask, "float32")
    return ops.cast(beta, "float32") * ops.sum(logs, axis=-1)
