"""Multi-head Luong attention over one memory."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_call, check_names, check_whole
from keras_attention.attention.luong import ARGUMENTS, LuongAttention
from keras_attention.attention.masking import check_attention_mask, check_mask
from keras_attention.attention.matmul import linear
from keras_attention.attention.shapes import attention_shapes, check_shapes
from keras_attention.attention.weight_options import KERNEL_OPTIONS, OPTIONS, add_kernel, options_config
from keras_attention.types import Shape, Tensor, TensorDict

HEAD_SCORES = ("dot", "scaled_dot", "concat", "additive", "normalized_additive", "cosine")
"""Scores that a head supports. `general` between projected queries and keys is `dot`; `location` reads no keys."""


@keras.saving.register_keras_serializable(package="keras_attention")
class MultiHeadLuongAttention(keras.layers.Layer):
    """Multi-head attention with any Luong score, each head in its own subspace (Vaswani et al. 2017, section 3.2.2).

        head_i = sum_s a^i_t(s) (W^v_i h_s)       a^i_t = align_s(score(W^q_i h_t, W^k_i h_s))
        context_t = W^o [head_1 ; ... ; head_H]

    Every score, window, alignment, coverage and noise of `LuongAttention` is supported per head, monotonic heads too
    (Ma et al. 2020, arXiv 1909.12406). Heads share the weights inside a score (an additive `v`, a window's `W_p`);
    each has its own projections. The values are projected after the weighted sum, which is equal by linearity, so
    that only the keys need caching between steps. No biases.

    Args:
        num_heads: H.
        head_size: depth of a head's queries, keys and values; `Dv // num_heads` if `None`.
        score: one of `HEAD_SCORES`.
        **kwargs: the other arguments of `LuongAttention`, for the heads; `name` and `dtype`. `kernel_initializer`,
            `kernel_regularizer` and `kernel_constraint` also apply to the projections, the heads' kernels concatenated.

    Call arguments: those of `LuongAttention`, where
        key: result of `project_keys(value)`, `(B, H, S, ...)`.
        state: its tensors have a head axis after the batch.
        return_attention_scores: `True` for the mean over heads `(B, T, S)`, `"all"` for `(B, H, T, S)`.

    Returns:
        The contexts `(B, T, Dv)`; then, if requested, the weights before dropout, and the state.

    Raises:
        ValueError: as `LuongAttention`, and for a memory depth that is no multiple of the heads.

    Example:
    >>> import numpy as np
    >>> attention = MultiHeadLuongAttention(num_heads=2)
    >>> query, memory = np.ones((2, 3, 5), "float32"), np.ones((2, 7, 12), "float32")
    >>> context, weights = attention(query, memory, return_attention_scores="all")
    >>> tuple(context.shape), tuple(weights.shape)
    ((2, 3, 12), (2, 2, 3, 7))
    """

    def __init__(
        self, num_heads: int = 4, head_size: int | None = None, score: str = "scaled_dot", **kwargs: Any
    ) -> None:
        check_names(type(self).__name__, kwargs)
        heads = {name: kwargs.pop(name) for name in (*ARGUMENTS, *OPTIONS) if name in kwargs}
        super().__init__(**kwargs)
        check_whole(num_heads=num_heads, head_size=head_size)
        if num_heads < 1 or (head_size is not None and head_size < 1):
            raise ValueError(f"Expected: num_heads >= 1 and head_size >= 1. Received: {num_heads=}, {head_size=}")
        if score not in HEAD_SCORES:
            raise ValueError(
                "A head compares projected queries and keys. "
                f"Expected: score in {HEAD_SCORES}. Received: score={score!r}"
            )
        self.depths: dict[str, Any] = {}  # set by build
        self.num_heads = num_heads
        self.head_size = head_size
        self.score = score
        self.head = LuongAttention(score=score, **heads, name="head", dtype=self.dtype_policy)
        for name in KERNEL_OPTIONS:
            setattr(self, name, getattr(self.head, name))
        self.supports_masking = True
        self.autocast = False

    def build(self, query_shape: Any, value_shape: Shape | None = None) -> None:
        query_shape, value_shape = attention_shapes(type(self).__name__, query_shape, value_shape)
        self.depths = {"Dq": query_shape[-1], "Dv": value_shape[-1]}
        depth, size = value_shape[-1], self.head_size or value_shape[-1] // self.num_heads
        if self.head_size is None and depth % self.num_heads:
            raise ValueError(
                "The heads share the depth of the memory. Expected: a depth that num_heads divides, or head_size. "
                f"Received: num_heads={self.num_heads}, value_shape={tuple(value_shape)}"
            )
        inner = self.num_heads * size
        self.query_kernel = add_kernel(self, "query_kernel", (query_shape[-1], inner))
        self.key_kernel = add_kernel(self, "key_kernel", (depth, inner))
        shape = (self.num_heads, depth, size)
        self.value_kernel = add_kernel(
            self, "value_kernel", shape, _per_head(depth, inner), matrix=(depth, inner), order=(1, 0, 2)
        )
        self.output_kernel = add_kernel(self, "output_kernel", (inner, depth))
        self.head.build((None, None, size), (None, None, size))
        self.built = True

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        check_call(type(self).__name__, tensors, named)
        return super().__call__(*tensors, **named)

    compute_output_spec = keras.Operation.compute_output_spec  # traced: the results depend on the flags

    def compute_output_shape(self, query_shape: Any, value_shape: Shape | None = None) -> Shape:
        """Return the shape of the contexts."""
        query_shape, value_shape = attention_shapes(type(self).__name__, query_shape, value_shape)
        return (*query_shape[:2], value_shape[-1])

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the state's tensors, as in `LuongAttention`."""
        return self.head.state_names

    @property
    def dropout(self) -> float:
        """Dropout rate of the weights in training."""
        return float(self.head.dropout)

    def initial_state(self, value: Tensor) -> TensorDict:
        """Return the state as in `LuongAttention`, with a head axis after the batch."""
        state = self.head.initial_state(value)
        return {name: ops.repeat(ops.expand_dims(tensor, 1), self.num_heads, axis=1) for name, tensor in state.items()}

    def project_keys(self, value: Tensor) -> Tensor:
        """Return the heads' keys `(B, H, S, ...)`, to be passed as `key`."""
        value = ops.convert_to_tensor(value, dtype=self.compute_dtype)
        keys = self._fold(self._heads(ops.matmul(value, self._cast(self.key_kernel)), ops.shape(value)[1]))
        projected = self.head.project_keys(keys)
        return self._unfold(keys if projected is None else projected)

    def draw_noise(self, query: Tensor, value: Tensor) -> TensorDict:
        """Draw the noise of one training pass, each `(B, T, H * S)`."""
        batch, steps, length = ops.shape(query)[0], ops.shape(query)[1], ops.shape(value)[1]
        wide = ops.zeros((batch, self.num_heads * length, 1), dtype=self.compute_dtype)
        return self.head.draw_noise(ops.zeros((batch, steps, 1), dtype=self.compute_dtype), wide)

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        state: TensorDict | None = None,
        return_attention_scores: bool | str = False,
        return_state: bool = False,
        use_causal_mask: bool = False,
        noise: TensorDict | None = None,
        attention_mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Any:
        if return_attention_scores not in (True, False, "all"):
            raise ValueError(f"Expected: return_attention_scores in (True, False, 'all'). {return_attention_scores=}")
        shapes = {"query": (query.shape, "B T Dq"), "value": (value.shape, "B S Dv")}
        check_shapes(type(self).__name__, shapes, **self.depths)
        check_mask("query_mask", query_mask, query)
        check_mask("value_mask", value_mask, value)
        query, value = self._cast(query), self._cast(value)
        noise = self.draw_noise(query, value) if training and noise is None else noise or {}
        heads, steps = self.num_heads, ops.shape(query)[1]
        noise = {name: self._fold_noise(tensor, steps) for name, tensor in noise.items()}
        queries = self._fold(self._heads(linear(query, self._cast(self.query_kernel)), steps))
        keys = self._fold(self._cast(self.project_keys(value) if key is None else key))
        check_attention_mask(attention_mask, query, value)
        masks = [
            None if mask is None else ops.repeat(mask, heads, axis=0)
            for mask in (query_mask, value_mask, attention_mask)
        ]
        inner = None if state is None else {name: self._fold(tensor) for name, tensor in state.items()}
        # Only the length of this stand-in for the values matters: the heads' keys are given.
        before = self.head.check_state(inner, keys)
        weights, after = self.head.align(
            queries, keys, keys, masks[0], masks[1], before, noise, use_causal_mask, masks[2]
        )
        kept = weights * noise["dropout"] if "dropout" in noise else weights
        results = [self._contexts(kept, value)]
        if return_attention_scores:
            weights = self._unfold(weights)
            results.append(weights if return_attention_scores == "all" else ops.mean(weights, axis=1))
        if return_state:
            results.append({name: self._unfold(tensor) for name, tensor in after.items()})
        return results[0] if len(results) == 1 else tuple(results)

    def get_config(self) -> dict[str, Any]:
        heads = {**{name: getattr(self.head, name) for name in ARGUMENTS}, **options_config(self.head)}
        own = {"num_heads": self.num_heads, "head_size": self.head_size, "score": self.score}
        return {**super().get_config(), **heads, **own}

    def _contexts(self, weights: Tensor, value: Tensor) -> Tensor:
        """Contexts `(B, T, Dv)` of weights `(B * H, T, S)` and values `(B, S, Dv)`."""
        batch, length, depth = ops.shape(value)
        steps = ops.shape(weights)[1]
        sums = ops.matmul(ops.reshape(weights, (batch, self.num_heads * steps, length)), value)
        if self.num_heads == 1:
            # TensorFlow 2.21 on CPU reads out of bounds in (B, 1, T, D) x (1, D, d) (TensorFlow issue 117700).
            return linear(linear(sums, self._cast(self.value_kernel)[0]), self._cast(self.output_kernel))
        sums = ops.reshape(sums, (batch, self.num_heads, steps, depth))
        parts = ops.transpose(ops.matmul(sums, self._cast(self.value_kernel)), (0, 2, 1, 3))
        inner = self.output_kernel.shape[0]
        return linear(ops.reshape(parts, (batch, steps, inner)), self._cast(self.output_kernel))

    def _heads(self, tensor: Tensor, length: Tensor | int) -> Tensor:
        """`(B, length, H * size)` to `(B, H, length, size)`."""
        split = ops.reshape(tensor, (-1, length, self.num_heads, tensor.shape[-1] // self.num_heads))
        return ops.transpose(split, (0, 2, 1, 3))

    def _fold(self, tensor: Tensor) -> Tensor:
        """`(B, H, ...)` to `(B * H, ...)`."""
        return ops.reshape(tensor, (-1, *ops.shape(tensor)[2:]))

    def _unfold(self, tensor: Tensor) -> Tensor:
        """`(B * H, ...)` to `(B, H, ...)`."""
        return ops.reshape(tensor, (-1, self.num_heads, *ops.shape(tensor)[1:]))

    def _fold_noise(self, tensor: Tensor, steps: Tensor | int) -> Tensor:
        """`(B, T, H * S)` to `(B * H, T, S)`."""
        split = ops.reshape(tensor, (ops.shape(tensor)[0], steps, self.num_heads, -1))
        return self._fold(ops.transpose(split, (0, 2, 1, 3)))

    def _cast(self, tensor: Tensor) -> Tensor:
        return ops.cast(tensor, self.compute_dtype)


def _per_head(depth: int, inner: int) -> keras.initializers.Initializer:
    limit = (6.0 / (depth + inner)) ** 0.5  # Glorot's rule for the concatenated kernel `(depth, inner)`
    return keras.initializers.RandomUniform(-limit, limit)
