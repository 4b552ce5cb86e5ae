"""Loops over time on every backend: differentiable, compiled by XLA, of a length that may be unknown to the graph."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
from keras import ops

from keras_attention.types import Tensor

RECURRENCES = ("layer", "loop")
"""`"layer"`: the loop of `keras.layers.RNN` (training, ONNX, SavedModel). `"loop"`: a `while_loop` that writes into a
buffer of fixed size, which converts to TFLite's built-in operators, and has no gradient under JAX."""

TimeStep: TypeAlias = Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]
"""`step(inputs, state) -> outputs, state`: lists of tensors; inputs and outputs are `(B, D)`."""


def run_steps(
    step: TimeStep,
    inputs: Sequence[Tensor],
    state: Sequence[Tensor],
    widths: Sequence[Tensor | int],
    recurrence: str = "layer",
) -> tuple[list[Tensor], list[Tensor]]:
    """Run `step` over axis 1 of the inputs.

    Build the layers that `step` calls beforehand: no weights are created inside. `step` must be deterministic.

    Args:
        step: see `TimeStep`.
        inputs: floats `(B, T, D)` of one dtype.
        state: the first state; a step returns tensors of the same shapes and dtypes.
        widths: depth of each output, an int or a scalar tensor.
        recurrence: one of `RECURRENCES`.

    Returns:
        The outputs, each `(B, T, width)`, and the last state.
    """
    if recurrence not in RECURRENCES:
        raise ValueError(f"Expected: recurrence in {RECURRENCES}. Received: recurrence={recurrence!r}")
    depths = [ops.shape(tensor)[-1] for tensor in inputs]

    def packed_step(packed: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        outputs, new_state = step(split(packed, depths), list(state))
        return join(outputs), new_state

    run = _run_layer if recurrence == "layer" else _run_loop
    outputs, final = run(packed_step, join(inputs), list(state), sum(widths[1:], widths[0]))
    return split(outputs, widths), list(final)


def run_time_major(
    step: Callable[[Tensor, list[Tensor]], tuple[list[Tensor], list[Tensor]]], inputs: Tensor, state: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run one sequence as `run_steps` does, with the loop of `keras.layers.RNN` and time-major outputs, unpacked.

    A step may read the step of another sequence `(T, B, D)` by index: `sequence[at]`, where `at` is part of the
    state. TensorFlow then copies nothing, except for steps whose size is no multiple of 64 bytes.

    Args:
        step: `step(inputs (B, D), state) -> outputs, state`.
        inputs: `(B, T, D)`.
        state: the first state; a step returns tensors of the same shapes and dtypes.

    Returns:
        The outputs, each `(T, B, width)`, and the last state.
    """
    layer = keras.layers.RNN(_Cell(step, state), return_sequences=True)
    _, outputs, final = layer.inner_loop(inputs, list(state), None)
    # Keras has just transposed them; TensorFlow and XLA cancel both transpositions.
    return [ops.transpose(output, (1, 0, 2)) for output in outputs], list(final)


def with_gradient(function: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """`ops.custom_gradient` for a function of several results.

    Under PyTorch, Keras takes only functions of one result; PyTorch's own gradient of the results is used there.
    """
    if keras.backend.backend() == "torch":
        return lambda *tensors: function(*tensors)[0]
    wrapped: Callable[..., Any] = ops.custom_gradient(function)
    return wrapped


def join(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate tensors along the last axis."""
    return ops.concatenate(list(tensors), axis=-1) if len(tensors) > 1 else tensors[0]


def split(tensor: Tensor, widths: Sequence[Tensor | int]) -> list[Tensor]:
    """Split a tensor along the last axis, the inverse of `join`."""
    if len(widths) == 1:
        return [tensor]
    parts, start = [], 0
    for width in widths:
        part = tensor[..., start : start + width]
        if isinstance(width, int) and part.shape[-1] is None:  # cut from an axis of unknown size
            part = ops.reshape(part, (*ops.shape(part)[:-1], width))
        parts.append(part)
        start = start + width
    return parts


class _Cell:
    """A function as a cell of `keras.layers.RNN`."""

    def __init__(self, step: Callable[..., Any], state: Sequence[Tensor]) -> None:
        self.step = step
        self.state_size = [1] * len(state)  # unused where states are given

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        output, new_state = self.step(inputs, list(states))
        return output, new_state

    __call__ = call


def _run_layer(
    step: Callable[..., Any], inputs: Tensor, state: list[Tensor], width: Tensor | int
) -> tuple[Tensor, Sequence[Tensor]]:
    layer = keras.layers.RNN(_Cell(step, state), return_sequences=True)
    _, outputs, final = layer.inner_loop(inputs, state, None)
    return outputs, final


def _run_loop(
    step: Callable[..., Any], inputs: Tensor, state: list[Tensor], width: Tensor | int
) -> tuple[Tensor, Sequence[Tensor]]:
    length = ops.shape(inputs)[1]
    time_major = ops.transpose(inputs, (1, 0, 2))
    buffer = ops.zeros((length, ops.shape(inputs)[0], width), dtype=inputs.dtype)

    def body(index: Tensor, buffer: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        output, new_state = step(ops.take(time_major, index, axis=0), state)
        buffer = ops.scatter_update(buffer, ops.reshape(index, (1, 1)), ops.expand_dims(output, 0))
        return (index + 1, buffer, *new_state)

    start = ops.convert_to_tensor(0, dtype="int32")
    _, buffer, *final = ops.while_loop(lambda index, *_: index < length, body, (start, buffer, *state))
    return ops.transpose(buffer, (1, 0, 2)), final
