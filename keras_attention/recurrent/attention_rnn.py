"""`AttentionCell` over time, as a layer for functional models."""

import copy
from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_dropout
from keras_attention.attention.gather import gather_positions
from keras_attention.attention.masking import check_mask
from keras_attention.attention.shapes import check_shapes, memory_shapes
from keras_attention.loops import run_steps
from keras_attention.recurrent import any_cell as cell_states
from keras_attention.recurrent.attention_cell import AttentionCell, mean_alignment
from keras_attention.recurrent.fed_lstm_kernel import is_fed_lstm, run_fed_lstm
from keras_attention.recurrent.stack import RecurrentStack, best_by_own_gradient, sequence_dropout
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class AttentionRNN(keras.layers.Layer):
    """Run an `AttentionCell` over the steps of its inputs, with memory and mask as call arguments.

    Without input feeding the recurrent cells run over all steps first, and attention follows for all steps at once.
    With it, in Bahdanau's style, or with a mask of the inputs, it is a loop over `AttentionCell.advance`. Both give
    the results of calling the cell step by step.

    Args:
        cell: an `AttentionCell`.
        return_sequences: whether all outputs `(B, T, A)` are returned, or the last one `(B, A)`.
        return_state: whether to return the last state too, a dict like the cell's.
        dropout: share of the outputs dropped in training (what Luong's input feeding feeds back too), and, where
            attention comes after the recurrence, of the recurrent outputs that it reads.
        variational_dropout: whether all steps of a row share one dropout mask.

    Call arguments:
        inputs: float `(B, T, E)`.
        memory: float `(B, S, Dv)`.
        memory_mask: bool `(B, S)`, true at real positions.
        mask: bool `(B, T)`; a masked step keeps the state; its output and weights are zeros.
        initial_state: a dict like the cell's state, or only the recurrent cell's states: a tensor, a nest of tensors in
            the order of the cells, or a dict by name.
        return_attention_scores: also return the weights: `True` for the mean over heads and mechanisms `(B, T, S)`,
            `"all"` for `(B, M, T, S)`.
        inputs_mask: the mask that Keras propagates with the inputs, as from
            `keras.layers.Embedding(mask_zero=True)`; the default of `mask`. `memory_mask` may be propagated too.
        training: whether dropout applies.

    Returns:
        The outputs; then, if requested, the weights, and the state.

    Raises:
        ValueError: for a mask of a wrong shape or dtype, or a state that does not match the cell.

    Example:
    >>> import numpy as np
    >>> from keras_attention import LuongAttention
    >>> rnn = AttentionRNN(AttentionCell(keras.layers.GRUCell(5), LuongAttention("general")), return_sequences=True)
    >>> inputs, memory = np.ones((2, 3, 4), "float32"), np.ones((2, 7, 11), "float32")
    >>> outputs, weights = rnn(inputs, memory, return_attention_scores=True)
    >>> tuple(outputs.shape), tuple(weights.shape)
    ((2, 3, 11), (2, 3, 7))
    """

    recurrence = "layer"
    """Loop over the steps, one of `loops.RECURRENCES`; set by exporters."""

    def __init__(
        self,
        cell: AttentionCell,
        return_sequences: bool = False,
        return_state: bool = False,
        dropout: float = 0.0,
        variational_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(cell, AttentionCell):
            raise ValueError(
                f"Expected: cell, an AttentionCell; keras.layers.RNN runs other cells. Received: {type(cell).__name__}"
            )
        check_dropout(dropout)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.dropout = dropout
        self.supports_masking = True
        self.autocast = False
        self.variational_dropout = variational_dropout
        self._dropout = sequence_dropout(dropout, variational_dropout, self.dtype_policy)

    def build(self, inputs_shape: Any, memory_shape: Shape | None = None) -> None:
        inputs_shape, memory_shape = memory_shapes("AttentionRNN", inputs_shape, memory_shape)
        check_shapes("AttentionRNN", {"inputs": (inputs_shape, "B T E"), "memory": (memory_shape, "B S Dv")})
        if not self.cell.built:
            self.cell.build((None, inputs_shape[-1]), memory_shape)
        self.built = True

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Any:
        """Return the inputs' mask for all outputs, None for the last output alone, as in `keras.layers.RNN`."""
        return previous_mask if self.return_sequences else None

    def call(
        self,
        inputs: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        mask: Tensor | None = None,
        initial_state: Any = None,
        return_attention_scores: bool | str = False,
        inputs_mask: Tensor | None = None,
        training: bool | None = None,
    ) -> Any:
        if return_attention_scores not in (True, False, "all"):
            raise ValueError(
                f"Expected: return_attention_scores in (True, False, 'all'). Received: {return_attention_scores!r}"
            )
        shapes = {"inputs": (inputs.shape, "B T E"), "memory": (memory.shape, "B S Dv")}
        check_shapes("AttentionRNN", shapes, **self.cell.depths)
        mask = inputs_mask if mask is None else mask
        check_mask("mask", mask, inputs)
        check_mask("memory_mask", memory_mask, memory)
        prepared = self.cell.prepare_memory(memory, memory_mask)
        state = self._initial_state(initial_state, prepared)
        outputs, alignments, state = self.run(inputs, state, prepared, mask, training)
        if not self.return_sequences:
            outputs = outputs[:, -1] if mask is None else gather_positions(outputs, _last(mask))[:, 0]
        results = [outputs]
        if return_attention_scores:
            results.append(alignments if return_attention_scores == "all" else mean_alignment(alignments))
        if self.return_state:
            results.append(state)
        return results[0] if len(results) == 1 else tuple(results)

    def compute_output_shape(self, inputs_shape: Any, memory_shape: Shape | None = None) -> Shape:
        """Return the shape of the outputs."""
        inputs_shape, memory_shape = memory_shapes("AttentionRNN", inputs_shape, memory_shape)
        time = inputs_shape[1:2] if self.return_sequences else ()
        return (inputs_shape[0], *time, self.cell.output_depth(memory_shape[-1]))

    def compute_output_spec(
        self,
        inputs: Tensor,
        memory: Tensor,
        *arguments: Any,
        return_attention_scores: bool | str = False,
        **others: Any,
    ) -> Any:
        """Skip tracing for the location score: JAX and PyTorch trace an unknown length as one too large for it."""
        cell = self.cell
        if arguments or all(attention.score != "location" for attention in cell.attentions):
            return keras.Operation.compute_output_spec(
                self, inputs, memory, *arguments, return_attention_scores=return_attention_scores, **others
            )
        (batch, steps), (length, depth) = inputs.shape[:2], memory.shape[1:]
        time = (steps,) if self.return_sequences else ()
        results: list[Any] = [keras.KerasTensor((batch, *time, cell.output_depth(depth)), dtype=self.compute_dtype)]
        if return_attention_scores:
            heads = (cell.num_alignments,) if return_attention_scores == "all" else ()
            results.append(keras.KerasTensor((batch, *heads, steps, length), dtype=self.compute_dtype))
        if self.return_state:
            results.append(cell.state_spec(batch, length, depth))
        return results[0] if len(results) == 1 else tuple(results)

    def run(
        self,
        inputs: Tensor,
        state: TensorDict,
        memory: TensorDict,
        mask: Tensor | None = None,
        training: bool | None = None,
    ) -> tuple[Tensor, Tensor, TensorDict]:
        """Run all steps over a prepared memory: outputs `(B, T, A)`, alignments `(B, M, T, S)`, the last state."""
        cell = self.cell
        inputs = ops.cast(inputs, self.compute_dtype)
        noise = [one.draw_noise(inputs, memory["values"]) if training else {} for one in cell.attentions]
        with cell_states.dropout_of_one_pass(cell.cell, cell.cell_input_depth, inputs, training):
            if cell.style == "luong" and cell.input_feeding is False and mask is None:
                return self._run_recurrence_first(inputs, state, memory, noise, training)
            own = training and mask is None and best_by_own_gradient(self.compute_dtype)
            if own and is_fed_lstm(cell):
                return self._run_fed_lstm(inputs, state, memory)
            return self._run_in_turn(inputs, state, memory, mask, noise, training)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": cell_states.described(self.cell),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "dropout": self.dropout,
            "variational_dropout": self.variational_dropout,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttentionRNN":
        config = copy.deepcopy(config)  # StackedRNNCells.from_config modifies its argument
        return cls(**{**config, "cell": keras.saving.deserialize_keras_object(config["cell"])})

    def _initial_state(self, given: Any, memory: TensorDict) -> TensorDict:
        if given is None:
            return self.cell.initial_state(memory)
        named = cell_states.named_state(self.cell.cell, given)
        # A dict of the whole state continues from there; with only the recurrent cell's states the rest is initial.
        if set(named) == set(self.cell.state_sizes):
            return self.cell.initial_state(memory, named)
        self.cell.check_state(named)
        shapes = {"memory": (memory["values"].shape, "B S Dv")}
        check_shapes("AttentionRNN", shapes | cell_states.axes_of(self.cell.state_sizes, named))
        return named

    def _run_recurrence_first(
        self, inputs: Tensor, state: TensorDict, memory: TensorDict, noise: list[TensorDict], training: bool | None
    ) -> tuple[Tensor, Tensor, TensorDict]:
        cell = self.cell
        hidden, new_state = self._run_cells(inputs, {name: state[name] for name in cell.state_sizes}, training)
        outputs, alignments, after = cell.attend(
            self._dropout(hidden, training=training), state, memory, noise, training
        )
        return self._dropout(outputs, training=training), alignments, {**new_state, **after}

    def _run_cells(self, inputs: Tensor, state: TensorDict, training: bool | None) -> tuple[Tensor, TensorDict]:
        """Run only the recurrent cells over all steps; a `RecurrentStack` by Keras' own layers, which may be fused."""
        cell = self.cell.cell
        if isinstance(cell, RecurrentStack):
            hidden, final_state = cell(
                inputs, initial_state=state, recurrence=self.recurrence, inputs_mask=False, training=training
            )
            return hidden, final_state
        names = list(state)

        def step(inputs: list[Tensor], tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            output, after = cell_states.step_cell(cell, inputs[0], dict(zip(names, tensors, strict=True)), training)
            return [output], [after[name] for name in names]

        (hidden,), final = run_steps(step, [inputs], list(state.values()), [self.cell.query_depth], self.recurrence)
        return hidden, dict(zip(names, final, strict=True))

    def _run_fed_lstm(self, inputs: Tensor, state: TensorDict, memory: TensorDict) -> tuple[Tensor, Tensor, TensorDict]:
        """A training pass of a cell that `is_fed_lstm` accepts, with the results of `_run_in_turn`."""
        cell, attention = self.cell, self.cell.attentions[0]
        lstm, combining = cell.cell.layers[0][0].cell, cell.attentional
        assert combining is not None
        shape = (*ops.shape(inputs)[:2], cell.attentional_size)
        vectors, alignments, hidden, long_term, fed = run_fed_lstm(
            inputs,
            state["h_0"],
            state["c_0"],
            state["attentional"],
            attention.keys_of_dot(memory["values"], memory.get("keys")),
            memory["values"],
            lstm.kernel,
            lstm.recurrent_kernel,
            lstm.bias,
            combining.kernel,
            ops.cast(memory["mask"], self.compute_dtype),
            self._dropout(ops.ones(shape, dtype=self.compute_dtype), training=True),
            (cell.cell.products, cell.products),
        )
        return vectors, ops.expand_dims(alignments, 1), {"h_0": hidden, "c_0": long_term, "attentional": fed}

    def _run_in_turn(
        self,
        inputs: Tensor,
        state: TensorDict,
        memory: TensorDict,
        mask: Tensor | None,
        noise: list[TensorDict],
        training: bool | None,
    ) -> tuple[Tensor, Tensor, TensorDict]:
        cell, names = self.cell, sorted(state)
        batch, steps = ops.shape(inputs)[0], ops.shape(inputs)[1]
        length, depth = ops.shape(memory["values"])[1], cell.output_depth(memory["values"].shape[-1])
        heads = cell.num_alignments
        # Noise is drawn before the loop, so that the body is a pure function of its inputs on every backend.
        noise = [*noise, cell_states.draw_noise(cell.cell, inputs) if training else {}]
        ones = ops.ones((batch, steps, depth), dtype=self.compute_dtype)
        random = {"outputs": self._dropout(ones, training=training)} if training and self.dropout else {}
        random.update({f"{n}.{name}": tensor for n, part in enumerate(noise) for name, tensor in part.items()})
        real = [] if mask is None else [ops.cast(ops.expand_dims(mask, -1), self.compute_dtype)]

        def step(tensors: list[Tensor], states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            before = dict(zip(names, states, strict=True))
            drawn = dict(zip(random, tensors[1 : 1 + len(random)], strict=True))
            parts = [{name: ops.expand_dims(drawn[f"{n}.{name}"], 1) for name in p} for n, p in enumerate(noise)]
            output, after, alignments = cell.advance(tensors[0], before, memory, parts, training)
            if "outputs" in drawn:
                output = output * drawn["outputs"]
                if cell.feeds:
                    after["attentional"] = output
            flat = ops.reshape(alignments, (ops.shape(alignments)[0], -1))
            if real:
                output, flat = output * tensors[-1], flat * tensors[-1]
                after = {name: _where(tensors[-1], after[name], before[name]) for name in names}
            return [output, flat], [after[name] for name in names]

        (outputs, flat), final = run_steps(
            step,
            [inputs, *random.values(), *real],
            [state[name] for name in names],
            [depth, heads * length],
            self.recurrence,
        )
        alignments = ops.transpose(ops.reshape(flat, (batch, steps, heads, length)), (0, 2, 1, 3))
        return outputs, alignments, dict(zip(names, final, strict=True))


def _where(real: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Select `new` in the rows where `real` `(B, 1)` is 1."""
    return ops.where(ops.reshape(real > 0, (-1, *[1] * (len(new.shape) - 1))), new, old)


def _last(mask: Tensor) -> Tensor:
    """Return each row's last real step, int32 `(B, 1)`; 0 for a row without any."""
    places = ops.arange(ops.shape(mask)[1], dtype="int32") * ops.cast(mask, "int32")
    return ops.max(places, axis=1, keepdims=True)
