"""Encoder and decoder without recurrence: Transformer stacks of self-attention."""

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from keras_attention.attention.choices import check_dropout, check_whole
from keras_attention.attention.masking import check_mask
from keras_attention.attention.multi_head import HEAD_SCORES
from keras_attention.attention.shapes import check_shapes
from keras_attention.models.transformer_layer import AttentionBlock
from keras_attention.recurrent import stack as recurrent
from keras_attention.types import Shape, Tensor, TensorDict

if TYPE_CHECKING:
    from keras_attention.models.config import Seq2SeqConfig


def encode_positions(positions: Tensor, depth: int) -> Tensor:
    """`[sin(p / r_i) ; cos(p / r_i)]` with `r_i = 10000 ** (2 i / depth)` (Vaswani et al. 2017, section 3.5).

    Args:
        positions: int `(...)`, from 0.
        depth: an even number.

    Returns:
        float32 `(..., depth)`; sines first, then cosines.
    """
    rates = ops.power(10000.0, -2.0 * ops.arange(depth // 2, dtype="float32") / depth)
    angles = ops.expand_dims(ops.cast(positions, "float32"), -1) * rates
    return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


class AttentionStack(keras.layers.Layer):
    """Base of encoder and decoder: token embeddings plus positions, blocks, a final normalisation.

        x_p = W_i sqrt(D) e_p + encode_positions(p)        (Vaswani et al. 2017, sections 3.4 and 3.5)

    Without the factor the positions, of size 0.7, dominate embeddings that are initialised at hundredths.

    Args:
        units: depth D, an even number.
        num_layers: number of blocks.
        attention, feed_forward_units, dropout: of `AttentionBlock`; `feed_forward_units` is `4 * units` if `None`.
        word_dropout: dropout rate of whole tokens.
        scale_embeddings: whether embedded tokens are multiplied by `sqrt(D)`. A layer saved before this argument
            existed loads with `False`.
    """

    reads_memory = False

    def __init__(
        self,
        units: int = 256,
        num_layers: int = 3,
        attention: dict[str, Any] | None = None,
        feed_forward_units: int | None = None,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        scale_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_whole(units=units, num_layers=num_layers, feed_forward_units=feed_forward_units)
        check_dropout(dropout)
        if num_layers < 1 or (feed_forward_units is not None and feed_forward_units < 1):
            raise ValueError(
                f"Expected: num_layers, feed_forward_units >= 1. Received: {num_layers=}, {feed_forward_units=}"
            )
        if units < 2 or units % 2:
            raise ValueError(f"Sines and cosines share the depth. Expected: units, an even number. Received: {units=}")
        policy = self.dtype_policy
        self.supports_masking = True  # masks are arguments; a propagated one adds no information
        self.units = units
        self.num_layers = num_layers
        self.attention_arguments = dict(attention or {})
        self.feed_forward_units = feed_forward_units
        self.dropout = dropout
        self.word_dropout = word_dropout
        self.scale_embeddings = scale_embeddings
        self.blocks = [
            AttentionBlock(
                units,
                feed_forward_units or 4 * units,
                self.attention_arguments,
                self.reads_memory,
                dropout,
                name=f"block_{index}",
                dtype=policy,
            )
            for index in range(num_layers)
        ]
        self.norm = keras.layers.LayerNormalization(name="norm", dtype=policy)
        self.input_projection = keras.layers.Dense(units, name="input_projection", dtype=policy)
        self._dropout = keras.layers.Dropout(dropout, name="dropout", dtype=policy)
        self._word_dropout = recurrent.word_dropout(word_dropout, policy)

    def build(self, embedded_shape: Shape, *_: Any) -> None:
        self.input_depth = embedded_shape[-1]
        self.input_projection.build((None, None, embedded_shape[-1]))
        for block in self.blocks:
            block.build((None, None, self.units))
        self.norm.build((None, None, self.units))
        self.built = True

    def place(self, embedded: Tensor, positions: Tensor, training: bool | None = None) -> Tensor:
        """Multiply embedded tokens by `sqrt(D)`, project them to depth D, and add their positions."""
        embedded = self._word_dropout(self._dropout(embedded, training=training), training=training)
        if self.scale_embeddings:
            embedded = embedded * self.units**0.5
        projected = self.input_projection(embedded)
        return projected + ops.cast(encode_positions(positions, self.units), projected.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "attention": self.attention_arguments,
            "feed_forward_units": self.feed_forward_units,
            "dropout": self.dropout,
            "word_dropout": self.word_dropout,
            "scale_embeddings": self.scale_embeddings,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AttentionStack":
        made: AttentionStack = super().from_config({"scale_embeddings": False, **config})
        return made


@keras.saving.register_keras_serializable(package="keras_attention")
class AttentionEncoder(AttentionStack):
    """The encoder without recurrence (Vaswani et al. 2017, section 3.1), with the interface of `Encoder`.

    Args: those of `AttentionStack`.

    Call arguments:
        embedded: float `(B, S, E)`.
        mask: bool `(B, S)`, true at real tokens, see `Encoder`.
        recurrence: ignored.
        training: whether dropout applies.

    Returns:
        A dict: `values` `(B, S, D)`, zero at padding; `mask`; `state`, which is empty.
    """

    def call(
        self,
        embedded: Tensor,
        mask: Tensor | None = None,
        recurrence: str = "layer",
        training: bool | None = None,
    ) -> dict[str, Any]:
        check_shapes("AttentionEncoder", {"embedded": (embedded.shape, "B S E")}, E=self.input_depth)
        check_mask("mask", mask, embedded)
        mask = ops.ones(ops.shape(embedded)[:2], dtype="bool") if mask is None else mask
        x = self.place(embedded, ops.arange(ops.shape(embedded)[1], dtype="int32"), training)
        for block in self.blocks:
            x, _ = block(x, word_mask=mask, training=training)
        values = self.norm(x)
        return {"values": values * ops.expand_dims(ops.cast(mask, values.dtype), 2), "mask": mask, "state": {}}

    def compute_mask(self, embedded: Tensor, previous_mask: Any = None) -> dict[str, Any]:
        """Return the mask for Keras, which belongs to the values."""
        return {"mask": None, "state": {}, "values": previous_mask}


@keras.saving.register_keras_serializable(package="keras_attention")
class AttentionDecoder(AttentionStack):
    """The decoder without recurrence (Vaswani et al. 2017, section 3.1), with the interface of `Decoder`.

    A step reads the earlier ones from a cache of fixed size: `start` needs the maximum number of steps. The returned
    alignment is the mean over blocks and heads.

    Args: those of `AttentionStack`.

    Call arguments: those of `Decoder`.
    """

    reads_memory = True

    def representation(self, state: TensorDict) -> Tensor:
        """Return the last block's input of the previous step, `(B, units)`."""
        last = state[f"values_{self.num_layers - 1}"]
        places = ops.arange(last.shape[1], dtype="int32")[None, :]
        here = ops.cast(ops.equal(places, state["step"][:, None] - 1), last.dtype)
        return ops.sum(last * ops.expand_dims(here, 2), axis=1)

    def start(self, encoded: dict[str, Any], capacity: int) -> tuple[TensorDict, TensorDict]:
        """Return the initial state, a `step` count `(B,)` and each block's cache, and the memory of every step."""
        values, mask = encoded["values"], encoded["mask"]
        batch = ops.shape(values)[0]
        state = {"step": ops.zeros((batch,), dtype="int32")}
        memory = {"values": values, "mask": mask}
        for index, block in enumerate(self.blocks):
            memory[f"keys_{index}"] = block.project_memory(values)
            for name, tensor in block.first_cache(batch, capacity).items():
                state[f"{name}_{index}"] = tensor
        return state, memory

    def step(self, embedded: Tensor, state: TensorDict, memory: TensorDict) -> tuple[Tensor, TensorDict, Tensor]:
        """One decoding step, without dropout, as `Decoder.step`; at most `capacity` of them."""
        position = state["step"]
        x = self.place(embedded, position, False)
        after = {"step": position + 1}
        alignments = []
        for index, block in enumerate(self.blocks):
            cache = {name: state[f"{name}_{index}"] for name in ("values", "keys")}
            x, cache, alignment = block.step(x, cache, position, self._memory(memory, index))
            after |= {f"{name}_{index}": tensor for name, tensor in cache.items()}
            alignments.append(alignment)
        return self.norm(x), after, _mean(alignments)

    def call(
        self,
        embedded: Tensor,
        encoded: dict[str, Any],
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        shapes = {"embedded": (embedded.shape, "B T E"), "values": (encoded["values"].shape, "B S Dv")}
        check_shapes("AttentionDecoder", shapes, E=self.input_depth, Dv=self.units)
        memory = {"values": encoded["values"], "mask": encoded["mask"]}
        x = self.place(embedded, ops.arange(ops.shape(embedded)[1], dtype="int32"), training)
        alignments = []
        for index, block in enumerate(self.blocks):
            memory[f"keys_{index}"] = block.project_memory(encoded["values"])
            x, alignment = block(x, memory=self._memory(memory, index), use_causal_mask=True, training=training)
            alignments.append(alignment)
        outputs = self._dropout(self.norm(x), training=training)
        return (outputs, _mean(alignments)) if return_attention_scores else outputs

    def compute_output_spec(
        self, embedded: Tensor, encoded: dict[str, Any], return_attention_scores: bool = False, training: Any = None
    ) -> Any:
        shapes = {"embedded": (embedded.shape, "B T E"), "values": (encoded["values"].shape, "B S Dv")}
        check_shapes("AttentionDecoder", shapes, E=self.input_depth, Dv=self.units)
        batch, steps, _ = embedded.shape
        outputs = keras.KerasTensor((batch, steps, self.units), dtype=self.compute_dtype)
        alignments = keras.KerasTensor((batch, steps, encoded["mask"].shape[1]), dtype=self.compute_dtype)
        return (outputs, alignments) if return_attention_scores else outputs

    def _memory(self, memory: TensorDict, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return memory["values"], memory[f"keys_{index}"], memory["mask"]


def _mean(alignments: list[Any]) -> Tensor:
    return ops.mean(ops.stack(alignments, axis=0), axis=0)


def check_self_attention(config: "Seq2SeqConfig") -> None:
    """Raise ValueError where a config without recurrence has incompatible fields."""
    received: dict[str, Any] = {}
    if config.attention not in HEAD_SCORES:
        received["attention"] = f"{config.attention!r}, none of {HEAD_SCORES}"
    for name, good in (
        ("alignment", ("softmax", "sparsemax")),
        ("window", (None,)),
        ("use_coverage", (False,)),
        ("input_feeding", (False,)),
        ("style", ("luong",)),
        ("attentional_size", (None,)),
        ("bridge", ("dense",)),
        ("bidirectional", (True,)),
        ("residual", (False,)),
        ("variational_dropout", (False,)),
        ("encoder_units", (config.decoder_units,)),
    ):
        if getattr(config, name) not in good:
            received[name] = f"{getattr(config, name)!r}, none of {good}"
    if config.decoder_units % 2 or config.decoder_units % config.attention_heads:
        received["decoder_units"] = f"{config.decoder_units}, not even, or not a multiple of attention_heads"
    if received:
        raise ValueError(
            "Without recurrence every word attends to the others by heads, in encoder and decoder alike. "
            f"Expected: fields that fit cell='self_attention'. Received: {received}"
        )
