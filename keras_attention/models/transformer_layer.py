"""A Transformer layer, for encoder or decoder."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.multi_head import MultiHeadLuongAttention
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class AttentionBlock(keras.layers.Layer):
    """A pre-norm Transformer layer, with normalisation before each part (Xiong et al. 2020, arXiv 2002.04745).

        x = x + self_attention(n(x))        x = x + attention(n(x), memory)        x = x + W_2 relu(W_1 n(x))

    with n a layer normalisation. Only a decoder has the middle part.

    Args:
        units: depth D.
        feed_forward_units: depth of the hidden layer of the last part.
        attention: arguments of `MultiHeadLuongAttention`, for both kinds of attention.
        reads_memory: whether it is a decoder's block.
        dropout: dropout rate of each part's results.

    Raises:
        ValueError: as `MultiHeadLuongAttention`.
    """

    def __init__(
        self,
        units: int,
        feed_forward_units: int,
        attention: dict[str, Any],
        reads_memory: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.supports_masking = True  # masks are arguments; a propagated one adds no information
        self.units = units
        self.feed_forward_units = feed_forward_units
        self.attention_arguments = attention
        self.reads_memory = reads_memory
        self.dropout = dropout
        self.self_attention = MultiHeadLuongAttention(**attention, name="self_attention", dtype=policy)
        self.self_norm = keras.layers.LayerNormalization(name="self_norm", dtype=policy)
        self.attention = self.attention_norm = None
        if reads_memory:
            self.attention = MultiHeadLuongAttention(**attention, name="attention", dtype=policy)
            self.attention_norm = keras.layers.LayerNormalization(name="attention_norm", dtype=policy)
        self.feed_forward_norm = keras.layers.LayerNormalization(name="feed_forward_norm", dtype=policy)
        self.hidden = keras.layers.Dense(feed_forward_units, activation="relu", name="hidden", dtype=policy)
        self.projection = keras.layers.Dense(units, name="projection", dtype=policy)
        self._dropout = keras.layers.Dropout(dropout, name="dropout", dtype=policy)

    def build(self, inputs_shape: Shape) -> None:
        shape = (None, None, self.units)
        self.self_attention.build(shape, shape)
        self.self_norm.build(shape)
        if self.attention is not None and self.attention_norm is not None:
            self.attention.build(shape, shape)
            self.attention_norm.build(shape)
        self.feed_forward_norm.build(shape)
        self.hidden.build(shape)
        self.projection.build((None, None, self.feed_forward_units))
        self.built = True

    def call(
        self,
        inputs: Tensor,
        word_mask: Tensor | None = None,
        memory: tuple[Tensor, Tensor, Tensor] | None = None,
        use_causal_mask: bool = False,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Run all positions at once.

        Args:
            inputs: `(B, T, D)`.
            word_mask: bool `(B, T)`, true at real tokens.
            memory: values `(B, S, D)`, their keys from `attention.project_keys`, and their mask `(B, S)`.
            use_causal_mask: whether a position sees only itself and earlier ones.

        Returns:
            `(B, T, D)`, and the alignment with the memory `(B, T, S)`, `None` without one.
        """
        normal = self.self_norm(inputs)
        attended = self.self_attention(
            normal, normal, value_mask=word_mask, use_causal_mask=use_causal_mask, training=training
        )
        return self._finish(inputs + self._dropout(attended, training=training), memory, training)

    def project_memory(self, values: Tensor) -> Tensor:
        """Return the keys of the attention over the memory, to be cached with it."""
        if self.attention is None:
            raise ValueError("Expected: a block with reads_memory=True. Received: reads_memory=False")
        return self.attention.project_keys(values)

    def first_cache(self, batch: Tensor | int, capacity: int) -> TensorDict:
        """Return an empty cache of `capacity` tokens: `values` `(B, L, D)`, `keys` `(B, H, L, ...)`, zeros."""
        values = ops.zeros((batch, capacity, self.units), dtype=self.compute_dtype)
        keys = self.self_attention.project_keys(values[:, :1])
        return {"values": values, "keys": ops.zeros_like(ops.repeat(keys, capacity, axis=2))}

    def step(
        self, inputs: Tensor, cache: TensorDict, position: Tensor, memory: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, TensorDict, Tensor | None]:
        """Run one position, `(B, D)`, that sees the earlier ones in the cache; its `position` is int `(B,)`."""
        places = ops.arange(cache["values"].shape[1], dtype="int32")[None, :]
        here = ops.equal(places, position[:, None])
        normal = self.self_norm(ops.expand_dims(inputs, 1))
        keys = self.self_attention.project_keys(normal)
        at = ops.reshape(here, (-1, 1, here.shape[1], *[1] * (len(keys.shape) - 3)))
        cache = {
            "values": ops.where(ops.expand_dims(here, 2), normal, cache["values"]),
            "keys": ops.where(at, keys, cache["keys"]),
        }
        attended = self.self_attention(
            normal, cache["values"], key=cache["keys"], value_mask=places <= position[:, None], training=False
        )
        outputs, alignment = self._finish(ops.expand_dims(inputs, 1) + attended, memory, False)
        return outputs[:, 0], cache, None if alignment is None else alignment[:, 0]

    def _finish(
        self, x: Tensor, memory: tuple[Tensor, Tensor, Tensor] | None, training: bool | None
    ) -> tuple[Tensor, Tensor | None]:
        alignment = None
        if self.attention is not None and self.attention_norm is not None and memory is not None:
            values, keys, mask = memory
            attended, alignment = self.attention(
                self.attention_norm(x),
                values,
                key=keys,
                value_mask=mask,
                return_attention_scores=True,
                training=training,
            )
            x = x + self._dropout(attended, training=training)
        hidden = self._dropout(self.hidden(self.feed_forward_norm(x)), training=training)
        return x + self._dropout(self.projection(hidden), training=training), alignment

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "feed_forward_units": self.feed_forward_units,
            "attention": self.attention_arguments,
            "reads_memory": self.reads_memory,
            "dropout": self.dropout,
        }
