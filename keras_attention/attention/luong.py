"""Attention layers over a memory of encoder states."""

import math
from typing import Any

import keras
from keras import ops

from keras_attention.attention import scores as score_functions
from keras_attention.attention.base import AttentionMechanism
from keras_attention.attention.choices import (
    ADDITIVE_SCORES,
    MONOTONIC,
    SAME_DEPTH_SCORES,
    check_alignment,
    check_choices,
    check_dropout,
    check_kind,
    check_names,
    check_score,
)
from keras_attention.attention.masking import check_attention_mask, check_mask
from keras_attention.attention.shapes import attention_shapes, check_shapes
from keras_attention.attention.weight_options import (
    BIAS_OPTIONS,
    KERNEL_OPTIONS,
    add_bias,
    add_kernel,
    options_config,
    set_options,
)
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class LuongAttention(AttentionMechanism):
    """Attention of Luong, Pham and Manning 2015 (arXiv 1508.04025), section 3: any score, window and alignment.

        a_t(s) = align_s(score(h_t, h_s))        context_t = sum_s a_t(s) h_s

    where `h_t` is a query, `h_s` a value of the memory, and the score is one of

    | score                 | formula                                  | weights                               |
    |-----------------------|------------------------------------------|---------------------------------------|
    | `dot`                 | `h_t . h_s`                              | none; needs Dq = Dv                   |
    | `scaled_dot`          | `h_t . h_s / sqrt(Dq)`                   | none; needs Dq = Dv                   |
    | `general`             | `h_t W_a h_s`                            | `W_a (Dq, Dv)`                        |
    | `concat`, `additive`  | `v . tanh(W_1 h_t + W_2 h_s)`            | `W_1`, `W_2`, `v`                     |
    | `normalized_additive` | `(g v / norm v) . tanh(W_1 h_t + W_2 h_s + b)` | `W_1`, `W_2`, `v`, `g`, `b`     |
    | `location`            | `(W_a h_t)[s]`                           | `W_a (Dq, max_source_length)`         |
    | `cosine`              | `h_t . h_s / (norm h_t norm h_s)`        | none; needs Dq = Dv                   |

    the alignment one of `softmax`, `sparsemax` (exact zeros), `hardmax` (one position, no gradient to the score),
    `monotonic` and `hard_monotonic` (Raffel et al. 2017, see `alignments.monotonic_alignment`; the energy is the score
    plus a learned scalar, `score_bias`), and the window one of

    - `None`: all positions of the source;
    - `local_m`: `p_t - D .. p_t + D` with `p_t = t`, the number of real queries before, at most the row's last
      real position (section 3.2, monotonic);
    - `local_p`: the same about `floor(p_t)` with `p_t = S sigmoid(v_p . tanh(W_p h_t))`, S the row's own length. The
      weights are then multiplied by `exp(-(s - p_t)^2 / (2 (D/2)^2))`, and not normalised again (equations 9 and 10).

    A window is gathered where that is cheaper than a mask over the whole source: always for a single query.
    Computation is in float32 from the scores on; a query whose memory is fully masked gets zeros.

    Args:
        score: one of the names above.
        units: depth U of an additive score's hidden layer; the depth of the query if `None`.
        max_source_length: positions that the location score can address; required for it, and only allowed with it.
        use_scale: multiply the score by a learned scalar `g`, 1 at first (for `cosine` an inverse temperature).
        dropout: share of the weights dropped in training.
        window: `None`, `"local_m"` or `"local_p"`.
        half_width: D of the window.
        alignment: one of the names above.
        use_coverage: `+ w_c C_{t-1}(s)` inside the tanh of an additive score, with `C_{t-1}(s)` the sum of the weights
            that position s had at earlier steps (See et al. 2017, arXiv 1704.04368, equation 11).
        score_bias_init: initial value of a monotonic alignment's `score_bias`; below 0, an untrained row moves on.
        sigmoid_noise: standard deviation of the normal noise added to monotonic energies, in training only.
        seed: seed of dropout and noise.
        kernel_initializer, kernel_regularizer, kernel_constraint: of the matrices `W` and of the vectors, each a kernel
            of one output (`w_c`: of one input). Initializer `None`: Glorot's rule; for vectors, variance 1/N.
        bias_initializer, bias_regularizer, bias_constraint: of the bias `b`, which only `normalized_additive` has.

    Call arguments:
        query: float `(B, T, Dq)`.
        value: float `(B, S, Dv)`.
        key: result of `project_keys(value)`, which saves its cost when the same memory is queried again.
        query_mask: bool `(B, T)`; a masked query gets a zero result and zero weights, and leaves the state unchanged.
        value_mask: bool `(B, S)`; a masked position gets weight 0.
        state: the state of an earlier call; `None` stands for `initial_state(value)`. It is a dict that
            holds `step`, `alignment` or `coverage` where the mechanism needs it. T queries continue from it in order.
        return_attention_scores: also return the weights.
        return_state: also return the state after the last query.
        use_causal_mask: the t-th query of this call sees only positions up to t.
        attention_mask: bool `(B, T, S)`, true where a query may attend, combined with the other masks.
        noise: result of `draw_noise`, for callers that draw it outside of a loop.
        training: whether dropout and noise apply.

    Returns:
        The contexts `(B, T, Dv)`; then, if requested, the weights `(B, T, S)` before dropout, and the state.

    Raises:
        ValueError: for an unknown name, an invalid combination of arguments, depths that the score cannot compare, a
        mask of a wrong shape or dtype, a state of other names, or a source longer than `max_source_length`.

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
        window: str | None = None,
        half_width: int = 10,
        alignment: str = "softmax",
        use_coverage: bool = False,
        score_bias_init: float = 0.0,
        sigmoid_noise: float = 0.0,
        seed: int | None = None,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_initializer: Any = "zeros",
        bias_regularizer: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        check_names(type(self).__name__, kwargs)
        super().__init__(**kwargs)
        check_kind("score_bias_init", score_bias_init, float)
        check_choices(score, window, alignment)
        check_score(score, units, max_source_length, use_scale)
        check_alignment(score, window, half_width, alignment, use_coverage, sigmoid_noise)
        check_dropout(dropout)
        self.depths: dict[str, Any] = {}  # set by build
        self.score = score
        self.units = units
        self.max_source_length = max_source_length
        self.use_scale = use_scale
        self.dropout = dropout
        self.window = window
        self.half_width = half_width
        self.alignment = alignment
        self.use_coverage = use_coverage
        self.score_bias_init = score_bias_init
        self.sigmoid_noise = sigmoid_noise
        self.seed = seed
        set_options(self, KERNEL_OPTIONS, kernel_initializer, kernel_regularizer, kernel_constraint)
        set_options(self, BIAS_OPTIONS, bias_initializer, bias_regularizer, bias_constraint)
        self.supports_masking = True
        self.autocast = False  # the state stays in float32, whatever the layer's compute dtype
        if dropout or sigmoid_noise:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, query_shape: Any, value_shape: Shape | None = None) -> None:
        query_shape, value_shape = attention_shapes(type(self).__name__, query_shape, value_shape)
        query_depth, value_depth = query_shape[-1], value_shape[-1]
        self.depths = {"Dq": query_depth, "Dv": value_depth}
        if self.score in SAME_DEPTH_SCORES and query_depth != value_depth:
            raise ValueError(
                f"score='{self.score}' compares a query and a value of one depth; score='general' compares different "
                f"depths. Expected: query depth == value depth. Received: query_shape={tuple(query_shape)}, "
                f"value_shape={tuple(value_shape)}"
            )
        if self.score == "general":
            self.kernel = add_kernel(self, "kernel", (query_depth, value_depth))
        elif self.score == "location":
            score_functions.check_source_length(value_shape[1], self.max_source_length)
            self.kernel = add_kernel(self, "kernel", (query_depth, self.max_source_length))
        elif self.score in ADDITIVE_SCORES:
            self._build_additive(query_depth, value_depth, self.units or query_depth)
        if self.use_scale:
            self.scale = self.add_weight(shape=(), name="scale", initializer="ones")
        if self.alignment in MONOTONIC:
            start = keras.initializers.Constant(self.score_bias_init)
            self.score_bias = self.add_weight(shape=(), name="score_bias", initializer=start)
        if self.window == "local_p":
            self.position_kernel = add_kernel(self, "position_kernel", (query_depth, query_depth))
            self.position_vector = self._add_vector("position_vector", query_depth, (query_depth, 1))
        self.built = True

    def _build_additive(self, query_depth: int, value_depth: int, units: int) -> None:
        self.query_kernel = add_kernel(self, "query_kernel", (query_depth, units))
        self.key_kernel = add_kernel(self, "key_kernel", (value_depth, units))
        self.vector = self._add_vector("vector", units, (units, 1))
        if self.score == "normalized_additive":
            start = keras.initializers.Constant(units**-0.5)
            self.factor = self.add_weight(shape=(), name="factor", initializer=start)
            self.bias = add_bias(self, "bias", units)
        if self.use_coverage:
            self.coverage_vector = self._add_vector("coverage_vector", units, (1, units))

    def _add_vector(self, name: str, depth: int, matrix: tuple[int, int]) -> Any:
        return add_kernel(self, name, (depth,), _vector_initializer(depth), matrix)

    def project_keys(self, value: Tensor) -> Tensor | None:
        """Return the part of the score that depends only on the memory, `(B, S, ...)`, to be passed as `key`.

        `None` where nothing can be cached: dot and scaled dot read the values themselves, location reads none.
        """
        value = ops.convert_to_tensor(value, dtype=self.compute_dtype)
        if self.score == "general":
            return score_functions.general_key(value, self._cast(self.kernel))
        if self.score in ADDITIVE_SCORES:
            return ops.matmul(value, self._cast(self.key_kernel))
        if self.score == "cosine":
            return score_functions.unit_vectors(value)
        return None

    def keys_of_dot(self, value: Tensor, key: Tensor | None = None) -> Tensor:
        """Return keys whose dot product with a query is the score, including any scale.

        Only for `"dot"`, `"scaled_dot"` and `"general"`. `key` is the result of `project_keys(value)`.
        """
        key = self.project_keys(value) if key is None else key
        key = ops.convert_to_tensor(value, dtype=self.compute_dtype) if key is None else key
        if self.score == "scaled_dot":
            key = key / math.sqrt(key.shape[-1])
        return key * self._cast(self.scale) if self.use_scale else key

    def call(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        state: TensorDict | None = None,
        return_attention_scores: bool = False,
        return_state: bool = False,
        use_causal_mask: bool = False,
        noise: TensorDict | None = None,
        attention_mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Any:
        shapes = {"query": (query.shape, "B T Dq"), "value": (value.shape, "B S Dv")}
        check_shapes(type(self).__name__, shapes, **self.depths)
        query, value = self._cast(query), self._cast(value)
        noise = self.draw_noise(query, value) if training and noise is None else noise or {}
        arguments = (query, value, key, query_mask, value_mask, self.check_state(state, value), noise)
        if self._gathers(query, value) and not use_causal_mask and attention_mask is None:
            context, weights, new_state = self._attend_window(*arguments, return_attention_scores)
        else:
            weights, new_state = self.align(*arguments, use_causal_mask, attention_mask)
            kept = weights * noise["dropout"] if "dropout" in noise else weights
            context = ops.matmul(kept, value)
        results = [context]
        if return_attention_scores:
            results.append(weights)
        if return_state:
            results.append(new_state)
        return results[0] if len(results) == 1 else tuple(results)

    def compute_output_shape(self, query_shape: Any, value_shape: Shape | None = None) -> Shape:
        """Return the shape of the contexts."""
        query_shape, value_shape = attention_shapes(type(self).__name__, query_shape, value_shape)
        return (*query_shape[:2], value_shape[-1])

    def compute_output_spec(
        self,
        query: Tensor,
        value: Tensor,
        *arguments: Any,
        return_attention_scores: bool = False,
        return_state: bool = False,
        **others: Any,
    ) -> Any:
        """Skip tracing for the location score: JAX and PyTorch trace an unknown length as one too large for it."""
        if self.score != "location" or arguments:
            more = {"return_attention_scores": return_attention_scores, "return_state": return_state}
            return keras.Operation.compute_output_spec(self, query, value, *arguments, **more, **others)
        shapes = {"query": (query.shape, "B T Dq"), "value": (value.shape, "B S Dv")}
        check_shapes(type(self).__name__, shapes, **self.depths)
        check_mask("query_mask", others.get("query_mask"), query)
        check_mask("value_mask", others.get("value_mask"), value)
        check_attention_mask(others.get("attention_mask"), query, value)
        (batch, steps), (length, depth) = query.shape[:2], value.shape[1:]
        shapes = {"step": ((batch,), "int32"), "alignment": ((batch, length), "float32")}
        results: list[Any] = [keras.KerasTensor((batch, steps, depth), dtype=self.compute_dtype)]
        if return_attention_scores:
            results.append(keras.KerasTensor((batch, steps, length), dtype=self.compute_dtype))
        if return_state:
            results.append({name: keras.KerasTensor(*shapes[name]) for name in self.state_names})
        return results[0] if len(results) == 1 else tuple(results)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in ARGUMENTS}, **options_config(self)}


ARGUMENTS = (
    "score",
    "units",
    "max_source_length",
    "use_scale",
    "dropout",
    "window",
    "half_width",
    "alignment",
    "use_coverage",
    "score_bias_init",
    "sigmoid_noise",
    "seed",
)
"""Names of `LuongAttention`'s own arguments, without the options of its weights."""


@keras.saving.register_keras_serializable(package="keras_attention")
class BahdanauAttention(LuongAttention):
    """Additive attention of Bahdanau, Cho and Bengio 2015 (arXiv 1409.0473, appendix A.1.2), plain or normalised.

        score = v . tanh(W_1 h_t + W_2 h_s)        or        (g v / norm v) . tanh(W_1 h_t + W_2 h_s + b)

    with `g = 1 / sqrt(units)` and `b = 0` at first (Salimans and Kingma 2016, arXiv 1602.07868). It is `LuongAttention`
    with that score; windows, alignments, coverage, masks and state are the same. The decoder of the paper, which
    attends before the recurrent step, is `AttentionCell(..., style="bahdanau")`.

    Args:
        units: depth U of the hidden layer; the depth of the query if `None`.
        normalize: whether to use the second form.
        **kwargs: the other arguments of `LuongAttention`.

    Example:
    >>> import numpy as np
    >>> attention = BahdanauAttention(units=13, normalize=True)
    >>> tuple(attention(np.ones((2, 3, 5), "float32"), np.ones((2, 7, 11), "float32")).shape)
    (2, 3, 11)
    """

    def __init__(self, units: int | None = None, normalize: bool = False, **kwargs: Any) -> None:
        super().__init__(score="normalized_additive" if normalize else "additive", units=units, **kwargs)
        self.normalize = normalize

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "normalize": self.normalize}
        del config["score"]
        return config


def _vector_initializer(units: int) -> keras.initializers.Initializer:
    limit = (3.0 / units) ** 0.5  # variance 1 / units, as Glorot's rule gives a (units, 1) kernel within a factor of 2
    return keras.initializers.RandomUniform(-limit, limit)
