"""The recurrent decoder with attention: one step, and the teacher-forced pass that shares everything with it."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention import LuongAttention
from keras_attention.bridge import Bridge
from keras_attention.recurrent import RecurrentStack
from keras_attention.types import Shape, Tensor, TensorDict


@keras.saving.register_keras_serializable(package="keras_attention")
class Decoder(keras.layers.Layer):
    """The decoder of Luong, Pham and Manning 2015 (arXiv 1508.04025), section 3.

        h_t = RNN(x_t, h_{t-1})            x_t = y_{t-1}, or [y_{t-1} ; h~_{t-1}] with input feeding (section 3.3)
        c_t = attention(h_t, memory)
        h~_t = tanh(W_c [c_t ; h_t])       the attentional vector (equation 5), without bias

    Without input feeding the recurrent stack runs over the whole target, and attention comes after, all steps at once.
    With it, the pass is a scan. Without attention `h~_t` is `h_t` itself: the plain encoder-decoder.

    Args:
        cell: `"lstm"` or `"gru"`.
        units: size of each recurrent layer.
        num_layers: number of recurrent layers.
        attention: arguments of `LuongAttention`, or `None` for the plain encoder-decoder.
        attentional_size: depth A of `h~_t`; `units` if `None`.
        input_feeding: whether `h~_{t-1}` is part of the next input; `h~_0 = 0`.
        bridge: `"dense"` or `"copy"`, see `Bridge`.
        bridge_input: `"mean"` or `"final"`, see `Bridge`.
        dropout: share of the embedded words, of `h_t` without input feeding, and of `h~_t` dropped in training.

    Call arguments:
        embedded: float `(B, T, E)`, the target words one step behind the labels.
        encoded: what `Encoder` returned.
        return_attention_scores: whether the alignments are returned too.
        training: whether dropout applies.

    Returns:
        The attentional vectors `(B, T, A)`, and where asked for the alignments `(B, T, S)`, zeros without attention.

    Raises:
        ValueError: for input feeding without attention, and what `LuongAttention`, `Bridge` and `RecurrentStack` raise.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if attention is None and (input_feeding or attentional_size is not None):
            raise ValueError(
                "Input feeding and the attentional vector belong to attention. Expected: input_feeding=False and "
                f"attentional_size=None where attention=None. Received: {input_feeding=}, {attentional_size=}"
            )
        policy = self.dtype_policy
        self.stack = RecurrentStack(cell, units, num_layers, dropout=dropout, name="stack", dtype=policy)
        self.attention = None
        if attention is not None:
            self.attention = LuongAttention(**attention, name="attention", dtype=policy)
            self.attentional = keras.layers.Dense(
                attentional_size or units, activation="tanh", use_bias=False, name="attentional", dtype=policy
            )
        self.bridge = Bridge(bridge, bridge_input, self.stack.state_names, units, name="bridge", dtype=policy)
        self.attentional_size = attentional_size
        self.input_feeding = input_feeding
        self.dropout = dropout
        self._dropout = keras.layers.Dropout(dropout, name="dropout", dtype=policy)

    @property
    def output_depth(self) -> int:
        """Depth A of the attentional vectors."""
        return self.attentional_size or self.stack.units

    def build(self, embedded_shape: Shape, encoded_shape: dict[str, Any]) -> None:
        units, value_shape = self.stack.units, tuple(encoded_shape["values"])
        self.bridge.build(encoded_shape)
        fed = self.output_depth if self.input_feeding else 0
        self.stack.build((None, None, embedded_shape[-1] + fed))
        if self.attention is not None:
            self.attention.build((None, None, units), value_shape)
            self.attentional.build((None, None, value_shape[-1] + units))
        self.built = True

    def start(self, encoded: dict[str, Any]) -> tuple[TensorDict, TensorDict]:
        """The first state, and the memory that every step reads: both flat dicts.

        The memory holds `mask` `(B, S)` and, with attention, `values` `(B, S, D)` and the projected `keys`, where the
        score has any. The state holds the recurrent states and, with input feeding, `attentional` `(B, A)`.
        """
        state = self.bridge(encoded)
        memory = {"mask": encoded["mask"]}
        if self.attention is not None:
            memory["values"] = encoded["values"]
            keys = self.attention.project_keys(encoded["values"])
            if keys is not None:
                memory["keys"] = keys
        if self.input_feeding:
            batch = ops.shape(encoded["values"])[0]
            state["attentional"] = ops.zeros((batch, self.output_depth), dtype=self.compute_dtype)
        return state, memory

    def step(self, embedded: Tensor, state: TensorDict, memory: TensorDict) -> tuple[Tensor, TensorDict, Tensor]:
        """One decoding step, without dropout.

        Args:
            embedded: `(B, E)`, the word before.
            state: from `start` or the step before.
            memory: from `start`.

        Returns:
            The attentional vector `(B, A)`, the new state, and the alignment `(B, S)`.
        """
        inputs = ops.concatenate([embedded, state["attentional"]], axis=-1) if self.input_feeding else embedded
        hidden, new_state = self.stack.step(inputs, state)
        attentional, alignment = self._attend(hidden[:, None, :], memory)
        attentional = attentional[:, 0]
        if self.input_feeding:
            new_state["attentional"] = attentional
        return attentional, new_state, alignment[:, 0]

    def call(
        self,
        embedded: Tensor,
        encoded: dict[str, Any],
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        state, memory = self.start(encoded)
        embedded = self._dropout(embedded, training=training)
        if self.input_feeding:
            outputs, alignments = self._scan(embedded, state, memory, training)
        else:
            hidden, _ = self.stack(embedded, initial_state=state, training=training)
            outputs, alignments = self._attend(self._dropout(hidden, training=training), memory)
            if self.attention is not None:
                outputs = self._dropout(outputs, training=training)
        return (outputs, alignments) if return_attention_scores else outputs

    def get_config(self) -> dict[str, Any]:
        attention = None
        if self.attention is not None:
            attention = self.attention.get_config()
            for inherited in ("name", "dtype", "trainable"):
                attention.pop(inherited)
        return {
            **super().get_config(),
            "cell": self.stack.cell,
            "units": self.stack.units,
            "num_layers": self.stack.num_layers,
            "attention": attention,
            "attentional_size": self.attentional_size,
            "input_feeding": self.input_feeding,
            "bridge": self.bridge.kind,
            "bridge_input": self.bridge.source,
            "dropout": self.dropout,
        }

    def _attend(self, hidden: Tensor, memory: TensorDict) -> tuple[Tensor, Tensor]:
        """Hidden states `(B, T, U)` to attentional vectors `(B, T, A)` and alignments `(B, T, S)`."""
        if self.attention is None:
            mask = ops.cast(memory["mask"], hidden.dtype)
            return hidden, ops.zeros_like(hidden[:, :, :1]) * ops.expand_dims(mask, 1)
        context, alignments = self.attention(
            hidden, memory["values"], key=memory.get("keys"), value_mask=memory["mask"], return_attention_scores=True
        )
        return self.attentional(ops.concatenate([context, hidden], axis=-1)), alignments

    def _scan(
        self, embedded: Tensor, state: TensorDict, memory: TensorDict, training: bool | None
    ) -> tuple[Tensor, Tensor]:
        batch, length, depth = ops.shape(embedded)
        # The dropout of h~ is drawn before the scan, whose body is then free of random state.
        kept = self._dropout(ops.ones((batch, length, self.output_depth), dtype=self.compute_dtype), training=training)
        alignment = ops.zeros_like(memory["mask"], dtype=self.compute_dtype)

        def body(carry: TensorDict, inputs: Tensor) -> tuple[TensorDict, TensorDict]:
            embedded, kept = inputs[:, :depth], inputs[:, depth:]
            previous = {name: value for name, value in carry.items() if name != "alignment"}
            attentional, new_state, alignment = self.step(embedded, previous, memory)
            new_state["attentional"] = attentional * kept
            new_carry = {**new_state, "alignment": alignment}
            return new_carry, new_carry  # one structure for both: what `ops.scan` asks for on TensorFlow

        # One tensor to scan over: with several, TensorFlow's `ops.scan` fails on a dynamic length (Keras 3.15).
        steps = ops.transpose(ops.concatenate([embedded, kept], axis=-1), (1, 0, 2))
        _, outputs = ops.scan(body, {**state, "alignment": alignment}, steps)
        return ops.transpose(outputs["attentional"], (1, 0, 2)), ops.transpose(outputs["alignment"], (1, 0, 2))
