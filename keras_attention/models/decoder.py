"""The recurrent decoder with attention: a single step, and the teacher-forced pass that shares its weights."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.luong import LuongAttention
from keras_attention.attention.multi_head import MultiHeadLuongAttention
from keras_attention.attention.shapes import check_shapes
from keras_attention.models.bridge import Bridge
from keras_attention.models.gnmt_layers import UpperLayers
from keras_attention.recurrent import stack as recurrent
from keras_attention.recurrent.attention_cell import AttentionCell, mean_alignment
from keras_attention.recurrent.attention_rnn import AttentionRNN
from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class Decoder(keras.layers.Layer):
    """An `AttentionRNN` between a `Bridge` and the output layer; without attention, only the recurrent stack.

        h_t = RNN(x_t, h_{t-1})            x_t = y_{t-1}, or [y_{t-1} ; h~_{t-1}] with input feeding
        c_t = attention(h_t, memory)
        h~_t = tanh(W_c [c_t ; h_t])       the attentional vector, without bias

    (Luong, Pham and Manning 2015, arXiv 1508.04025, section 3 and equation 5; input feeding: section 3.3.) Without
    attention `h~_t` is `h_t`: the plain encoder-decoder. Bahdanau's style, with attention before the recurrent step
    and `h_t` as the output, is documented in `AttentionCell`.

    Args:
        cell: `"lstm"`, `"gru"` or `"layer_norm_lstm"`.
        units: size of each recurrent layer.
        num_layers: number of recurrent layers.
        attention: arguments of `LuongAttention`, or with `num_heads` of `MultiHeadLuongAttention`; `None` for the plain
            encoder-decoder.
        attentional_size: depth A of `h~_t`; if `None`, `units`, and in Bahdanau's style the context itself.
        input_feeding: whether `h~_{t-1}` is part of the next input; `h~_0 = 0`.
        bridge: `"dense"` or `"copy"`, see `Bridge`.
        bridge_input: `"mean"` or `"final"`, see `Bridge`.
        dropout: dropout rate of embedded tokens, of `h_t` without input feeding, and of the outputs.
        style: `"luong"` or `"bahdanau"`, see `AttentionCell`; `"gnmt"`: the bottom layer in Bahdanau's style, and the
            context as an input of every layer above, see `UpperLayers`.
        weight_dropout: see `RecurrentStack`; only if the recurrence runs before attention, without input feeding.
        word_dropout: dropout rate of whole tokens.
        residual, variational_dropout: see `RecurrentStack`; the latter applies to all dropout except `word_dropout`.

    Call arguments:
        embedded: float `(B, T, E)`, the target tokens, shifted one step behind the labels.
        encoded: result of `Encoder`.
        return_attention_scores: whether to return the alignments too.
        training: whether dropout applies.

    Returns:
        The outputs `(B, T, A)`, and if requested the alignments `(B, T, S)`, zeros without attention.

    Raises:
        ValueError: for input feeding without attention, and as `AttentionCell`, `Bridge` and `RecurrentStack`.
    """

    def __init__(
        self,
        cell: str = "lstm",
        units: int = 512,
        num_layers: int = 1,
        attention: dict[str, Any] | None = None,
        attentional_size: int | None = None,
        input_feeding: bool = False,
        bridge: str = "dense",
        bridge_input: str = "mean",
        dropout: float = 0.0,
        style: str = "luong",
        weight_dropout: float = 0.0,
        word_dropout: float = 0.0,
        residual: bool = False,
        variational_dropout: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        if attention is None and (input_feeding or attentional_size is not None):
            raise ValueError(
                "Input feeding and the attentional vector belong to attention. Expected: input_feeding=False and "
                f"attentional_size=None where attention=None. Received: {input_feeding=}, {attentional_size=}"
            )
        if weight_dropout and (input_feeding or style != "luong"):
            raise ValueError(
                "Expected: weight_dropout=0 where each step is fed the attention of the one before. "
                f"Received: {weight_dropout=}, {input_feeding=}, {style=}"
            )
        if style == "gnmt" and (
            attention is None
            or "num_heads" in attention
            or attention.get("dropout")
            or attentional_size
            or num_layers < 2
        ):
            raise ValueError(
                "The layers above the first read one context. Expected: num_layers >= 2, attention of one head without "
                f"dropout, and attentional_size=None with style='gnmt'. Received: {num_layers=}, {attention=}, "
                f"{attentional_size=}"
            )
        policy = self.dtype_policy
        gnmt, context_first = style == "gnmt", style in ("bahdanau", "gnmt")
        # With the cell states, which are free without lengths: a decoder's rows run to the end.
        self.stack = RecurrentStack(
            cell,
            units,
            1 if gnmt else num_layers,
            dropout=dropout,
            return_cell_state=True,
            weight_dropout=weight_dropout,
            residual=residual,
            variational_dropout=variational_dropout,
            name="stack",
            dtype=policy,
        )
        self.stepper = None
        if attention is not None:
            make = MultiHeadLuongAttention if "num_heads" in attention else LuongAttention
            size = attentional_size if context_first else attentional_size or units
            attention_cell = AttentionCell(
                self.stack,
                make(**attention, name="attention", dtype=policy),
                attentional_size=size,
                input_feeding=input_feeding or context_first,
                style="bahdanau" if gnmt else style,
                name="cell",
                dtype=policy,
            )
            self.attention, self.attentional = attention_cell.attentions[0], attention_cell.attentional
            self.stepper = AttentionRNN(
                attention_cell,
                return_sequences=True,
                dropout=0.0 if gnmt else dropout,  # the layers above have their own
                variational_dropout=variational_dropout,
                name="rnn",
                dtype=policy,
            )
        self.upper = None
        if gnmt:
            arguments: dict[str, Any] = {"dropout": dropout, "residual": residual}
            arguments["variational_dropout"] = variational_dropout
            self.upper = UpperLayers(cell, units, num_layers, **arguments, name="upper", dtype=policy)
        names = self.stack.state_names + (self.upper.state_names if self.upper else [])
        self.bridge = Bridge(bridge, bridge_input, names, units, name="bridge", dtype=policy)
        self.depths: dict[str, Any] = {}  # set by build
        self.num_layers = num_layers
        self.residual = residual
        self.attention_arguments = attention
        self.attentional_size = attentional_size
        self.input_feeding = input_feeding
        self.style = style
        self.dropout = dropout
        self.word_dropout = word_dropout
        self._dropout = recurrent.sequence_dropout(dropout, variational_dropout, policy)
        self._word_dropout = recurrent.word_dropout(word_dropout, policy)

    def build(self, embedded_shape: Shape, encoded_shape: dict[str, Any]) -> None:
        shapes = {"embedded": (embedded_shape, "B T E"), "values": (encoded_shape["values"], "B S Dv")}
        check_shapes("Decoder", shapes)
        self.depths = {"E": embedded_shape[-1], "Dv": encoded_shape["values"][-1]}
        self.bridge.build(encoded_shape)
        if self.stepper is None:
            self.stack.build((None, None, embedded_shape[-1]))
        else:
            self.stepper.build((None, None, embedded_shape[-1]), tuple(encoded_shape["values"]))
        if self.upper is not None:
            self.upper.build((None, None, self.stack.units), tuple(encoded_shape["values"]))
        self.built = True

    def representation(self, state: TensorDict) -> Tensor:
        """Return the h of the last layer after a step, `(B, units)`."""
        return state[f"h_{self.num_layers - 1}"]

    def start(self, encoded: dict[str, Any], capacity: int | None = None) -> tuple[TensorDict, TensorDict]:
        """Return the initial state, and the memory that every step reads: both flat dicts.

        The memory holds `mask` `(B, S)` and, with attention, `values` `(B, S, D)` and the projected `keys`, where the
        score has any. The state is that of the `AttentionCell`: the recurrent states, and those of input feeding, style
        and attention. Its size is independent of the number of steps; only decoders that cache tokens use `capacity`.
        """
        state = self.bridge(encoded)
        if self.stepper is None:
            return state, {"mask": encoded["mask"]}
        memory = self.stepper.cell.prepare_memory(encoded["values"], encoded["mask"])
        own, above = self._split(state)
        return {**self.stepper.cell.initial_state(memory, own), **above}, memory

    def step(self, embedded: Tensor, state: TensorDict, memory: TensorDict) -> tuple[Tensor, TensorDict, Tensor]:
        """One decoding step, without dropout.

        Args:
            embedded: `(B, E)`, the previous token.
            state: from `start` or the previous step.
            memory: from `start`.

        Returns:
            The output `(B, A)`, the new state, and the alignment `(B, S)`, zeros without attention.
        """
        if self.stepper is not None:
            own, above = self._split(state)
            outputs, new_state, alignment = self.stepper.cell(embedded, own, memory, training=False)
            if self.upper is not None:
                context = ops.matmul(ops.expand_dims(alignment, 1), memory["values"])[:, 0]
                outputs, above = self.upper.step(outputs, context, above)
            return outputs, {**new_state, **above}, alignment
        hidden, new_state = self.stack.step(embedded, state)
        return hidden, new_state, _no_alignment(hidden[:, :1], memory["mask"])

    def _split(self, state: TensorDict) -> tuple[TensorDict, TensorDict]:
        """Split the states into those of the attending layers, and those of the layers above."""
        names = self.upper.state_names if self.upper is not None else []
        above = {name: state[name] for name in names}
        return {name: tensor for name, tensor in state.items() if name not in above}, above

    def call(
        self,
        embedded: Tensor,
        encoded: dict[str, Any],
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        shapes = {"embedded": (embedded.shape, "B T E"), "values": (encoded["values"].shape, "B S Dv")}
        check_shapes("Decoder", shapes, **self.depths)
        state, memory = self.start(encoded)
        embedded = self._word_dropout(self._dropout(embedded, training=training), training=training)
        if self.stepper is None:
            hidden, _ = self.stack(embedded, initial_state=state, inputs_mask=False, training=training)
            outputs = self._dropout(hidden, training=training)
            alignments = _no_alignment(hidden[:, :, :1], ops.expand_dims(memory["mask"], 1))
        else:
            own, above = self._split(state)
            outputs, alignments, _ = self.stepper.run(embedded, own, memory, training=training)
            alignments = mean_alignment(alignments)
            if self.upper is not None:
                contexts = ops.matmul(alignments, memory["values"])
                outputs = self._dropout(self.upper(outputs, contexts, above, training=training), training=training)
        return (outputs, alignments) if return_attention_scores else outputs

    def compute_output_spec(
        self, embedded: Tensor, encoded: dict[str, Any], return_attention_scores: bool = False, training: Any = None
    ) -> Any:
        """Skip tracing: JAX and PyTorch trace unknown lengths as numbers above the limit of a location score."""
        shapes = {"embedded": (embedded.shape, "B T E"), "values": (encoded["values"].shape, "B S Dv")}
        check_shapes("Decoder", shapes, **self.depths)
        batch, steps, _ = embedded.shape
        depth = self.stack.units
        if self.stepper is not None:
            depth = self.stepper.cell.output_depth(encoded["values"].shape[-1])
        outputs = keras.KerasTensor((batch, steps, depth), dtype=self.compute_dtype)
        alignments = keras.KerasTensor((batch, steps, encoded["mask"].shape[1]), dtype=self.compute_dtype)
        return (outputs, alignments) if return_attention_scores else outputs

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": self.stack.cell,
            "units": self.stack.units,
            "num_layers": self.num_layers,
            "attention": self.attention_arguments,
            "attentional_size": self.attentional_size,
            "input_feeding": self.input_feeding,
            "bridge": self.bridge.kind,
            "bridge_input": self.bridge.source,
            "dropout": self.dropout,
            "style": self.style,
            "weight_dropout": self.stack.weight_dropout,
            "word_dropout": self.word_dropout,
            "residual": self.residual,
            "variational_dropout": self.stack.variational_dropout,
        }


def _no_alignment(like: Tensor, mask: Tensor) -> Tensor:
    """Return zeros in the shape of an alignment."""
    return ops.zeros_like(like) * ops.cast(mask, like.dtype)
