"""An LSTM over a whole sequence with its own gradient: time-independent parts are single large products.

Automatic differentiation of a loop accumulates the gradient of the weights at every step: T products of a few rows
each, and T additions to matrices of the size of the weights. Here the backward loop computes only the gradients of
the gates; those of both kernels, of the bias and of the inputs follow from all steps at once. The factors of the
backward loop are computed in the forward loop, where their inputs are at hand. Each is a tensor of its own: packing
and splitting them cost TensorFlow on a CPU as much as half the products.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from keras import ops

from keras_attention.loops import run_time_major, with_gradient
from keras_attention.types import Tensor

PRODUCTS = ("float32", "bfloat16")
"""Dtypes of matrix product operands; sums and states stay in float32."""


def product(left: Tensor, right: Tensor, dtype: str = "float32") -> Tensor:
    """`left @ right` in float32, its operands and result rounded to `dtype`.

    Processors with bfloat16 dot products (AVX512-BF16, AMX, Arm BF16) do such products at twice the speed or more.
    """
    if dtype == "float32":
        return ops.matmul(left, right)
    return ops.cast(ops.matmul(ops.cast(left, dtype), ops.cast(right, dtype)), "float32")


def pass_gates(z: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Hidden and cell state after one LSTM step, from its sums z `(B, 4 U)`, and its slopes.

    The slopes are the six factors `(B, U)` of `pass_gates_back`: from h to c, from c to the previous cell state, and
    to the four parts of z. Those of i, f and g start at c, that of o at h.
    """
    i, f, g, o = ops.split(z, 4, axis=-1)
    i, f, g, o = ops.sigmoid(i), ops.sigmoid(f), ops.tanh(g), ops.sigmoid(o)
    new_cell = f * cell + i * g
    squashed = ops.tanh(new_cell)
    hidden = o * squashed
    slopes = [
        o * (1.0 - ops.square(squashed)),
        f,
        g * i * (1.0 - i),
        cell * f * (1.0 - f),
        i * (1.0 - ops.square(g)),
        hidden * (1.0 - o),
    ]
    return hidden, new_cell, slopes


def pass_gates_back(d_hidden: Tensor, d_cell: Tensor, slopes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Backpropagate the gradients of a step's hidden and cell state to z and to the previous cell state."""
    to_cell, forget, to_i, to_f, to_g, to_o = slopes
    d_cell = d_cell + d_hidden * to_cell
    d_z = ops.concatenate([d_cell * to_i, d_cell * to_f, d_cell * to_g, d_hidden * to_o], axis=-1)
    return d_z, d_cell * forget


def run_lstm(
    inputs: Tensor,
    hidden: Tensor,
    cell: Tensor,
    kernel: Tensor,
    recurrent_kernel: Tensor,
    bias: Tensor,
    products: str = "float32",
) -> tuple[Tensor, Tensor, Tensor]:
    """Results and gradients of `keras.layers.LSTM(U, return_sequences=True, return_state=True)` without a mask.

        z_t = x_t W + h_{t-1} R + b,   [i, f, g, o] = z_t
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g),   h_t = sigmoid(o) tanh(c_t)

    (Hochreiter and Schmidhuber 1997 with forget gates of Gers et al. 2000, in Keras' order of gates.)

    Args:
        inputs: float32 `(B, T, D)`.
        hidden, cell: float32 `(B, U)`, the first state.
        kernel: `(D, 4 U)`. recurrent_kernel: `(U, 4 U)`. bias: `(4 U,)`.
        products: one of `PRODUCTS`.

    Returns:
        The outputs `(B, T, U)`, and the last hidden and cell state.

    Raises:
        ValueError: for an unknown dtype of products.
    """
    return run_lstms([inputs], [(hidden, cell)], [(kernel, recurrent_kernel, bias)], products)[0]


def run_lstms(
    inputs: Sequence[Tensor],
    states: Sequence[tuple[Tensor, Tensor]],
    weights: Sequence[tuple[Tensor, Tensor, Tensor]],
    products: str = "float32",
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Run several LSTMs of one size, such as two directions, in one loop: half as many steps, each larger.

    Args:
        inputs: of each, `(B, T, D)`.
        states: of each, hidden and cell. weights: of each, kernel, recurrent kernel and bias.
        products: one of `PRODUCTS`.

    Returns:
        For each the result of `run_lstm`.

    Raises:
        ValueError: for an unknown dtype of products, and inputs of unlike shapes.
    """
    if products not in PRODUCTS:
        raise ValueError(f"Expected: products in {PRODUCTS}. Received: products={products!r}")
    shapes = [tuple(tensor.shape) for tensor in inputs]
    if len(set(shapes)) > 1:
        raise ValueError(f"Expected: inputs of one shape. Received: {shapes}")
    count, width = len(inputs), weights[0][1].shape[1]

    def multiply(left: Tensor, right: Tensor) -> Tensor:
        """`(count, N, K)` times `(count, K, M)`; a count of 1 is a plain product, which is faster."""
        if count > 1:
            return product(left, right, products)
        return ops.expand_dims(product(ops.squeeze(left, 0), ops.squeeze(right, 0), products), 0)

    @with_gradient
    def run(x: Tensor, h: Tensor, c: Tensor, kernel: Tensor, recurrent: Tensor, bias: Tensor) -> Any:
        # All but the weights as rows: `(count B, T, D)` and `(count B, U)`.
        def in_groups(rows: Tensor) -> Tensor:
            return ops.reshape(rows, (count, -1, rows.shape[-1]))

        def in_rows(groups: Tensor) -> Tensor:
            return ops.reshape(groups, (-1, groups.shape[-1]))

        def in_groups_of_steps(steps: Tensor) -> Tensor:
            """Regroup `(T, count B, D)` as `(count, T B, D)`."""
            depth = steps.shape[-1]
            groups = ops.reshape(steps, (ops.shape(steps)[0], count, -1, depth))
            return ops.reshape(ops.transpose(groups, (1, 0, 2, 3)), (count, -1, depth))

        def in_steps(groups: Tensor, length: Any) -> Tensor:
            """The inverse of `in_groups_of_steps`."""
            depth = groups.shape[-1]
            steps = ops.transpose(ops.reshape(groups, (count, length, -1, depth)), (1, 0, 2, 3))
            return ops.reshape(steps, (length, -1, depth))

        # Rounded once, not at every step.
        repeated = ops.cast(recurrent, products)

        def step(projected: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            z = projected + in_rows(multiply(in_groups(state[0]), repeated))
            new_hidden, new_cell, slopes = pass_gates(z, state[1])
            return [new_hidden, *slopes], [new_hidden, new_cell]

        length = ops.shape(x)[1]
        projected = multiply(in_groups(x), kernel) + ops.expand_dims(bias, 1)
        projected = ops.reshape(projected, (-1, length, width))
        (outputs, *slopes), (last_hidden, last_cell) = run_time_major(step, projected, [h, c])

        def gradient(*upstream: Any, **_: Any) -> tuple[Tensor, ...]:
            d_outputs, d_hidden, d_cell = upstream[0] if len(upstream) == 1 else upstream
            turned = ops.cast(ops.transpose(recurrent, (0, 2, 1)), products)

            def back(from_above: Tensor, state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
                at, d_hidden, d_cell = state
                d_z, d_cell = pass_gates_back(d_hidden + from_above, d_cell, [slope[at] for slope in slopes])
                return [d_z], [at - 1, in_rows(multiply(in_groups(d_z), turned)), d_cell]

            last = ops.convert_to_tensor(length - 1, dtype="int32")
            (d_z,), (_, d_h, d_c) = run_time_major(back, ops.flip(d_outputs, axis=1), [last, d_hidden, d_cell])
            # Like d_z: the last step first, its rows together.
            x_turned = ops.flip(ops.transpose(x, (1, 0, 2)), axis=0)
            h_turned = ops.concatenate([ops.flip(outputs[:-1], axis=0), ops.expand_dims(h, 0)], axis=0)
            flat, of_x, of_h = in_groups_of_steps(d_z), in_groups_of_steps(x_turned), in_groups_of_steps(h_turned)
            d_x = in_steps(multiply(flat, ops.transpose(kernel, (0, 2, 1))), length)
            return (
                ops.transpose(ops.flip(d_x, axis=0), (1, 0, 2)),
                d_h,
                d_c,
                multiply(ops.transpose(of_x, (0, 2, 1)), flat),
                multiply(ops.transpose(of_h, (0, 2, 1)), flat),
                ops.sum(flat, axis=1),
            )

        return (ops.transpose(outputs, (1, 0, 2)), last_hidden, last_cell), gradient

    def rows(tensors: Iterable[Tensor]) -> Tensor:
        """Concatenate along the first axis."""
        found = [ops.convert_to_tensor(tensor) for tensor in tensors]
        return ops.concatenate(found, axis=0) if count > 1 else found[0]

    # Reshaped, a variable is a plain tensor, as TensorFlow's custom gradients require in eager mode.
    stacked = [rows(ops.reshape(value, (1, *value.shape)) for value in values) for values in zip(*weights, strict=True)]
    outputs, hidden, cell = run(rows(inputs), *(rows(values) for values in zip(*states, strict=True)), *stacked)
    if count == 1:
        return [(outputs, hidden, cell)]
    return list(zip(*(ops.split(value, count, axis=0) for value in (outputs, hidden, cell)), strict=True))
