"""Contract of a step, the result of a search, and tensor functions that the searches share."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypedDict

import keras
from keras import ops

from keras_attention.types import Tensor

Step: TypeAlias = Callable[[Tensor, Any, Any], tuple[Tensor, Any, Tensor]]
"""`step(token, state, memory) -> log_probs, state, alignment`.

`token` is int32 `(N,)`, `log_probs` float `(N, V)`, `alignment` float `(N, S)`, both of any float dtype; `state` and
`memory` are any nest of tensors whose first axis is N. Rows are independent of each other.
"""

BLOCK = 32
"""Block size of a blockwise `top_k`, for long rows."""
NEVER = -1e30
"""Finite stand-in for the score -inf inside a search: sums and products of it stay free of NaN."""


class SearchResult(TypedDict):
    """Result of a search: K hypotheses of each of B rows, best first, in buffers of length L.

    An empty slot, one without a hypothesis, has score and log-probability -inf and length 0.
    """

    ids: Tensor
    """int32 `(B, K, L)`: the tokens, EOS included, then padding."""
    lengths: Tensor
    """int32 `(B, K)`, EOS counted."""
    log_probs: Tensor
    """float32 `(B, K)`: the sum of the tokens' log-probabilities."""
    scores: Tensor
    """float32 `(B, K)`: log-probability over length penalty, and the coverage penalty; hypotheses are ranked by it."""
    finished: Tensor
    """bool `(B, K)`: whether the hypothesis ends in EOS; if not, it met its maximum length."""
    alignments: Tensor
    """float32 `(B, K, L, S)`: for each token the alignment it was predicted with, zero past the length."""
    margins: Tensor
    """float32 `(B,)`: the smallest gap between a candidate kept and one dropped at any step of the search, and between
    neighbours of the final ranking. Two implementations whose scores differ by less than half of it agree on all
    ids."""


def float32_step(step: Step) -> Step:
    """Wrap `step` to return log-probabilities and alignments in float32, in which searches accumulate them."""

    def cast_step(token: Tensor, state: Any, memory: Any) -> tuple[Tensor, Any, Tensor]:
        log_probs, new_state, alignment = step(token, state, memory)
        return ops.cast(log_probs, "float32"), new_state, ops.cast(alignment, "float32")

    return cast_step


def filled_or_infinite(values: Tensor, filled: Tensor) -> Tensor:
    """Return the values, with -inf where bool `filled` is false.

    Infinity is that of a logarithm: TFLite has no infinite constants, and a select in ONNX is a sum of products.
    """
    return ops.where(filled, values, 0.0) + ops.log(ops.cast(filled, "float32"))


def length_limits(
    source_lengths: Tensor, max_length: Tensor | int, factor: Tensor | float = 1.0, offset: Tensor | int = 0
) -> Tensor:
    """`min(max_length, floor(factor * source_length) + offset)`, at least 1: int32 `(B,)`."""
    relative = ops.cast(ops.floor(ops.cast(source_lengths, "float32") * factor), "int32") + offset
    return ops.maximum(ops.minimum(relative, max_length), 1)


def tile_rows(tree: Any, times: int) -> Any:
    """Repeat each row of every tensor of a nest: `(B, ...)` becomes `(B * times, ...)`, copies adjacent."""

    def tile(tensor: Tensor) -> Tensor:
        shape = ops.shape(tensor)
        copies = ops.tile(ops.expand_dims(tensor, 1), (1, times, *([1] * (len(shape) - 1))))
        return ops.reshape(copies, (-1, *shape[1:]))

    return keras.tree.map_structure(tile, tree)


def take_rows(tree: Any, rows: Tensor) -> Any:
    """Gather rows of every tensor of a nest."""
    return keras.tree.map_structure(lambda tensor: ops.take(tensor, rows, axis=0), tree)


def top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of each row of `(N, W)`, ties by the lower position: values and int32 positions `(N, k)`.

    TensorFlow and JAX guarantee this order of ties, and exports keep it: there it is `ops.top_k`. `torch.topk`
    guarantees neither which of the equal values at the border it keeps nor their order. There the positions are
    selected again, by keys without ties: `2 W - position` above the border, `W - position` on it and 0 below.
    A stable sort of all W gives the same at ten times the cost.
    """
    width = values.shape[1]
    if keras.backend.backend() == "torch":
        return _top_k_with_order(values, k)
    if isinstance(width, int) and width >= 2 * k * BLOCK:
        return _top_k_by_blocks(values, k)
    best, positions = ops.top_k(values, k)
    return best, ops.cast(positions, "int32")


def _top_k_with_order(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best, _ = ops.top_k(values, k)
    width = ops.shape(values)[1]
    border, everywhere = best[:, -1:], ops.arange(width, dtype="int32")[None, :]
    above = ops.where(values > border, width, 0)
    _, kept = ops.top_k(ops.where(values >= border, above + width - everywhere, 0), k)
    kept = ops.sort(kept, axis=-1)
    order = ops.argsort(-ops.take_along_axis(values, kept, axis=-1), axis=-1)  # stable on this backend
    return best, ops.cast(ops.take_along_axis(kept, order, axis=-1), "int32")


def _top_k_by_blocks(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Blockwise `top_k` in a quarter of the time: the k largest are in the k blocks with the largest maxima.

    Ties between blocks go to the lower position, and the chosen blocks are put back in order, so that ties still go
    to the lower position. The remainder behind the last whole block is always included.
    """
    rows, width = ops.shape(values)[0], values.shape[1]
    blocks = width // BLOCK
    whole, rest = values, None
    if width % BLOCK:
        whole, rest = values[:, : blocks * BLOCK], values[:, blocks * BLOCK :]
    whole = ops.reshape(whole, (rows * blocks, BLOCK))
    _, chosen = ops.top_k(ops.reshape(ops.max(whole, axis=1), (rows, blocks)), k)
    ascending, _ = ops.top_k(-ops.cast(chosen, "int32"), k)
    chosen = -ascending
    first = ops.arange(rows, dtype="int32")[:, None]
    found = ops.take(whole, ops.reshape(first * blocks + chosen, (-1,)), axis=0)
    found = ops.reshape(found, (rows, k * BLOCK))
    if rest is not None:
        found = ops.concatenate([found, rest], axis=1)
    best, places = ops.top_k(found, k)
    places = ops.cast(places, "int32")
    inside = ops.minimum(places // BLOCK, k - 1)
    block = ops.take(ops.reshape(chosen, (-1,)), ops.reshape(first * k + inside, (-1,)))
    positions = ops.reshape(block, (rows, k)) * BLOCK + places % BLOCK
    if rest is not None:
        positions = ops.where(places < k * BLOCK, positions, places - k * BLOCK + blocks * BLOCK)
    return best, positions


def batch_size_of(tree: Any) -> Tensor | int:
    """Return the size of the first axis of a nest's first tensor.

    Raises:
        ValueError: if the nest holds no tensor.
    """
    leaves = keras.tree.flatten(tree)
    if not leaves:
        raise ValueError("Expected: `batch_size`, where state and memory hold no tensor. Received: batch_size=None")
    return ops.shape(leaves[0])[0]


def source_length_of(step: Step, rows: Tensor | int, bos_id: int, state: Any, memory: Any) -> Tensor | int:
    """Find S of the alignments by running one step; callers that know S pass it to the search and save that step."""
    _, _, alignment = step(ops.full((rows,), bos_id, dtype="int32"), state, memory)
    return ops.shape(alignment)[1]


def row_limits(max_length: Tensor | int, batch_size: Tensor | int, capacity: int) -> Tensor:
    """Return `max_length`, a scalar or one value per row, as int32 `(B,)`, at most the capacity of the buffers."""
    limits = ops.cast(ops.convert_to_tensor(max_length), "int32")
    return ops.minimum(limits + ops.zeros((batch_size,), dtype="int32"), capacity)


def check_capacity(capacity: int | None, max_length: Tensor | int) -> int:
    """Return the static buffer length: `capacity`, or `max_length` where that is an int.

    Raises:
        ValueError: if neither is a positive int.
    """
    chosen = max_length if capacity is None else capacity
    if not isinstance(chosen, int) or chosen < 1:
        raise ValueError(
            "A search writes into buffers of a fixed length. Expected: capacity, a positive int, or max_length as one. "
            f"Received: capacity={capacity}, max_length={max_length}"
        )
    return chosen


def sort_hypotheses(
    results: Sequence[SearchResult], count: int | None = None, finished_first: bool = False
) -> SearchResult:
    """Merge several results for the same rows, best first; keep the best `count`, or all.

    With `finished_first`, hypotheses that ended in EOS come before all others.
    """
    scores = ops.concatenate([result["scores"] for result in results], axis=1)
    batch, width = ops.shape(scores)
    rows = ops.arange(batch, dtype="int32")[:, None] * width
    best, order = top_k(ops.maximum(scores, NEVER), width)
    later = None
    if finished_first:
        finished = ops.concatenate([result["finished"] for result in results], axis=1)
        ended = ops.reshape(ops.take(ops.reshape(finished, (-1,)), ops.reshape(rows + order, (-1,))), (batch, width))
        # Integers below 2 W, exact in float32: the rank, plus W for a finished hypothesis.
        places = ops.arange(width, 0, -1, dtype="int32") + width * ops.cast(ended, "int32")
        _, again = top_k(ops.cast(places, "float32"), width)
        flat = ops.reshape(rows + again, (-1,))
        best, order, ended = (
            ops.reshape(ops.take(ops.reshape(values, (-1,)), flat), (batch, width)) for values in (best, order, ended)
        )
        later = ops.not_equal(ended[:, 1:], ended[:, :-1])  # here the ranking does not depend on the scores
    kept = width if count is None else count
    flat = ops.reshape(rows + order[:, :kept], (-1,))

    def sort(name: str) -> Tensor:
        values = ops.concatenate([result[name] for result in results], axis=1)  # type: ignore[literal-required]
        tail = ops.shape(values)[2:]
        return ops.reshape(ops.take(ops.reshape(values, (-1, *tail)), flat, axis=0), (batch, kept, *tail))

    gaps = ops.where(best[:, 1:] > NEVER / 2, best[:, :-1] - best[:, 1:], -NEVER)
    if later is not None:
        gaps = ops.where(later, -NEVER, gaps)
    margins = [*(result["margins"] for result in results), ops.min(gaps, axis=1, initial=-NEVER)]
    return {
        "ids": sort("ids"),
        "lengths": sort("lengths"),
        "log_probs": sort("log_probs"),
        "scores": sort("scores"),
        "finished": sort("finished"),
        "alignments": sort("alignments"),
        "margins": ops.min(ops.stack(margins, axis=1), axis=1, initial=-NEVER),
    }
