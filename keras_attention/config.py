"""Every choice of an encoder-decoder, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_attention.attention import SCORES
from keras_attention.bridge import BRIDGE_INPUTS, BRIDGES
from keras_attention.recurrent import CELLS

TIES = ("none", "target", "all")
ATTENTIONS = ("none", *SCORES)


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The encoder-decoder that `build_seq2seq` makes. Ids: 0 padding, 1 beginning, 2 end of sentence, 3 unknown.

    Args:
        source_vocabulary: number of source ids.
        target_vocabulary: number of target ids.
        cell: `"lstm"` or `"gru"`, of the encoder and the decoder.
        embedding_size: depth of the word embeddings.
        encoder_units: size of each encoder direction.
        encoder_layers: number of encoder layers.
        bidirectional: whether the encoder also reads backwards; its memory is then `2 * encoder_units` deep.
        decoder_units: size of the decoder's layers.
        decoder_layers: number of decoder layers.
        attention: a score of `LuongAttention`, or `"none"` for the plain encoder-decoder.
        attention_units: hidden units of the concat score.
        max_source_length: positions of the location score.
        use_scale: a learned factor on the score.
        attentional_size: depth of the attentional vector; `decoder_units` if `None`.
        input_feeding: whether the attentional vector is fed to the next step (slower training, better search).
        bridge: `"dense"` or `"copy"`; if `None`, `"dense"` with attention, `"copy"` without.
        bridge_input: what the dense bridge reads, `"mean"` of the memory or `"final"` state.
        tie_embeddings: `"none"`; `"target"`: the output layer is the transposed target embedding; `"all"`: the source
            shares that matrix too, which needs one joint vocabulary.
        dropout: share dropped in training of embedded words, memory, decoder states and attentional vectors.

    Raises:
        ValueError: where values are out of range or do not fit together.
    """

    source_vocabulary: int
    target_vocabulary: int
    cell: str = "lstm"
    embedding_size: int = 256
    encoder_units: int = 256
    encoder_layers: int = 1
    bidirectional: bool = True
    decoder_units: int = 512
    decoder_layers: int = 1
    attention: str = "general"
    attention_units: int | None = None
    max_source_length: int | None = None
    use_scale: bool = False
    attentional_size: int | None = None
    input_feeding: bool = False
    bridge: str | None = None
    bridge_input: str = "mean"
    tie_embeddings: str = "none"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.bridge is None:
            object.__setattr__(self, "bridge", "copy" if self.attention == "none" else "dense")
        for name, allowed in (
            ("cell", CELLS),
            ("attention", ATTENTIONS),
            ("bridge", BRIDGES),
            ("bridge_input", BRIDGE_INPUTS),
            ("tie_embeddings", TIES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Expected: {name} in {allowed}. Received: {name}={getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            smallest = 5 if field.name.endswith("vocabulary") else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < smallest:
                raise ValueError(f"Expected: {field.name} >= {smallest}. Received: {field.name}={value}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"Expected: 0 <= dropout < 1. Received: dropout={self.dropout}")
        self._check_attention()
        self._check_depths()

    @property
    def memory_depth(self) -> int:
        """Depth of the encoder's outputs."""
        return self.encoder_units * (2 if self.bidirectional else 1)

    def attention_arguments(self) -> dict[str, Any] | None:
        """The arguments of `LuongAttention`; `None` for the plain encoder-decoder."""
        if self.attention == "none":
            return None
        return {
            "score": self.attention,
            "units": self.attention_units,
            "max_source_length": self.max_source_length,
            "use_scale": self.use_scale,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Seq2SeqConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: for a name that is no field.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"Unknown fields of Seq2SeqConfig. Expected: {sorted(known)}. Received: {unknown}")
        return cls(**values)

    def _check_attention(self) -> None:
        if self.attention == "none" and (self.input_feeding or self.attentional_size or self.use_scale):
            raise ValueError(
                "The plain encoder-decoder has nothing to feed or to scale. Expected: input_feeding=False, "
                "attentional_size=None and use_scale=False where attention='none'. Received: "
                f"input_feeding={self.input_feeding}, attentional_size={self.attentional_size}, "
                f"use_scale={self.use_scale}"
            )
        if (self.attention == "location") != (self.max_source_length is not None):
            raise ValueError(
                "Expected: max_source_length for attention='location', and for it alone. Received: "
                f"attention={self.attention!r}, max_source_length={self.max_source_length}"
            )
        if self.attention_units is not None and self.attention != "concat":
            raise ValueError(
                "Expected: attention_units for attention='concat' alone. Received: "
                f"attention={self.attention!r}, attention_units={self.attention_units}"
            )

    def _check_depths(self) -> None:
        depth = self.memory_depth
        if self.attention in ("dot", "scaled_dot", "cosine") and depth != self.decoder_units:
            raise ValueError(
                f"attention='{self.attention}' compares decoder and encoder states of one depth; 'general' compares "
                f"different depths. Expected: decoder_units == {depth}, the depth of the encoder's outputs. "
                f"Received: decoder_units={self.decoder_units}"
            )
        same = (self.encoder_layers, depth) == (self.decoder_layers, self.decoder_units)
        if self.bridge == "copy" and not same:
            raise ValueError(
                "bridge='copy' hands the encoder's final states to the decoder as they are. Expected: decoder_layers="
                f"{self.encoder_layers}, decoder_units={depth} (both directions of the encoder). Received: "
                f"decoder_layers={self.decoder_layers}, decoder_units={self.decoder_units}"
            )
        if self.tie_embeddings == "all" and self.source_vocabulary != self.target_vocabulary:
            raise ValueError(
                "tie_embeddings='all' needs one joint vocabulary. Expected: source_vocabulary == target_vocabulary. "
                f"Received: {self.source_vocabulary} and {self.target_vocabulary}"
            )
