"""The recurrent encoder: embedded source tokens to a memory for attention."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.masking import check_mask
from keras_attention.attention.shapes import check_shapes
from keras_attention.recurrent import stack as recurrent
from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="keras_attention")
class Encoder(keras.layers.Layer):
    """A (bidirectional) LSTM or GRU stack over right-padded rows.

    Args:
        cell: `"lstm"`, `"gru"` or `"layer_norm_lstm"`.
        units: size of each direction.
        num_layers: number of layers.
        bidirectional: whether rows are also read in reverse.
        dropout: dropout rate of the embedded tokens, of the inputs of each further layer and of the memory.
        return_cell_state: whether to return the final LSTM cell states (for `bridge="copy"`).
        weight_dropout: see `RecurrentStack`.
        word_dropout: dropout rate of whole tokens.
        residual, variational_dropout: see `RecurrentStack`; the latter applies to all dropout except `word_dropout`.

    Call arguments:
        embedded: float `(B, S, E)`.
        mask: bool `(B, S)`, true at real tokens, which come before all padding; all are real if `None`. Every row has
            at least one. A mask propagated with `embedded` (`keras.layers.Embedding(mask_zero=True)`) is the default.
        recurrence: `"layer"` or `"loop"`, see `RecurrentStack`.
        training: whether dropout applies.

    Returns:
        A dict: `values` `(B, S, D)`, zero at padding; `mask`; `state`, the final state of each layer as in
        `RecurrentStack`. D is `units`, or `2 * units` where bidirectional.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: int = 256,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        return_cell_state: bool = False,
        weight_dropout: float = 0.0,
        word_dropout: float = 0.0,
        residual: bool = False,
        variational_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.stack = RecurrentStack(
            cell,
            units,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            return_cell_state=return_cell_state,
            weight_dropout=weight_dropout,
            residual=residual,
            variational_dropout=variational_dropout,
            name="stack",
            dtype=self.dtype_policy,
        )
        self.dropout = dropout
        self.word_dropout = word_dropout
        self._dropout = recurrent.sequence_dropout(dropout, variational_dropout, self.dtype_policy)
        self._word_dropout = recurrent.word_dropout(word_dropout, self.dtype_policy)

    def build(self, embedded_shape: Shape) -> None:
        self.stack.build(embedded_shape)
        self.built = True

    def call(
        self,
        embedded: Tensor,
        mask: Tensor | None = None,
        recurrence: str = "layer",
        training: bool | None = None,
    ) -> dict[str, Any]:
        check_shapes("Encoder", {"embedded": (embedded.shape, "B S E")}, E=self.stack.input_depth)
        check_mask("mask", mask, embedded)
        mask = ops.ones(ops.shape(embedded)[:2], dtype="bool") if mask is None else mask
        lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
        embedded = self._word_dropout(self._dropout(embedded, training=training), training=training)
        values, state = self.stack(embedded, lengths, recurrence=recurrence, training=training)
        values = self._dropout(values, training=training) * ops.expand_dims(ops.cast(mask, values.dtype), 2)
        return {"values": values, "mask": mask, "state": state}

    def compute_mask(self, embedded: Tensor, previous_mask: Any = None) -> dict[str, Any]:
        """Return the mask for Keras, which belongs to the values."""
        return {"mask": None, "state": dict.fromkeys(self.stack.final_names), "values": previous_mask}

    def get_config(self) -> dict[str, Any]:
        stack = self.stack
        return {
            **super().get_config(),
            "cell": stack.cell,
            "units": stack.units,
            "num_layers": stack.num_layers,
            "bidirectional": stack.bidirectional,
            "dropout": self.dropout,
            "return_cell_state": stack.return_cell_state,
            "weight_dropout": stack.weight_dropout,
            "word_dropout": self.word_dropout,
            "residual": stack.residual,
            "variational_dropout": stack.variational_dropout,
        }
