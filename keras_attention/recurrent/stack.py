"""Length-aware recurrent stacks over right-padded batches.

The recurrent core never sees a mask. Padding on the right cannot affect a real position of a forward pass; a backward
pass reads each row reversed within its own length, so that its padding stays on the right too. That keeps the stock
Keras layers eligible for cuDNN, exports them as one ONNX `LSTM` node, and needs no select in an exported loop.
"""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_dropout, check_whole
from keras_attention.attention.gather import last_position, reverse_within_length
from keras_attention.attention.masking import check_mask
from keras_attention.attention.shapes import check_shapes
from keras_attention.loops import RECURRENCES, run_steps
from keras_attention.recurrent.layer_norm_lstm import LayerNormLSTMCell
from keras_attention.recurrent.lstm_kernel import run_lstm, run_lstms
from keras_attention.types import Shape, Tensor, TensorDict

CELLS = ("lstm", "gru", "layer_norm_lstm")


def sequence_dropout(share: float, variational: bool, dtype: Any) -> keras.layers.Dropout:
    """Dropout of `(B, T, D)`; if variational, one mask per row (Gal and Ghahramani 2016, arXiv 1512.05287, 4.1)."""
    check_dropout(share)
    shape = (None, 1, None) if variational else None
    return keras.layers.Dropout(share, noise_shape=shape, name="dropout", dtype=dtype)


def word_dropout(share: float, dtype: Any) -> keras.layers.Dropout:
    """Dropout of whole positions of `(B, T, E)` (Gal and Ghahramani 2016, section 4.2, there for word types)."""
    check_dropout(share, "word_dropout")
    return keras.layers.Dropout(share, noise_shape=(None, None, 1), name="word_dropout", dtype=dtype)


def run_cell(
    cell: keras.Layer, inputs: Tensor, states: list[Tensor], lengths: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Run a recurrent cell over time as a `while_loop` that writes into a buffer of fixed size.

    Equal to `keras.layers.RNN`, in a form that converts to TFLite's built-in operators with a dynamic batch
    and length. Not differentiable under JAX: training calls the Keras layer.

    Args:
        cell: a Keras recurrent cell: `cell(inputs, states) -> output, states`.
        inputs: `(B, S, D)`.
        states: the cell's initial states, each `(B, U)`.
        lengths: int `(B,)`; if given, a row's states stop changing at its length.

    Returns:
        outputs `(B, S, U)` and the final states.
    """

    def step(inputs: list[Tensor], state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        index, *before = state
        output, after = cell(inputs[0], before)
        if lengths is not None:
            running = ops.expand_dims(index < lengths, 1)
            after = [ops.where(running, new, old) for new, old in zip(after, before, strict=True)]
        return [output], [index + 1, *after]

    start = ops.convert_to_tensor(0, dtype="int32")
    (outputs,), (_, *final) = run_steps(step, [inputs], [start, *states], [states[0].shape[-1]], "loop")
    return outputs, final


@keras.saving.register_keras_serializable(package="keras_attention")
class RecurrentStack(keras.layers.Layer):
    """Stacked LSTM or GRU layers, forward or bidirectional, over a right-padded batch.

    Output depth is `units`, or `2 * units` where bidirectional: forward first, then backward. The final state of the
    forward direction is the one at each row's last real position, that of the backward direction the one at the row's
    first position; both are concatenated in that order.

    Args:
        cell: `"lstm"`, `"gru"` or `"layer_norm_lstm"` (see `LayerNormLSTMCell`, slower and never one fused node).
        units: size of each direction.
        num_layers: number of layers.
        bidirectional: whether each layer also reads every row in reverse.
        dropout: dropout rate of a layer's inputs, from the second layer on.
        variational_dropout: whether all steps of a row share one dropout mask, see `sequence_dropout`.
        residual: whether the inputs of each layer from the second on are added to its outputs (Wu et al. 2016, arXiv
            1609.08144, equation 6).
        weight_dropout: share of the recurrent kernels' weights dropped in training, drawn once for all steps of a batch
            (DropConnect on hidden-to-hidden matrices: Merity, Keskar and Socher 2018, arXiv 1708.02182). LSTM only, and
            not in a stack that is stepped or whose cell states are returned at lengths.
        return_cell_state: whether the final LSTM cell states are returned too. They exist only at the end of a masked
            pass, which is slower and keeps an exported encoder from becoming one `LSTM` node.

    Call arguments:
        inputs: float `(B, S, D)`.
        lengths: int `(B,)`; `None` stands for rows without padding.
        mask: bool `(B, S)`, true at real positions, which come before all padding; it stands in for `lengths`.
        initial_state: a state as `step` returns it, for a stack that is not bidirectional; zeros if `None`.
        recurrence: `"layer"` calls the stock Keras layers (training; ONNX), `"loop"` runs the same cells by `run_cell`
            (TFLite).
        inputs_mask: the mask that Keras propagates with the inputs, the default of `mask`.
            `False`: rows are run to the end.
        training: whether dropout applies.

    Returns:
        outputs `(B, S, units)` or `(B, S, 2 * units)`, and the final state, a flat dict: `h_0` of the first layer,
        `c_0` where cell states are returned, `h_1`, and so on, each `(B, units)` or `(B, 2 * units)`.
    """

    products = "float32"
    """Dtype of a training pass' matrix product operands, one of `lstm_kernel.PRODUCTS`; set by trainers."""

    def __init__(
        self,
        cell: str,
        units: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        return_cell_state: bool = False,
        weight_dropout: float = 0.0,
        residual: bool = False,
        variational_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if cell not in CELLS:
            raise ValueError(f"Unknown recurrent cell. Expected: one of {CELLS}. Received: cell={cell!r}")
        check_whole(units=units, num_layers=num_layers)
        if units < 1 or num_layers < 1:
            raise ValueError(f"Expected: units >= 1 and num_layers >= 1. Received: {units=}, {num_layers=}")
        check_dropout(weight_dropout, "weight_dropout")
        if weight_dropout and cell != "lstm":
            raise ValueError(f"Expected: cell='lstm' with weight_dropout. Received: {cell=}, {weight_dropout=}")
        self.cell = cell
        self.units = units
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.return_cell_state = return_cell_state and self.has_cell_state
        directions = ("forward", "backward") if bidirectional else ("forward",)
        self.layers = [
            [_make_layer(cell, units, f"{name}_{index}", self.dtype_policy) for name in directions]
            for index in range(num_layers)
        ]
        self.weight_dropout = weight_dropout
        self.residual = residual
        self.variational_dropout = variational_dropout
        self._dropout = sequence_dropout(dropout, variational_dropout, self.dtype_policy)
        self._weight_dropout = keras.layers.Dropout(weight_dropout, name="weight_dropout", dtype=self.dtype_policy)

    @property
    def has_cell_state(self) -> bool:
        """Whether a layer's state is h and c, not only h."""
        return self.cell != "gru"

    @property
    def output_depth(self) -> int:
        return self.units * (2 if self.bidirectional else 1)

    @property
    def state_names(self) -> list[str]:
        """The names of the tensors that `step` takes and returns."""
        kinds = ("h", "c") if self.has_cell_state else ("h",)
        return [f"{kind}_{index}" for index in range(self.num_layers) for kind in kinds]

    @property
    def final_names(self) -> list[str]:
        """The names of the tensors in the final state that `call` returns."""
        return [name for name in self.state_names if name[0] == "h" or self.return_cell_state]

    def build(self, inputs_shape: Shape) -> None:
        check_shapes("RecurrentStack", {"inputs": (inputs_shape, "B S E")})
        depth = self.input_depth = inputs_shape[-1]
        for layers in self.layers:
            for layer in layers:
                layer.build((None, None, depth))
            depth = self.output_depth
        self.built = True

    def call(
        self,
        inputs: Tensor,
        lengths: Tensor | None = None,
        initial_state: TensorDict | None = None,
        recurrence: str = "layer",
        mask: Tensor | None = None,
        inputs_mask: Tensor | bool | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, TensorDict]:
        if recurrence not in RECURRENCES:
            raise ValueError(f"Expected: recurrence in {RECURRENCES}. Received: recurrence={recurrence!r}")
        shapes = {"inputs": (inputs.shape, "B S E"), "lengths": (None if lengths is None else lengths.shape, "B")}
        shapes |= {name: (tensor.shape, "B U") for name, tensor in (initial_state or {}).items()}
        check_shapes("RecurrentStack", shapes, E=self.input_depth, U=self.units)
        mask = inputs_mask if mask is None and inputs_mask is not False else mask
        if lengths is None and mask is not None:
            check_mask("mask", mask, inputs)
            lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        final_state: TensorDict = {}
        outputs = inputs
        for index, layers in enumerate(self.layers):
            below = outputs if self.residual and index > 0 else None
            if index > 0:
                outputs = self._dropout(outputs, training=training)
            initial = None if initial_state is None else self._layer_state(initial_state, index)
            turned = [self._turn(outputs, lengths) if backward else outputs for backward in range(len(layers))]
            found = self._run(layers, turned, lengths, initial, recurrence, training)
            finals = [states for _, states in found]
            sequences = [self._turn(one, lengths) if backward else one for backward, (one, _) in enumerate(found)]
            outputs = ops.concatenate(sequences, axis=-1) if len(sequences) > 1 else sequences[0]
            outputs = outputs if below is None else outputs + below
            for position, states in enumerate(zip(*finals, strict=True)):
                name = f"{'hc'[position]}_{index}"
                final_state[name] = ops.concatenate(states, axis=-1) if len(states) > 1 else states[0]
        return outputs, final_state

    def draw_noise(self, inputs: Tensor) -> TensorDict:
        """Draw the dropout factors `(B, T, units)` below each layer from the second on.

        For a stepwise pass over inputs `(B, T, ...)`: only TensorFlow allows random draws inside a loop.
        """
        if not self.dropout or self.num_layers == 1:
            return {}
        ones = ops.ones((*ops.shape(inputs)[:2], self.units), dtype=self.compute_dtype)
        return {f"dropout_{index}": self._dropout(ones, training=True) for index in range(1, self.num_layers)}

    def step(
        self, inputs: Tensor, state: TensorDict, noise: TensorDict | None = None, training: bool | None = None
    ) -> tuple[Tensor, TensorDict]:
        """One time step of a stack that is not bidirectional: inputs `(B, D)` give outputs `(B, units)` and a state.

        Args:
            inputs: float `(B, D)`.
            state: the previous state, by the names of `state_names`.
            noise: this step `(B, units)` of the result of `draw_noise`; drawn here if `None`.
            training: whether dropout between the layers applies.
        """
        if training and self.weight_dropout:
            raise ValueError(f"Expected: weight_dropout=0 in a stack that is stepped. Received: {self.weight_dropout=}")
        if training and noise is None:
            noise = {name: factors[:, 0] for name, factors in self.draw_noise(ops.expand_dims(inputs, 1)).items()}
        noise = noise if training and noise else {}
        new_state: TensorDict = {}
        outputs = inputs
        for index, (layer,) in enumerate(self.layers):
            below = outputs if self.residual and index > 0 else None
            if f"dropout_{index}" in noise:
                outputs = outputs * noise[f"dropout_{index}"]
            outputs, states = layer.cell(outputs, self._layer_state(state, index))
            outputs = outputs if below is None else outputs + below
            for name, value in zip(("h", "c"), states, strict=False):
                new_state[f"{name}_{index}"] = value
        return outputs, new_state

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "num_layers": self.num_layers,
            "bidirectional": self.bidirectional,
            "dropout": self.dropout,
            "return_cell_state": self.return_cell_state,
            "weight_dropout": self.weight_dropout,
            "residual": self.residual,
            "variational_dropout": self.variational_dropout,
        }

    def _layer_state(self, state: TensorDict, index: int) -> list[Tensor]:
        return [state[name] for name in (f"h_{index}", f"c_{index}") if name in state]

    @staticmethod
    def _turn(sequence: Tensor, lengths: Tensor | None) -> Tensor:
        return ops.flip(sequence, axis=1) if lengths is None else reverse_within_length(sequence, lengths)

    def _run(
        self,
        layers: list[keras.Layer],
        inputs: list[Tensor],
        lengths: Tensor | None,
        initial: list[Tensor] | None,
        recurrence: str,
        training: bool | None,
    ) -> list[tuple[Tensor, list[Tensor]]]:
        """Run each direction of one layer: outputs, and `[h]` or `[h, c]` at each row's last real position."""
        masked = lengths if self.return_cell_state else None
        own_gradient = False
        if training and masked is None and self.cell == "lstm":
            own_gradient = self.weight_dropout > 0 or best_by_own_gradient(self.compute_dtype)
        if training and self.weight_dropout and not own_gradient:
            raise ValueError(
                "Expected: weight_dropout=0 where cell states are returned at each row's length. "
                f"Received: weight_dropout={self.weight_dropout}"
            )
        if initial is None and (own_gradient or recurrence == "loop"):
            zeros = ops.zeros((ops.shape(inputs[0])[0], self.units), dtype=self.compute_dtype)
            initial = [zeros] * (2 if self.has_cell_state else 1)
        if own_gradient:
            assert initial is not None
            found = self._run_own(layers, inputs, initial, training)
        elif recurrence == "loop":
            assert initial is not None
            found = [run_cell(layer.cell, x, initial, masked) for layer, x in zip(layers, inputs, strict=True)]
        else:
            mask = None
            if masked is not None:
                mask = ops.arange(ops.shape(inputs[0])[1], dtype="int32")[None, :] < masked[:, None]
            found = []
            for layer, x in zip(layers, inputs, strict=True):
                outputs, *states = layer(x, initial_state=initial, mask=mask)
                found.append((outputs, states))
        if lengths is not None:
            found = [(outputs, [last_position(outputs, lengths), *states[1:]]) for outputs, states in found]
        return [(outputs, states if self.return_cell_state else states[:1]) for outputs, states in found]

    def _run_own(
        self, layers: list[keras.Layer], inputs: list[Tensor], initial: list[Tensor], training: bool | None
    ) -> list[tuple[Tensor, list[Tensor]]]:
        """Run each direction with the gradient of `run_lstms`, both in one loop where that is faster."""
        weights = []
        for layer in layers:
            recurrent = layer.cell.recurrent_kernel
            if self.weight_dropout:
                recurrent = self._weight_dropout(ops.convert_to_tensor(recurrent), training=training)
            weights.append((layer.cell.kernel, recurrent, layer.cell.bias))
        states = [(initial[0], initial[1])] * len(layers)
        if keras.backend.backend() == "jax" and keras.distribution.distribution() is None:
            found = run_lstms(inputs, states, weights, self.products)
        else:  # TensorFlow on CPU is slower at it; where devices share a batch its rows would have to change places
            each = zip(inputs, states, weights, strict=True)
            found = [run_lstm(x, *state, *parts, products=self.products) for x, state, parts in each]
        return [(outputs, [hidden, cell]) for outputs, hidden, cell in found]


def _make_layer(cell: str, units: int, name: str, dtype: Any) -> keras.layers.Layer:
    arguments = {"return_sequences": True, "return_state": True, "name": name, "dtype": dtype}
    if cell == "layer_norm_lstm":
        return keras.layers.RNN(LayerNormLSTMCell(units, dtype=dtype), **arguments)
    return (keras.layers.LSTM if cell == "lstm" else keras.layers.GRU)(units, **arguments)


def best_by_own_gradient(dtype: str) -> bool:
    """Return True on TensorFlow on a CPU and JAX on a GPU; elsewhere the Keras layer is at least as fast."""
    backend = keras.backend.backend()
    if dtype != "float32" or backend not in ("tensorflow", "jax"):  # Keras cannot list other backends' devices
        return False
    on_gpu = any(name.lower().startswith(("gpu", "cuda")) for name in keras.distribution.list_devices())
    return on_gpu if backend == "jax" else not on_gpu
