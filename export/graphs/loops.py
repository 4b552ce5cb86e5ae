"""Recurrent layers of any Keras model as plain loops, which TFLite's built-in operators can express.

The stock recurrence collects its steps in a list of tensors; with a dynamic batch that has no built-in form. The same
cells can be expressed with a loop that writes into a buffer of fixed size.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_attention.attention.base import AttentionMechanism
from keras_attention.recurrent.attention_rnn import AttentionRNN
from keras_attention.types import Tensor


def all_layers(model: keras.Layer) -> list[Any]:
    """Return the layers of a model at any depth. Keras has no public API for this; it is isolated here."""
    return list(model._flatten_layers())


def recurrent_layers(model: keras.Layer) -> list[Any]:
    """Return all LSTM, GRU, SimpleRNN and RNN layers of a model, at any depth."""
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN)]


def stepping_layers(model: keras.Layer) -> list[Any]:
    """Return all layers of this package that loop over time themselves, at any depth."""
    kinds = (AttentionRNN, AttentionMechanism)
    return [layer for layer in all_layers(model) if isinstance(layer, kinds)]


@contextlib.contextmanager
def looping(layers: Sequence[Any], loop: Callable[[Any], Any]) -> Iterator[None]:
    """Context in which each of these recurrent layers runs `loop(layer)` as its `inner_loop`."""
    for layer in layers:
        layer.inner_loop = loop(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.inner_loop


@contextlib.contextmanager
def stepped(model: keras.Model) -> Iterator[None]:
    """Context in which the model's recurrent layers run as loops over their cells."""
    steppers = stepping_layers(model)
    for layer in steppers:
        layer.recurrence = "loop"
    try:
        with looping(recurrent_layers(model), _Loop):
            yield
    finally:
        for layer in steppers:
            del layer.recurrence


@contextlib.contextmanager
def without_cudnn(model: keras.Model) -> Iterator[None]:
    """Context in which the model's recurrent layers use no GPU-only operator."""
    layers = [layer for layer in recurrent_layers(model) if hasattr(layer, "use_cudnn")]
    former = [layer.use_cudnn for layer in layers]
    for layer in layers:
        layer.use_cudnn = False
    try:
        yield
    finally:
        for layer, value in zip(layers, former, strict=True):
            layer.use_cudnn = value


class _Loop:
    """The `inner_loop` of one recurrent layer, stepped."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(
        self, sequences: Tensor, initial_state: list[Tensor], mask: Tensor | None, training: bool | None = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        layer = self.layer
        return run_masked_cell(
            layer.cell, sequences, list(initial_state), mask, layer.go_backwards, layer.zero_output_for_mask
        )


def run_masked_cell(
    cell: keras.Layer,
    sequences: Tensor,
    states: list[Tensor],
    mask: Tensor | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run a recurrent cell over time, with the masking of `keras.layers.RNN`: a masked step keeps states and output.

    Args:
        cell: `cell(inputs, states) -> output, states`.
        sequences: `(B, T, D)`.
        states: initial states, each `(B, U)`.
        mask: bool `(B, T)`, false at the steps to skip.
        go_backwards: from the last step to the first; outputs are in the order of computation.
        zero_output_for_mask: a masked step's output is zero instead of the output before.

    Returns:
        The last output `(B, U)`, all outputs `(B, T, U)`, the final states.
    """
    if go_backwards:
        sequences = ops.flip(sequences, axis=1)
        mask = None if mask is None else ops.flip(mask, axis=1)
    batch, length, _ = ops.shape(sequences)
    time_major = ops.transpose(sequences, (1, 0, 2))
    real = None if mask is None else ops.transpose(ops.cast(mask, "bool"), (1, 0))
    width, dtype = cell.output_size if hasattr(cell, "output_size") else cell.units, states[0].dtype
    output = ops.zeros((batch, width), dtype=dtype)
    buffer = ops.zeros((length, batch, width), dtype=dtype)

    def body(step: Tensor, output: Tensor, buffer: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        new_output, new_states = cell(ops.take(time_major, step, axis=0), list(states), training=False)
        written = new_output
        if real is not None:
            keep = ops.expand_dims(ops.take(real, step, axis=0), 1)
            new_states = [ops.where(keep, new, old) for new, old in zip(new_states, states, strict=True)]
            new_output = ops.where(keep, new_output, output)
            written = ops.where(keep, new_output, ops.zeros_like(output)) if zero_output_for_mask else new_output
        buffer = ops.scatter_update(buffer, ops.reshape(step, (1, 1)), ops.expand_dims(written, 0))
        return (step + 1, new_output, buffer, *new_states)

    start = ops.convert_to_tensor(0, dtype="int32")
    _, output, buffer, *states = ops.while_loop(lambda step, *_: step < length, body, (start, output, buffer, *states))
    return output, ops.transpose(buffer, (1, 0, 2)), list(states)
