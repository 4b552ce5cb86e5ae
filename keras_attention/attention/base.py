"""Base of all attention layers: weights and contexts of one query or many, with the state between queries."""

from typing import Any, TypeAlias

import keras
from keras import ops

from keras_attention.attention import alignments
from keras_attention.attention import scores as score_functions
from keras_attention.attention.choices import ADDITIVE_SCORES, MONOTONIC, check_call
from keras_attention.attention.masking import both, check_attention_mask, check_mask
from keras_attention.attention.matmul import linear
from keras_attention.attention.windows import gather_by_query, gather_windows, spread_windows, window_positions
from keras_attention.loops import run_steps
from keras_attention.types import Tensor, TensorDict

Masks: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Masks of queries `(B, T)`, of values `(B, S)`, and of their pairs `(B, T, S)`."""

# A gathered window saves the scores of the other positions and costs a copy of its keys and values. Several queries
# can share the masked read, but not the gather; an additive score computes its hidden layer per query anyway.
_GATHER_FROM = {"additive": 2, "product": 8}


class AttentionMechanism(keras.layers.Layer):
    """Scores, weights and contexts. `LuongAttention` owns the weights and documents the arguments."""

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        check_call(type(self).__name__, tensors, named)
        return super().__call__(*tensors, **named)

    recurrence = "layer"
    """Loop over queries that depend on each other: one of `loops.RECURRENCES`; set by exporters."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the tensors in the state; none for most mechanisms."""
        names: tuple[str, ...] = ("coverage",) if self.use_coverage else ()
        if self.alignment in MONOTONIC:
            names += ("alignment",)
        return (*names, "step") if self.window == "local_m" else names

    def initial_state(self, value: Tensor) -> TensorDict:
        """Return the initial state: `coverage` `(B, S)` 0, `alignment` at position 0 `(B, S)`, `step` 0."""
        start = {}
        if "coverage" in self.state_names:
            start["coverage"] = ops.zeros(ops.shape(value)[:2], dtype="float32")
        if "alignment" in self.state_names:
            start["alignment"] = alignments.first_position(value)
        if "step" in self.state_names:
            start["step"] = ops.zeros(ops.shape(value)[:1], dtype="int32")
        return start

    def draw_noise(self, query: Tensor, value: Tensor) -> TensorDict:
        """Draw the noise of one training pass, each `(B, T, S)`: factors of dropout, noise of the energies."""
        shape = (*ops.shape(query)[:2], ops.shape(value)[1])
        noise = {}
        if self.dropout:
            ones = ops.ones(shape, dtype=self.compute_dtype)
            noise["dropout"] = keras.random.dropout(ones, self.dropout, seed=self.seed_generator)
        if self.sigmoid_noise:
            noise["energy"] = keras.random.normal(
                shape, stddev=self.sigmoid_noise, dtype=self.compute_dtype, seed=self.seed_generator
            )
        return noise

    def check_state(self, state: TensorDict | None, value: Tensor) -> TensorDict:
        """Return the given state, or the initial one for `None`.

        Raises:
            ValueError: if its names are not those of `state_names`.
        """
        if state is None:
            return self.initial_state(value)
        if not isinstance(state, dict) or set(state) != set(self.state_names):
            received = sorted(state) if isinstance(state, dict) else type(state).__name__
            raise ValueError(
                f"The state is not one of this attention mechanism. Expected: a dict of {sorted(self.state_names)}. "
                f"Received: {received}"
            )
        return state

    def align(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None,
        query_mask: Tensor | None,
        value_mask: Tensor | None,
        state: TensorDict,
        noise: TensorDict,
        use_causal_mask: bool = False,
        attention_mask: Tensor | None = None,
    ) -> tuple[Tensor, TensorDict]:
        """Compute weights `(B, T, S)` over the whole source, before dropout, and the state after the last query."""
        check_mask("query_mask", query_mask, query)
        check_mask("value_mask", value_mask, value)
        check_attention_mask(attention_mask, query, value)
        masks = query_mask, value_mask, attention_mask
        if not self.use_coverage:
            return self._align(query, value, key, masks, state, noise, use_causal_mask)
        if use_causal_mask:
            raise ValueError(
                "Coverage is the memory of a decoder's earlier steps. Expected: use_causal_mask=False with "
                "use_coverage=True. Received: use_causal_mask=True"
            )
        key = self.project_keys(value) if key is None else key
        if query.shape[1] == 1:
            return self._align(query, value, key, masks, state, noise, False)
        return self._align_in_turn(query, value, key, masks, state)

    def _align_in_turn(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor,
        masks: Masks,
        state: TensorDict,
    ) -> tuple[Tensor, TensorDict]:
        """Align query by query, for scores that depend on earlier weights."""
        names = sorted(state)
        query_mask, value_mask, attention_mask = masks
        allowed = [] if attention_mask is None else [self._cast(attention_mask)]
        real = ops.ones_like(query[:, :, :1]) if query_mask is None else self._cast(ops.expand_dims(query_mask, -1))

        def step(inputs: list[Tensor], state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            one, real, *allowed = (ops.expand_dims(tensor, 1) for tensor in inputs)
            before = dict(zip(names, state, strict=True))
            masks = real[:, :, 0] > 0, value_mask, allowed[0] > 0 if allowed else None
            weights, after = self._align(one, value, key, masks, before, {}, False)
            return [weights[:, 0]], [after[name] for name in names]

        width = [ops.shape(value)[1]]
        (weights,), final = run_steps(
            step, [query, real, *allowed], [state[name] for name in names], width, self.recurrence
        )
        return weights, dict(zip(names, final, strict=True))

    def _align(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None,
        masks: Masks,
        state: TensorDict,
        noise: TensorDict,
        use_causal_mask: bool,
    ) -> tuple[Tensor, TensorDict]:
        length = ops.shape(value)[1]
        query_mask, value_mask, attention_mask = masks
        mask = None if value_mask is None else ops.expand_dims(value_mask, 1)
        if attention_mask is not None:
            mask = both(mask, ops.cast(attention_mask, "bool"))
        if use_causal_mask:
            steps = ops.arange(ops.shape(query)[1], dtype="int32")
            mask = both(mask, ops.expand_dims(ops.arange(length, dtype="int32") <= ops.expand_dims(steps, 1), 0))
        positions = None
        if self.window is not None:
            lengths = alignments.source_lengths(value, value_mask)
            positions, centres = self._centres(query, lengths, query_mask, state)
            mask = both(mask, alignments.window_mask(centres, self.half_width, length))
        scores = self._scores(query, value, key, state.get("coverage"))
        if self.alignment in MONOTONIC:
            weights, new_state = self._walk(scores, mask, query_mask, state, noise)
        else:
            weights, new_state = self._cast(alignments.NORMALISERS[self.alignment](scores, mask)), dict(state)
        if positions is not None:
            places = ops.arange(length, dtype="int32")
            weights = weights * self._cast(alignments.gaussian(places, positions, self.half_width))
        if query_mask is not None:
            weights = weights * ops.expand_dims(self._cast(query_mask), 2)
        return weights, self._advanced(new_state, query, query_mask, weights)

    def _attend_window(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None,
        query_mask: Tensor | None,
        value_mask: Tensor | None,
        state: TensorDict,
        noise: TensorDict,
        return_weights: bool,
    ) -> tuple[Tensor, Tensor | None, TensorDict]:
        """Compute contexts, optional weights over the source, and state from the windows' keys and values only."""
        check_mask("query_mask", query_mask, query)
        check_mask("value_mask", value_mask, value)
        batch, steps, depth = ops.shape(query)
        lengths = alignments.source_lengths(value, value_mask)
        positions, centres = self._centres(query, lengths, query_mask, state)
        places, mask = window_positions(centres, self.half_width, lengths)
        width = 2 * self.half_width + 1
        if value_mask is not None:
            real = gather_windows(self._cast(ops.expand_dims(value_mask, -1)), places)
            mask = both(mask, ops.reshape(real, (batch, steps, width)) > 0)
        values = gather_windows(value, places)
        keys = None if key is None else gather_windows(key, places)
        coverage = state.get("coverage")
        if coverage is not None:
            coverage = ops.reshape(gather_windows(ops.expand_dims(coverage, -1), places), (-1, width))
        scores = self._scores(ops.reshape(query, (-1, 1, depth)), values, keys, coverage)
        scores = ops.reshape(scores, (batch, steps, width))
        weights = self._cast(alignments.NORMALISERS[self.alignment](scores, mask))
        if positions is not None:
            weights = weights * self._cast(alignments.gaussian(places, positions, self.half_width))
        if query_mask is not None:
            weights = weights * ops.expand_dims(self._cast(query_mask), 2)
        kept = weights * gather_by_query(noise["dropout"], places) if "dropout" in noise else weights
        context = ops.matmul(ops.reshape(kept, (-1, 1, width)), values)
        context = ops.reshape(context, (batch, steps, value.shape[-1]))
        spread = None
        if return_weights or self.use_coverage:
            spread = spread_windows(weights, centres, self.half_width, ops.shape(value)[1])
        return context, spread, self._advanced(dict(state), query, query_mask, spread)

    def _gathers(self, query: Tensor, value: Tensor) -> bool:
        """Return whether windows are gathered: for one query, or a source statically known to be long enough."""
        if self.window is None or self.score == "location":
            return False
        steps, length, width = _known(query.shape[1]), _known(value.shape[1]), 2 * self.half_width + 1
        if steps == 1:
            return length is None or length > width
        if steps is None or length is None or self.use_coverage:
            return False
        kind = "additive" if self.score in ADDITIVE_SCORES else "product"
        return bool(length > _GATHER_FROM[kind] * width)

    def _centres(
        self,
        query: Tensor,
        lengths: Tensor,
        query_mask: Tensor | None,
        state: TensorDict,
    ) -> tuple[Tensor | None, Tensor]:
        """Return the Gaussians' centres, float32 `(B, T)`, None for local-m, and the windows', int32 `(B, T)`."""
        last = ops.maximum(lengths - 1, 0)
        if self.window == "local_m":
            if query_mask is None:
                earlier = ops.arange(ops.shape(query)[1], dtype="int32")
            else:
                real = ops.cast(query_mask, "int32")
                earlier = ops.cumsum(real, axis=1) - real
            return None, ops.minimum(ops.expand_dims(state["step"], 1) + earlier, last)
        hidden = ops.tanh(linear(query, self._cast(self.position_kernel)))
        share = linear(hidden, ops.expand_dims(self._cast(self.position_vector), 1))[:, :, 0]
        positions = ops.cast(lengths, "float32") * ops.sigmoid(ops.cast(share, "float32"))
        # A saturated sigmoid gives S itself; only the window is clamped, the Gaussian keeps its centre and gradient.
        centres = ops.minimum(ops.cast(ops.floor(ops.stop_gradient(positions)), "int32"), last)
        return positions, centres

    def _walk(
        self, scores: Tensor, mask: Tensor | None, query_mask: Tensor | None, state: TensorDict, noise: TensorDict
    ) -> tuple[Tensor, TensorDict]:
        """Compute monotonic weights, each query's from the previous query's; masked queries leave them unchanged."""
        energies = ops.cast(scores, "float32") + ops.cast(self.score_bias, "float32")
        if self.alignment == "hard_monotonic":
            chosen = ops.cast(energies > 0, "float32")
        else:
            if "energy" in noise:
                energies = energies + ops.cast(noise["energy"], "float32")
            chosen = ops.sigmoid(energies)
        if mask is not None:
            chosen = chosen * ops.cast(mask, "float32")

        def step(inputs: list[Tensor], state: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            weights = alignments.monotonic_alignment(inputs[0], state[0])
            kept = weights
            if self.alignment == "hard_monotonic":
                # A query that stops nowhere has zero weights; the next one continues from the last stop.
                kept = ops.where(ops.max(weights, axis=-1, keepdims=True) > 0, weights, state[0])
            return [weights], [ops.where(inputs[1] > 0, kept, state[0]) if len(inputs) > 1 else kept]

        inputs = [chosen]
        if query_mask is not None:
            inputs.append(ops.cast(ops.expand_dims(query_mask, 2), "float32"))
        before = [ops.cast(state["alignment"], "float32")]
        if scores.shape[1] == 1:
            (weights,), (last,) = step([tensor[:, 0] for tensor in inputs], before)
            weights = ops.expand_dims(weights, 1)
        else:
            (weights,), (last,) = run_steps(step, inputs, before, [ops.shape(scores)[2]], self.recurrence)
        return self._cast(weights), {**state, "alignment": last}

    def _advanced(
        self, state: TensorDict, query: Tensor, query_mask: Tensor | None, weights: Tensor | None
    ) -> TensorDict:
        """Return the state after these queries: added coverage, advanced step; masked queries do not count."""
        if "step" in state:
            steps = ops.shape(query)[1] if query_mask is None else ops.sum(ops.cast(query_mask, "int32"), axis=1)
            state["step"] = state["step"] + steps
        if "coverage" in state:
            state["coverage"] = state["coverage"] + ops.sum(ops.cast(weights, "float32"), axis=1)
        return state

    def _scores(self, query: Tensor, value: Tensor, key: Tensor | None, coverage: Tensor | None = None) -> Tensor:
        scores = self._plain_scores(query, value, None if key is None else self._cast(key), coverage)
        return scores * ops.cast(self.scale, scores.dtype) if self.use_scale else scores

    def _plain_scores(self, query: Tensor, value: Tensor, key: Tensor | None, coverage: Tensor | None) -> Tensor:
        if self.score == "location":
            return score_functions.location_score(query, self._cast(self.kernel), ops.shape(value)[1])
        if self.score == "dot":
            return score_functions.dot_score(query, value if key is None else key)
        if self.score == "scaled_dot":
            return score_functions.scaled_dot_score(query, value if key is None else key)
        if self.score == "general" and key is None and _is_shorter(query, value):
            return score_functions.general_score(query, value, self._cast(self.kernel))
        key = self.project_keys(value) if key is None else key
        if self.score == "general":
            return score_functions.dot_score(query, key)
        if self.score == "cosine":
            return score_functions.dot_score(score_functions.unit_vectors(query), key)
        return self._additive_scores(query, key, coverage)

    def _additive_scores(self, query: Tensor, key: Tensor, coverage: Tensor | None) -> Tensor:
        projected = linear(query, self._cast(self.query_kernel))
        vector, bias = self.vector, None
        if self.score == "normalized_additive":
            vector = self.factor * score_functions.unit_vectors(ops.convert_to_tensor(vector))
            bias = self._cast(self.bias)
        extra = []
        if coverage is not None:
            extra = [self._cast(coverage), self._cast(self.coverage_vector)]
        return score_functions.additive_score(projected, key, self._cast(vector), bias, *extra)

    def _cast(self, tensor: Tensor) -> Tensor:
        return ops.cast(tensor, self.compute_dtype)


def _is_shorter(query: Tensor, value: Tensor) -> bool:
    """Return whether projecting the query is known to cost less than projecting the memory."""
    steps, positions = _known(query.shape[1]), _known(value.shape[1])
    return steps is not None and positions is not None and steps < positions


def _known(size: Tensor | int | None) -> int | None:
    """Return a static size; None for a dynamic one (None on TensorFlow and PyTorch, a symbol on JAX)."""
    return size if isinstance(size, int) else None
