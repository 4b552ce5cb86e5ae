"""The layers above attention in the GNMT decoder: each reads the layer below and the context."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_whole
from keras_attention.recurrent import stack as recurrent
from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class UpperLayers(keras.layers.Layer):
    """Recurrent layers 1 to `num_layers - 1` of a decoder whose bottom layer, 0, attends.

        h^i_t = RNN_i([h^{i-1}_t ; c_t], h^i_{t-1})        with `residual`: + h^{i-1}_t

    (Wu et al. 2016, arXiv 1609.08144, section 3 and equation 6: attention runs once, with the bottom layer, so that
    layers above need not wait for one another's attention.)

    Args:
        cell, units, residual, variational_dropout: see `RecurrentStack`.
        num_layers: number of all decoder layers, including the bottom one; 2 or more.
        dropout: dropout rate of each layer's inputs from below.

    Call arguments:
        hidden: float `(B, T, units)`, the bottom layer's outputs.
        contexts: float `(B, T, D)`.
        state: `h_1`, `c_1`, `h_2`, and so on, each `(B, units)`; other entries are ignored.
        training: whether dropout applies.

    Returns:
        The outputs of the top layer, `(B, T, units)`.

    Raises:
        ValueError: for less than 2 layers, and as `RecurrentStack`.
    """

    def __init__(
        self,
        cell: str,
        units: int,
        num_layers: int,
        dropout: float = 0.0,
        residual: bool = False,
        variational_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        check_whole(num_layers=num_layers)
        if num_layers < 2:
            raise ValueError(f"Expected: num_layers >= 2, of which the lowest attends. Received: {num_layers=}")
        policy = self.dtype_policy
        self.layers = [
            RecurrentStack(cell, units, return_cell_state=True, name=f"layer_{index}", dtype=policy)
            for index in range(1, num_layers)
        ]
        self.cell = cell
        self.units = units
        self.num_layers = num_layers
        self.dropout = dropout
        self.residual = residual
        self.variational_dropout = variational_dropout
        self._dropout = recurrent.sequence_dropout(dropout, variational_dropout, policy)

    @property
    def state_names(self) -> list[str]:
        """Names of the states of all these layers."""
        return [self._name(name, index) for index, layer in enumerate(self.layers, 1) for name in layer.state_names]

    def build(self, hidden_shape: Shape, contexts_shape: Shape) -> None:
        depth = hidden_shape[-1], contexts_shape[-1]
        assert None not in depth
        for layer in self.layers:
            layer.build((None, None, sum(depth)))
        self.built = True

    def call(self, hidden: Tensor, contexts: Tensor, state: TensorDict, training: bool | None = None) -> Tensor:
        for index, layer in enumerate(self.layers, 1):
            read = ops.concatenate([self._dropout(hidden, training=training), contexts], axis=-1)
            outputs, _ = layer(read, initial_state=self._own(state, index), training=training)
            hidden = outputs + hidden if self.residual else outputs
        return hidden

    def step(self, hidden: Tensor, context: Tensor, state: TensorDict) -> tuple[Tensor, TensorDict]:
        """One step, without dropout: `(B, units)`, `(B, D)` and the states give the top layer's output and new ones."""
        new_state: TensorDict = {}
        for index, layer in enumerate(self.layers, 1):
            outputs, after = layer.step(ops.concatenate([hidden, context], axis=-1), self._own(state, index))
            hidden = outputs + hidden if self.residual else outputs
            new_state.update({self._name(name, index): tensor for name, tensor in after.items()})
        return hidden, new_state

    def compute_output_spec(self, hidden: Any, contexts: Any, state: Any, training: Any = None) -> keras.KerasTensor:
        return keras.KerasTensor((*hidden.shape[:-1], self.units), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "num_layers": self.num_layers,
            "dropout": self.dropout,
            "residual": self.residual,
            "variational_dropout": self.variational_dropout,
        }

    @staticmethod
    def _name(name: str, index: int) -> str:
        """Return the decoder's name of a state that is `h_0` or `c_0` in its own layer."""
        return f"{name[0]}_{index}"

    def _own(self, state: TensorDict, index: int) -> TensorDict:
        return {name: state[self._name(name, index)] for name in self.layers[index - 1].state_names}
