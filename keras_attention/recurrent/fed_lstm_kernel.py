"""An input-feeding LSTM decoder with its own gradient: time-independent parts are single large products.

With input feeding neither the recurrence nor attention can run over all steps at once. Automatic
differentiation of the loop accumulates the gradient of every weight at every step. Here both loops hold only what
depends on the previous step. The inputs' projection is before the loop, and the gradients of weights, keys and
values follow it.
"""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.luong import LuongAttention
from keras_attention.attention.masking import masked_softmax
from keras_attention.loops import run_time_major, with_gradient
from keras_attention.recurrent.attention_cell import AttentionCell
from keras_attention.recurrent.lstm_kernel import pass_gates, pass_gates_back, product
from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.types import Tensor


def is_fed_lstm(cell: Any) -> bool:
    """Return whether `run_fed_lstm` computes an `AttentionCell`: one LSTM, global attention by a dot product.

    A subclass may compute something else, as does a part in another dtype than float32.
    """
    stack, attention = cell.cell, cell.attentions[0]
    if type(cell) is not AttentionCell or type(stack) is not RecurrentStack:
        return False
    if stack.cell != "lstm" or stack.num_layers > 1:
        return False
    if any(part.compute_dtype != "float32" for part in (cell, stack, attention)):
        return False
    if cell.style != "luong" or cell.input_feeding is not True or len(cell.attentions) > 1:
        return False
    if cell.attentional is None or cell.activation is not keras.activations.tanh:
        return False
    plain = type(attention) is LuongAttention and attention.score in ("dot", "scaled_dot", "general")
    others = plain and (attention.window or attention.use_coverage or attention.dropout)
    return plain and not others and attention.alignment == "softmax"


def run_fed_lstm(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    fed: Tensor,
    keys: Tensor,
    values: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor,
    attentional_kernel: Tensor,
    mask: Tensor,
    factors: Tensor,
    products: tuple[str, str] = ("float32", "float32"),
) -> tuple[Tensor, ...]:
    """Results and gradients of an `AttentionRNN` over one LSTM, in Luong's style with input feeding.

        z_t = [x_t; f_{t-1}] W + h_{t-1} R + b,   [i, f, g, o] = z_t
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t)
        a_t = softmax(h_t K^T),   f_t = m_t tanh([a_t V; h_t] W_c)

    (Luong, Pham and Manning 2015, equations 5 to 8 and section 3.3.)

    Args:
        inputs: float32 `(B, T, E)`.
        hidden, cell: float32 `(B, U)`, the first state. fed: `(B, A)`, the first attentional vector.
        keys: `(B, S, U)`, scaled as the score requires. values: `(B, S, D)`.
        kernel: `(E + A, 4 U)`. recurrent_kernel: `(U, 4 U)`. bias: `(4 U,)`. attentional_kernel: `(D + U, A)`.
        mask: float32 `(B, S)`, 1 at real positions. Neither it nor the factors have a gradient.
        factors: m, float32 `(B, T, A)`, of dropout.
        products: dtypes of the operands in the matrix products of the recurrence and of the attentional vector.

    Returns:
        The attentional vectors f `(B, T, A)`, the alignments a `(B, T, S)`, and the last h, c and f.
    """
    fed_depth, depth = attentional_kernel.shape[1], values.shape[-1]
    recurrence, combination = products

    @with_gradient
    def run(
        x: Tensor,
        h: Tensor,
        c: Tensor,
        fed: Tensor,
        keys: Tensor,
        values: Tensor,
        kernel: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        combining: Tensor,
        mask: Tensor,
        m: Tensor,
    ) -> Any:
        before, fed_kernel = ops.split(kernel, [kernel.shape[0] - fed_depth], axis=0)
        repeated = ops.concatenate([fed_kernel, recurrent], axis=0)
        turned = [ops.cast(ops.transpose(repeated), recurrence), ops.cast(ops.transpose(combining), combination)]
        weights = [ops.cast(repeated, recurrence), ops.cast(combining, combination)]
        real = mask > 0

        first = ops.convert_to_tensor(0, dtype="int32")
        last = ops.shape(x)[1] - 1
        kept = _turned(m)

        def step(projected: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            at, fed, hidden, cell = state
            z = projected + product(ops.concatenate([fed, hidden], axis=-1), weights[0], recurrence)
            hidden, cell, slopes = pass_gates(z, cell)
            alignment = masked_softmax(_inner(keys, hidden), real)
            context = _weighted(alignment, values)
            vector = ops.tanh(product(ops.concatenate([context, hidden], axis=-1), weights[1], combination))
            keep = kept[at]
            to_vector = keep * (1.0 - ops.square(vector))
            vector = vector * keep
            return [vector, alignment, context, hidden, to_vector, *slopes], [at + 1, vector, hidden, cell]

        projected = product(x, before, recurrence) + bias
        found, (_, *state) = run_time_major(step, projected, [first, fed, h, c])
        # `(T, B, D)` each
        vectors, alignments, contexts, outputs, to_vectors, *slopes = found

        def gradient(*upstream: Any, **_: Any) -> tuple[Tensor, ...]:
            d_vectors, d_alignments, d_fed, d_hidden, d_cell = upstream[0] if len(upstream) == 1 else upstream
            d_alignments = _turned(d_alignments)

            def back(above: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
                at, d_fed, d_hidden, d_cell = state
                d_combined = (above + d_fed) * to_vectors[at]
                d_joined = product(d_combined, turned[1], combination)
                d_context, d_query = ops.split(d_joined, [depth], axis=-1)
                alignment, d_weights = alignments[at], d_alignments[at] + _inner(values, d_context)
                d_scores = alignment * (d_weights - ops.sum(alignment * d_weights, axis=-1, keepdims=True))
                d_h = d_hidden + d_query + _weighted(d_scores, keys)
                d_z, d_c = pass_gates_back(d_h, d_cell, [slope[at] for slope in slopes])
                d_fed, d_hidden = ops.split(product(d_z, turned[0], recurrence), [fed_depth], axis=-1)
                return [d_z, d_combined, d_context, d_scores], [at - 1, d_fed, d_hidden, d_c]

            start = [ops.convert_to_tensor(last, dtype="int32"), d_fed, d_hidden, d_cell]
            found, (_, d_fed, d_h, d_c) = run_time_major(back, ops.flip(d_vectors, axis=1), start)
            d_z, d_combined, d_contexts, d_scores = (_turned(ops.flip(one, axis=0)) for one in found)
            fed_before = ops.concatenate([ops.expand_dims(fed, 1), _turned(vectors[:-1])], axis=1)
            hidden_before = ops.concatenate([ops.expand_dims(h, 1), _turned(outputs[:-1])], axis=1)
            read = ops.concatenate([x, fed_before, hidden_before], axis=-1)
            d_kernels = _of_weights(read, d_z, recurrence)
            d_kernel, d_recurrent = ops.split(d_kernels, [kernel.shape[0]], axis=0)
            joined = _turned(ops.concatenate([contexts, outputs], axis=-1))
            return (
                product(d_z, ops.transpose(before), recurrence),
                d_h,
                d_c,
                d_fed,
                ops.matmul(ops.transpose(d_scores, (0, 2, 1)), _turned(outputs)),
                ops.matmul(ops.transpose(alignments, (1, 2, 0)), d_contexts),
                d_kernel,
                d_recurrent,
                ops.sum(d_z, axis=(0, 1)),
                _of_weights(joined, d_combined, combination),
                ops.zeros_like(mask),
                ops.zeros_like(m),
            )

        return (_turned(vectors), _turned(alignments), *state), gradient

    # Reshaped, a variable is a plain tensor, as TensorFlow's custom gradients require in eager mode.
    weights = [ops.reshape(one, one.shape) for one in (kernel, recurrent_kernel, bias, attentional_kernel)]
    tensors = [ops.convert_to_tensor(one) for one in (inputs, hidden, cell, fed, keys, values)]
    vectors, alignments, last_fed, last_hidden, last_cell = run(
        *tensors, *weights, ops.convert_to_tensor(mask), ops.convert_to_tensor(factors)
    )
    return vectors, alignments, last_hidden, last_cell, last_fed


def _turned(sequence: Tensor) -> Tensor:
    """Transpose `(T, B, D)` to `(B, T, D)` or back."""
    return ops.transpose(sequence, (1, 0, 2))


def _inner(rows: Tensor, vector: Tensor) -> Tensor:
    """Dot products of each of the rows `(B, S, D)` with a vector `(B, D)`: `(B, S)`."""
    return ops.matmul(rows, ops.expand_dims(vector, -1))[:, :, 0]


def _weighted(weights: Tensor, rows: Tensor) -> Tensor:
    """Weighted sum of the rows `(B, S, D)` with weights `(B, S)`: `(B, D)`."""
    return ops.matmul(ops.expand_dims(weights, 1), rows)[:, 0]


def _of_weights(inputs: Tensor, upstream: Tensor, dtype: str) -> Tensor:
    """The gradient of W in `inputs W`, over all rows and steps."""
    flat = ops.reshape(inputs, (-1, inputs.shape[-1]))
    return product(ops.transpose(flat), ops.reshape(upstream, (-1, upstream.shape[-1])), dtype)
