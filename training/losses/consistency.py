"""R-Drop: each pair is read twice, under two dropout masks, and the two predictions are pulled together.

    L = 1/N sum_n [ (CE(p_n) + CE(q_n)) / 2 + a/4 (KL(p_n | q_n) + KL(q_n | p_n)) ]

with p and q the two predictions of token n: half of equations 1 to 3 in Liang et al. 2021, "R-Drop: Regularized Dropout
for Neural Networks", so that the loss without the divergence is the ordinary one. Since

    KL(p | q) + KL(q | p) = sum_w (p_w - q_w) (log p_w - log q_w),

its gradient in the logits of p is `p (log p - log q - KL(p | q)) + p - q`, which is used up in the chunk of tokens in
which it is made, as in `head`.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_attention.recurrent.lstm_kernel import product
from keras_attention.types import Tensor


def exponentiate(logits: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """`exp(z - max z)` `(N, V)`, its sums `(N, 1)` and `log sum exp z` `(N, 1)`, without overflow.

    `read` `(N, 1)` is what was read of the logits: TensorFlow then reads it first, and the exponentials take the
    logits' place in memory.
    """
    # The last chunks of a tiny batch have no rows, which Keras refuses; what it takes as an initial value instead lies
    # on the processor under PyTorch, wherever the rows are.
    top = logits[:, :1] if logits.shape[0] == 0 else ops.max(logits, axis=-1, keepdims=True)
    if read is not None:
        top = top + 0.0 * read
    exponentials = ops.exp(logits - top)
    sums = ops.sum(exponentials, axis=-1, keepdims=True)
    return exponentials, sums, ops.log(sums) + top


def of_the_loss(arguments: tuple[Any, ...], named: dict[str, Any]) -> Tensor:
    """The gradient that reaches a scalar result, from what a backend calls the function of a custom gradient with.

    PyTorch: the inputs, and `upstream`; the others: the gradient alone, JAX in a tuple where the results are one.
    """
    found = named["upstream"] if "upstream" in named else arguments[0]
    return found[0] if isinstance(found, tuple | list) else found


def consistent_partition(
    hidden: Tensor,
    weights: Tensor,
    bias: Tensor,
    scale: Tensor,
    consistency: float,
    chunks: int = 1,
    products: str = "float32",
) -> Tensor:
    """The part of L above that needs the logits: log partitions and divergence, a scalar.

        sum_n scale_n [ (log sum_w exp y_nw + log sum_w exp z_nw) / 2 + a/4 sum_w (p_nw - q_nw) (log p_nw - log q_nw) ]

    Args:
        hidden: float32 `(2, N, E)`: states under the first and the second mask, of logits y and z.
        weights: `(V, E)`. bias: `(V,)`.
        scale: `(N,)`; no gradient reaches it.
        consistency: a.
        chunks: into how many parts the N rows are cut; never more than one part of both passes' logits is held.
        products: one of `lstm.PRODUCTS`.
    """

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(hidden: Tensor, weights: Tensor, bias: Tensor, scale: Tensor) -> Any:
        size = (ops.shape(hidden)[1] + chunks - 1) // chunks
        rounded = ops.cast(weights, products)
        turned = ops.transpose(rounded)
        total: Any = 0.0
        d_weights: Any = 0.0
        d_bias: Any = 0.0
        d_hidden: list[list[Tensor]] = [[], []]
        for chunk in range(chunks):
            part = slice(chunk * size, (chunk + 1) * size)
            share = ops.expand_dims(scale[part], 1)
            rows = [hidden[0, part], hidden[1, part]]
            if chunk:  # one after the other: TensorFlow would make all chunks' logits at once
                rows = [row + 0.0 * d_weights[0, 0] for row in rows]
            logs, probabilities = [], []
            for row in rows:
                logits = product(row, turned, products) + bias
                exponentials, sums, partition = exponentiate(logits)
                total = total + 0.5 * ops.sum(share * partition)
                logs.append(logits - partition)
                probabilities.append(exponentials / sums)
            ratio = logs[0] - logs[1]
            gap = probabilities[0] - probabilities[1]
            total = total + 0.25 * consistency * ops.sum(share * gap * ratio)
            for which, sign in enumerate((1.0, -1.0)):
                p = probabilities[which]
                weighted = p * (sign * ratio)
                divergence = ops.sum(weighted, axis=-1, keepdims=True)
                pull = weighted - divergence * p + sign * gap
                d_logits = ops.cast((0.5 * p + (0.25 * consistency) * pull) * share, products)
                d_hidden[which].append(product(d_logits, rounded, products))
                d_weights = d_weights + product(ops.transpose(d_logits), rows[which], products)
                d_bias = d_bias + ops.sum(ops.cast(d_logits, "float32"), axis=0)
        joined = ops.stack([ops.concatenate(parts, axis=0) for parts in d_hidden])

        def gradient(*arguments: Any, **named: Any) -> tuple[Tensor, ...]:
            up = of_the_loss(arguments, named)
            return up * joined, up * d_weights, up * d_bias, ops.zeros_like(scale)

        return total, gradient

    total: Tensor = run(hidden, weights, bias, scale)
    return total
