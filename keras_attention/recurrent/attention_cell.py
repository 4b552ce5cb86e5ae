"""A recurrent cell with attention: one step of a decoder."""

import copy
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_cell
from keras_attention.attention.masking import check_mask
from keras_attention.attention.matmul import by_rows
from keras_attention.attention.shapes import check_shapes, memory_shapes
from keras_attention.attention.weight_options import KERNEL_OPTIONS, given_options, options_config, set_options
from keras_attention.recurrent import any_cell as cell_states
from keras_attention.recurrent.lstm_kernel import product
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class AttentionCell(keras.layers.Layer):
    """Any recurrent cell with one or several attentions over a memory, and the attentional vector.

    `style="luong"` (Luong et al. 2015, arXiv 1508.04025, figures 2 and 4): the cell first, then attention; the output
    is the attentional vector.

        h_t = cell([x_t ; h~_{t-1}])        without input feeding: cell(x_t)
        c_t = attention(h_t, memory)
        h~_t = activation(W_c [c_t ; h_t])  c_t itself where `attentional_size` is None;  h~_0 = 0

    `style="bahdanau"` (Bahdanau et al. 2015, arXiv 1409.0473): attention first, with the previous output as the query;
    the output is the cell's.

        c_t = attention(h_{t-1}, memory)    h_0: the first state of the top cell where it is as deep as its output, or 0
        h~_t = activation(W_c [c_t ; h_{t-1}])      c_t itself where `attentional_size` is None
        h_t = cell([x_t ; h~_t])

    Args:
        cell: a Keras recurrent cell, `keras.layers.StackedRNNCells`, a list of cells, a custom cell (`state_size`
            and `call(inputs, states)`), or a `RecurrentStack`.
        attention: a `LuongAttention`, `BahdanauAttention` or `MultiHeadLuongAttention`, or a list of them; their
            contexts are concatenated.
        attentional_size: depth A of `W_c`'s output, which has no bias.
        activation: activation of the attentional vector.
        input_feeding: `True` to append the attentional vector to the inputs, `False` not to, or a custom function or
            layer, `input_feeding(inputs, attentional) -> cell inputs`.
        style: `"luong"` or `"bahdanau"`.
        kernel_initializer, kernel_regularizer, kernel_constraint: of `W_c`, as those of `keras.layers.Dense`. Attention
            and recurrent cell have their own.

    Call arguments:
        inputs: float `(B, E)`.
        state: result of `initial_state` or of an earlier call: a flat dict, which also holds `attentional` `(B, A)`
            with Luong's input feeding, `output` `(B, U)` in Bahdanau's style, and the state of the attention.
        memory: result of `prepare_memory`.
        training: whether dropout in cell and attention applies.

    Returns:
        The output `(B, A)` or `(B, U)`, the new state, and the alignment `(B, S)`, the mean of several attentions.

    Raises:
        ValueError: for an invalid combination of arguments, or a state that does not match.

    Example:
    >>> import numpy as np
    >>> from keras_attention import LuongAttention
    >>> cell = AttentionCell(keras.layers.LSTMCell(5), LuongAttention("general"), attentional_size=3)
    >>> memory = cell.prepare_memory(np.ones((2, 7, 11), "float32"))
    >>> state = cell.initial_state(memory)
    >>> output, state, alignment = cell(np.ones((2, 4), "float32"), state, memory)
    >>> tuple(output.shape), sorted(state), tuple(alignment.shape)
    ((2, 3), ['attentional', 'c_0', 'h_0'], (2, 7))
    """

    products = "float32"
    """Dtype of the operands of the attentional vector's matrix product in training; set by trainers."""

    def __init__(
        self,
        cell: Any,
        attention: Any,
        attentional_size: int | None = None,
        activation: Any = "tanh",
        input_feeding: bool | Callable[[Tensor, Tensor], Tensor] = True,
        style: str = "luong",
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        set_options(self, KERNEL_OPTIONS, kernel_initializer, kernel_regularizer, kernel_constraint)
        given = given_options(self)
        check_cell(style, input_feeding, attentional_size, given)
        self.cell = keras.layers.StackedRNNCells(cell) if isinstance(cell, (list, tuple)) else cell
        self.state_sizes = cell_states.state_sizes(self.cell)
        self.attentions = list(attention) if isinstance(attention, (list, tuple)) else [attention]
        if not self.attentions or not all(hasattr(layer, "project_keys") for layer in self.attentions):
            raise ValueError(
                "Expected: attention, a LuongAttention or MultiHeadLuongAttention, or a list of them. "
                f"Received: {attention!r}"
            )
        self.depths: dict[str, Any] = {}  # set by build
        self.attentional_size = attentional_size
        self.activation = keras.activations.get(activation)
        self.input_feeding = input_feeding
        self.style = style
        self.attentional = None
        if attentional_size is not None:
            self.attentional = keras.layers.Dense(
                attentional_size, self.activation, use_bias=False, name="attentional", dtype=self.dtype_policy, **given
            )
        self.autocast = False  # the state of an attention stays in float32

    @property
    def query_depth(self) -> int:
        """Depth U of the cell's output, the query."""
        return cell_states.output_size(self.cell)

    @property
    def feeds(self) -> bool:
        """Whether a step needs the attentional vector of the previous step."""
        return self.style == "luong" and self.input_feeding is not False

    def output_depth(self, memory_depth: int) -> int:
        """Return the depth of the output, for a memory of this depth."""
        return self.query_depth if self.style == "bahdanau" else self.attentional_depth(memory_depth)

    def attentional_depth(self, memory_depth: int) -> int:
        """Return the depth A of the attentional vector, for a memory of this depth."""
        return self.attentional_size or memory_depth * len(self.attentions)

    @property
    def num_alignments(self) -> int:
        """Number M of alignments in each step: the heads of all mechanisms."""
        return sum(getattr(attention, "num_heads", 1) for attention in self.attentions)

    def state_spec(self, batch: int | None, length: int | None, memory_depth: int) -> dict[str, keras.KerasTensor]:
        """Return the state's names, shapes and dtypes, for a memory `(batch, length, memory_depth)`."""
        sizes = self._vectors(self.attentional_depth(memory_depth))
        spec = {name: keras.KerasTensor((batch, size), dtype=self.compute_dtype) for name, size in sizes.items()}
        for number, attention in enumerate(self.attentions):
            heads = (attention.num_heads,) if hasattr(attention, "num_heads") else ()
            for name in attention.state_names:
                shape, dtype = ((), "int32") if name == "step" else ((length,), "float32")
                spec[name + self._suffix(number)] = keras.KerasTensor((batch, *heads, *shape), dtype=dtype)
        return spec

    def build(self, inputs_shape: Any, memory_shape: Any = None) -> None:
        values_shape = memory_shape["values"] if isinstance(memory_shape, dict) else memory_shape
        inputs_shape, values_shape = memory_shapes("AttentionCell", inputs_shape, values_shape)
        check_shapes("AttentionCell", {"inputs": (inputs_shape, "B E"), "memory": (values_shape, "B S Dv")})
        self.depths = {"E": inputs_shape[-1], "Dv": values_shape[-1]}
        self._build_attention(tuple(values_shape))
        depth = inputs_shape[-1]
        if self.input_feeding is not False:
            fed = self.attentional_depth(values_shape[-1])
            shape = self._fed(keras.KerasTensor((None, depth)), keras.KerasTensor((None, fed))).shape
            depth = shape[-1]
        cell_states.build_cell(self.cell, depth)
        self.cell_input_depth = depth
        self.built = True

    def prepare_memory(self, values: Tensor, mask: Tensor | None = None) -> TensorDict:
        """Return the memory that every step reads: `values` `(B, S, Dv)`, `mask` `(B, S)`, and the projected `keys`.

        `mask` is bool, true at real positions; `None`: all are real.
        """
        values = ops.convert_to_tensor(values, dtype=self.compute_dtype)
        check_shapes("AttentionCell", {"values": (values.shape, "B S Dv")}, Dv=self.depths.get("Dv"))
        check_mask("mask", mask, values)
        self._build_attention(tuple(values.shape))
        mask = ops.ones(ops.shape(values)[:2], dtype="bool") if mask is None else ops.convert_to_tensor(mask)
        memory = {"values": values, "mask": mask}
        for number, attention in enumerate(self.attentions):
            keys = attention.project_keys(values)
            if keys is not None:
                memory["keys" + self._suffix(number)] = keys
        return memory

    def initial_state(self, memory: TensorDict, cell_state: Any = None) -> TensorDict:
        """Return the state before the first step.

        Args:
            memory: result of `prepare_memory`.
            cell_state: the cell's states, a nest of tensors in its order or a dict by name; the cell's own if `None`.
        """
        values = memory["values"]
        batch = ops.shape(values)[0]
        if cell_state is None:
            state = cell_states.first_state(self.cell, batch, self.compute_dtype)
        else:
            state = cell_states.given_state(self.cell, cell_state, self.compute_dtype)
            shapes = {"memory": (values.shape, "B S Dv")}
            check_shapes("AttentionCell", shapes | cell_states.axes_of(self.state_sizes, state))
        if self.style == "bahdanau":
            state["output"] = cell_states.first_output(self.cell, state)
        if self.feeds:
            depth = self.attentional_depth(values.shape[-1])
            state["attentional"] = ops.zeros((batch, depth), dtype=self.compute_dtype)
        for number, attention in enumerate(self.attentions):
            start = attention.initial_state(values)
            state.update({name + self._suffix(number): tensor for name, tensor in start.items()})
        return state

    def check_state(self, state: Any) -> None:
        """Raise ValueError for a state whose names or depths are not those of this cell."""
        expected = self._vectors(self.attentional_size)
        for number, attention in enumerate(self.attentions):
            expected.update({name + self._suffix(number): None for name in attention.state_names})
        cell_states.check_state(expected, state)

    def call(
        self, inputs: Tensor, state: TensorDict, memory: TensorDict, training: bool | None = None
    ) -> tuple[Tensor, TensorDict, Tensor]:
        self.check_state(state)
        shapes = {"inputs": (inputs.shape, "B E"), "memory": (memory["values"].shape, "B S Dv")}
        check_shapes("AttentionCell", shapes | cell_states.axes_of(self.state_sizes, state), **self.depths)
        inputs = ops.cast(inputs, self.compute_dtype)
        with cell_states.dropout_of_one_pass(self.cell, self.cell_input_depth, inputs, training):
            output, new_state, alignments = self.advance(inputs, state, memory, None, training)
        return output, new_state, mean_alignment(alignments)[:, 0]

    def advance(
        self,
        inputs: Tensor,
        state: TensorDict,
        memory: TensorDict,
        noise: list[TensorDict] | None,
        training: bool | None,
    ) -> tuple[Tensor, TensorDict, Tensor]:
        """One step with predrawn noise, for loops. Alignments are `(B, M, 1, S)`, M of all heads together.

        `noise` is a list of one dict per attention and a last one for the recurrent cell, of one step: `(B, 1, N)`.
        """
        own = None if noise is None else {name: factors[:, 0] for name, factors in noise[-1].items()}
        if self.style == "bahdanau":
            query = ops.expand_dims(state["output"], 1)
            attentional, alignments, attention_state = self.attend(query, state, memory, noise, training)
            fed = self._fed(inputs, attentional[:, 0])
            hidden, new_state = cell_states.step_cell(self.cell, fed, state, training, own)
            return hidden, {**new_state, **attention_state, "output": hidden}, alignments
        fed = self._fed(inputs, state["attentional"]) if self.feeds else inputs
        hidden, new_state = cell_states.step_cell(self.cell, fed, state, training, own)
        attentional, alignments, attention_state = self.attend(
            ops.expand_dims(hidden, 1), state, memory, noise, training
        )
        new_state = {**new_state, **attention_state}
        if self.feeds:
            new_state["attentional"] = attentional[:, 0]
        return attentional[:, 0], new_state, alignments

    def attend(
        self,
        query: Tensor,
        state: TensorDict,
        memory: TensorDict,
        noise: list[TensorDict] | None,
        training: bool | None,
    ) -> tuple[Tensor, Tensor, TensorDict]:
        """Map queries `(B, T, U)` to attentional vectors `(B, T, A)`, alignments `(B, M, T, S)`, and their state."""
        contexts, alignments, new_state = [], [], {}
        for number, attention in enumerate(self.attentions):
            suffix = self._suffix(number)
            context, weights, after = attention(
                query,
                memory["values"],
                key=memory.get("keys" + suffix),
                value_mask=memory["mask"],
                state={name: state[name + suffix] for name in attention.state_names},
                return_attention_scores="all" if hasattr(attention, "num_heads") else True,
                return_state=True,
                noise=None if noise is None else noise[number],
                training=training,
            )
            # An attention may compute in a dtype of its own, but a loop needs states of one dtype.
            contexts.append(ops.cast(context, self.compute_dtype))
            weights = ops.cast(weights, self.compute_dtype)
            alignments.append(weights if len(weights.shape) == 4 else ops.expand_dims(weights, 1))
            new_state.update({name + suffix: tensor for name, tensor in after.items()})
        alignment = ops.concatenate(alignments, axis=1) if len(alignments) > 1 else alignments[0]
        if self.attentional is not None:
            joined = ops.concatenate([*contexts, query], axis=-1)
            if not training or self.products == "float32":
                return by_rows(self.attentional, joined), alignment, new_state
            kernel = ops.convert_to_tensor(self.attentional.kernel)
            return (
                self.activation(by_rows(lambda rows: product(rows, kernel, self.products), joined)),
                alignment,
                new_state,
            )
        return ops.concatenate(contexts, axis=-1) if len(contexts) > 1 else contexts[0], alignment, new_state

    def get_config(self) -> dict[str, Any]:
        attentions = [cell_states.described(layer) for layer in self.attentions]
        feeding = self.input_feeding
        return {
            **super().get_config(),
            "cell": cell_states.described(self.cell),
            "attention": attentions if len(attentions) > 1 else attentions[0],
            "attentional_size": self.attentional_size,
            "activation": keras.activations.serialize(self.activation),
            "input_feeding": feeding if isinstance(feeding, bool) else cell_states.described(feeding),
            "style": self.style,
            **options_config(self, KERNEL_OPTIONS),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttentionCell":
        # StackedRNNCells.from_config modifies its argument.
        config, read = copy.deepcopy(config), keras.saving.deserialize_keras_object
        attention, feeding = config["attention"], config["input_feeding"]
        config["cell"] = read(config["cell"])
        config["attention"] = [read(one) for one in attention] if isinstance(attention, list) else read(attention)
        config["input_feeding"] = feeding if isinstance(feeding, bool) else read(feeding)
        return cls(**config)

    def _build_attention(self, values_shape: Shape) -> None:
        for attention in self.attentions:
            if not attention.built:
                attention.build((None, None, self.query_depth), values_shape)
        if self.attentional is not None and not self.attentional.built:
            self.attentional.build((None, None, values_shape[-1] * len(self.attentions) + self.query_depth))

    def _fed(self, inputs: Tensor, attentional: Tensor) -> Tensor:
        if self.input_feeding is True:
            return ops.concatenate([inputs, attentional], axis=-1)
        return self.input_feeding(inputs, attentional)  # type: ignore[operator]

    def _vectors(self, attentional_size: int | None) -> dict[str, int | None]:
        """Return names and depths of the states that are one vector per row."""
        sizes: dict[str, int | None] = dict(self.state_sizes)
        if self.style == "bahdanau":
            sizes["output"] = self.query_depth
        if self.feeds:
            sizes["attentional"] = attentional_size
        return sizes

    def _suffix(self, number: int) -> str:
        return f"_{number}" if len(self.attentions) > 1 else ""


def mean_alignment(alignments: Tensor) -> Tensor:
    """Average `(B, M, ...)` over M heads or mechanisms: `(B, ...)`."""
    return alignments[:, 0] if alignments.shape[1] == 1 else ops.mean(alignments, axis=1)
