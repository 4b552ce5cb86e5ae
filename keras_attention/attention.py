"""Attention layers over a memory of encoder states."""

from typing import Any

import keras
from keras import ops

from keras_attention import scores as score_functions
from keras_attention.masking import masked_softmax
from keras_attention.types import Shape, Tensor

SCORES = ("dot", "scaled_dot", "general", "concat", "location", "cosine")
"""The names that `LuongAttention(score=...)` takes."""


@keras.saving.register_keras_serializable(package="keras_attention")
class LuongAttention(keras.layers.Layer):
    """Global attention of Luong, Pham and Manning 2015 (arXiv 1508.04025), section 3.1.

        a_t(s) = softmax_s(score(h_t, h_s))        context_t = sum_s a_t(s) h_s

    where `h_t` is a query, `h_s` a value of the memory, and the score is one of

    | score        | formula                          | weights               |
    |--------------|----------------------------------|-----------------------|
    | `dot`        | `h_t . h_s`                      | none; needs Dq = Dv   |
    | `scaled_dot` | `h_t . h_s / sqrt(Dq)`           | none; needs Dq = Dv   |
    | `general`    | `h_t W_a h_s`                    | `W_a (Dq, Dv)`        |
    | `concat`     | `v . tanh(W_1 h_t + W_2 h_s)`    | `W_1`, `W_2`, `v`     |
    | `location`   | `(W_a h_t)[s]`                   | `W_a (Dq, max_source_length)` |
    | `cosine`     | `h_t . h_s / (norm h_t norm h_s)`| none; needs Dq = Dv   |

    The softmax runs in float32 whatever the layer's dtype; a query whose memory is wholly masked gets zeros.

    Args:
        score: one of the names above.
        units: depth U of the concat score's hidden layer; the depth of the query if `None`.
        max_source_length: positions that the location score can address; needed by it, and by it alone.
        use_scale: multiply the score by a learned scalar `g`, 1 at first (for `cosine` an inverse temperature).
        dropout: share of the weights dropped in training.

    Call arguments:
        query: float `(B, T, Dq)`.
        value: float `(B, S, Dv)`.
        key: what `project_keys(value)` returned, to save its cost when the same memory is queried again.
        query_mask: bool `(B, T)`; a masked query gets a zero result and zero weights.
        value_mask: bool `(B, S)`; a masked position gets weight 0.
        state: what an earlier call returned; the global scores keep none, so `None` or an empty dict.
        return_attention_scores: also return the weights.
        return_state: also return the state.
        training: whether dropout applies.

    Returns:
        The contexts `(B, T, Dv)`; then, where asked for, the weights `(B, T, S)` before dropout, and the state.

    Raises:
        ValueError: for an unknown score, arguments that the score has no use for, depths that the score cannot
            compare, a mask of a wrong rank, or a source longer than `max_source_length`.

    Example:

    >>> import numpy as np
    >>> attention = LuongAttention(score="general")
    >>> query, memory = np.ones((2, 3, 5), "float32"), np.ones((2, 7, 11), "float32")
    >>> context, weights = attention(query, memory, return_attention_scores=True)
    >>> tuple(context.shape), tuple(weights.shape)
    ((2, 3, 11), (2, 3, 7))
    """

    def __init__(
        self,
        score: str = "general",
        units: int | None = None,
        max_source_length: int | None = None,
        use_scale: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _check_arguments(score, units, max_source_length, dropout)
        self.score = score
        self.units = units
        self.max_source_length = max_source_length
        self.use_scale = use_scale
        self.dropout = dropout
        self.supports_masking = True
        self._dropout = keras.layers.Dropout(dropout, name="dropout", dtype=self.dtype_policy)

    def build(self, query_shape: Shape, value_shape: Shape) -> None:
        query_depth, value_depth = query_shape[-1], value_shape[-1]
        if self.score in ("dot", "scaled_dot", "cosine") and query_depth != value_depth:
            raise ValueError(
                f"score='{self.score}' compares a query and a value of one depth; score='general' compares different "
                f"depths. Expected: query depth == value depth. Received: query_shape={tuple(query_shape)}, "
                f"value_shape={tuple(value_shape)}"
            )
        if self.score == "general":
            self.kernel = self.add_weight(shape=(query_depth, value_depth), name="kernel")
        elif self.score == "concat":
            units = self.units or query_depth
            self.query_kernel = self.add_weight(shape=(query_depth, units), name="query_kernel")
            self.key_kernel = self.add_weight(shape=(value_depth, units), name="key_kernel")
            self.vector = self.add_weight(shape=(units,), name="vector", initializer=_vector_initializer(units))
        elif self.score == "location":
            self.kernel = self.add_weight(shape=(query_depth, self.max_source_length), name="kernel")
        if self.use_scale:
            self.scale = self.add_weight(shape=(), name="scale", initializer="ones")
        self.built = True

    def project_keys(self, value: Tensor) -> Tensor | None:
        """The part of the score that depends on the memory alone, `(B, S, ...)`, to be passed as `key`.

        `None` where there is nothing to save: dot and scaled dot read the values themselves, location reads none.
        """
        value = ops.convert_to_tensor(value, dtype=self.compute_dtype)
        if self.score == "general":
            return score_functions.general_key(value, self._cast(self.kernel))
        if self.score == "concat":
            return ops.matmul(value, self._cast(self.key_kernel))
        if self.score == "cosine":
            return score_functions.unit_vectors(value)
        return None

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        state: Any = None,
        return_attention_scores: bool = False,
        return_state: bool = False,
        training: bool | None = None,
    ) -> Any:
        _check_mask("query_mask", query_mask, query)
        _check_mask("value_mask", value_mask, value)
        scores = self._scores(query, value, key)
        if self.use_scale:
            scores = scores * self._cast(self.scale)
        weights = masked_softmax(scores, None if value_mask is None else ops.expand_dims(value_mask, 1))
        if query_mask is not None:
            weights = weights * ops.expand_dims(ops.cast(query_mask, weights.dtype), 2)
        context = ops.matmul(self._dropout(weights, training=training), value)
        results = [context]
        if return_attention_scores:
            results.append(weights)
        if return_state:
            results.append({} if state is None else state)
        return results[0] if len(results) == 1 else tuple(results)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "score": self.score,
            "units": self.units,
            "max_source_length": self.max_source_length,
            "use_scale": self.use_scale,
            "dropout": self.dropout,
        }

    def _scores(self, query: Tensor, value: Tensor, key: Tensor | None) -> Tensor:
        if self.score == "location":
            return score_functions.location_score(query, self._cast(self.kernel), ops.shape(value)[1])
        if self.score == "dot":
            return score_functions.dot_score(query, value if key is None else key)
        if self.score == "scaled_dot":
            return score_functions.scaled_dot_score(query, value if key is None else key)
        if self.score == "concat":
            key = self.project_keys(value) if key is None else key
            projected_query = ops.matmul(query, self._cast(self.query_kernel))
            return score_functions.concat_score(projected_query, key, self._cast(self.vector))
        if self.score == "cosine":
            key = self.project_keys(value) if key is None else key
            return score_functions.dot_score(score_functions.unit_vectors(query), key)
        if key is None and _is_shorter(query, value):
            return score_functions.general_score(query, value, self._cast(self.kernel))
        key = self.project_keys(value) if key is None else key
        return score_functions.dot_score(query, key)

    def _cast(self, weight: Tensor) -> Tensor:
        return ops.cast(weight, self.compute_dtype)


def _vector_initializer(units: int) -> keras.initializers.Initializer:
    limit = (3.0 / units) ** 0.5  # variance 1 / units, as Glorot's rule gives a (units, 1) kernel within a factor of 2
    return keras.initializers.RandomUniform(-limit, limit)


def _is_shorter(query: Tensor, value: Tensor) -> bool:
    """Whether projecting the query is known to cost less than projecting the memory."""
    steps, positions = query.shape[1], value.shape[1]
    return steps is not None and positions is not None and steps < positions


def _check_arguments(score: str, units: int | None, max_source_length: int | None, dropout: float) -> None:
    if score not in SCORES:
        raise ValueError(f"Unknown attention score. Expected: one of {SCORES}. Received: score={score!r}")
    if (score == "location") != (max_source_length is not None):
        raise ValueError(
            "`max_source_length` belongs to score='location', which needs it. Expected: a positive int for 'location', "
            f"None for any other score. Received: score={score!r}, max_source_length={max_source_length}"
        )
    if max_source_length is not None and max_source_length < 1:
        raise ValueError(f"Expected: max_source_length >= 1. Received: max_source_length={max_source_length}")
    if units is not None and (score != "concat" or units < 1):
        raise ValueError(
            "`units` is the depth of the concat score's hidden layer. Expected: a positive int for score='concat', "
            f"None for any other score. Received: score={score!r}, units={units}"
        )
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"Expected: 0 <= dropout < 1. Received: dropout={dropout}")


def _check_mask(name: str, mask: Tensor | None, masked: Tensor) -> None:
    if mask is not None and len(mask.shape) != 2:
        raise ValueError(
            f"`{name}` says which positions of a padded batch are real. Expected: shape (batch, length) for a tensor "
            f"of shape {tuple(masked.shape)}. Received: {name}.shape={tuple(mask.shape)}"
        )
