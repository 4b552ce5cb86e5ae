"""Hyperparameters of an encoder-decoder, as plain data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from keras_attention.attention.choices import (
    SAME_DEPTH_SCORES,
    SCORES,
    STYLES,
    check_alignment,
    check_choices,
    check_dropout,
    check_kind,
    check_score,
)
from keras_attention.attention.multi_head import HEAD_SCORES
from keras_attention.errors import unknown_names
from keras_attention.models.bridge import BRIDGE_INPUTS, BRIDGES
from keras_attention.models.shortlist import check_shortlist
from keras_attention.models.transformer import check_self_attention
from keras_attention.recurrent.stack import CELLS

CELL_KINDS = (*CELLS, "self_attention")
TIES = ("none", "target", "all")
ATTENTIONS = ("none", *SCORES)
OF_ATTENTION = (
    "attention_units",
    "max_source_length",
    "use_scale",
    "attention_heads",
    "attention_dropout",
    "window",
    "half_width",
    "alignment",
    "use_coverage",
    "score_bias_init",
    "sigmoid_noise",
    "style",
    "attentional_size",
    "input_feeding",
)
"""Fields that have no effect without attention."""


@dataclass(frozen=True)
class Seq2SeqConfig:
    """Configuration of `build_seq2seq`. Ids: 0 padding, 1 BOS, 2 EOS, 3 unknown.

    Args:
        source_vocabulary: number of source ids; 0 with `source_features`.
        target_vocabulary: number of target ids.
        cell: `"lstm"`, `"gru"` or `"layer_norm_lstm"`, of the encoder and the decoder; or `"self_attention"` for no
            recurrence at all, see `AttentionEncoder` and `AttentionDecoder`.
        embedding_size: depth of the word embeddings.
        encoder_units: size of each encoder direction; without recurrence the depth of the encoder.
        encoder_layers: number of encoder layers.
        bidirectional: whether the encoder also reads in reverse; its memory is then `2 * encoder_units` deep. Ignored
            without recurrence.
        decoder_units: size of the decoder's layers.
        decoder_layers: number of decoder layers.
        attention: a score of `LuongAttention`, or `"none"` for the plain encoder-decoder.
        feed_forward_units: hidden units of the feed-forward layers; only without recurrence, `4 * decoder_units`
            if `None`.
        scale_embeddings: whether embeddings are multiplied by the square root of the depth, and initialised at a size
            at which positions do not dominate them (see `AttentionStack`); only without recurrence, where `None` is
            `True`.
        attention_units: hidden units of an additive score.
        max_source_length: positions of the location score.
        use_scale: whether the score has a learned scale.
        attention_heads: number of heads; 1 for plain attention without head projections.
        attention_dropout: dropout rate of the alignment weights.
        window: `"local_m"` or `"local_p"` for local attention, `None` for global attention.
        half_width: D of the window.
        alignment: `"softmax"`, `"sparsemax"`, `"hardmax"`, `"monotonic"` or `"hard_monotonic"`.
        use_coverage: whether an additive score includes coverage.
        score_bias_init: initial value of the learned bias of monotonic energies.
        sigmoid_noise: noise on monotonic energies in training.
        style: `"luong"`; `"bahdanau"` for attention before the recurrent step, see `AttentionCell`; `"gnmt"` for
            attention from the bottom layer, with the context as an input of every layer above, see `UpperLayers`.
        attentional_size: depth of the attentional vector; if `None`, `decoder_units`, or in Bahdanau's style that of
            the context.
        input_feeding: whether the attentional vector is an input of the next step (slower training, better search).
        bridge: `"dense"` or `"copy"`; if `None`, `"dense"` with attention, `"copy"` without.
        bridge_input: input of the dense bridge, `"mean"` of the memory or `"final"` state.
        tie_embeddings: `"none"`; `"target"`: the output layer is the transposed target embedding; `"all"`: the source
            shares that matrix too, which needs one joint vocabulary.
        dropout: dropout rate of embedded tokens, memory, decoder states and attentional vectors.
        word_dropout: dropout rate of whole tokens, of the source and of the target inputs.
        weight_dropout: dropout rate of the recurrent kernels' weights, see `RecurrentStack`.
        residual: whether the inputs of each recurrent layer from the second on are added to its outputs.
        variational_dropout: whether all steps of a row share one dropout mask.
        source_features: if given, a source is not tokens but feature vectors of this depth (sensors, frames of
            speech, patches of an image), which a dense layer projects to `embedding_size`.
        copy_words: if given, source words can be copied into the output, among them up to this many that are out of
            vocabulary, see `PointerGenerator`. It requires attention and one vocabulary for both sides.
        shortlist: if given, maximum number of candidates per source token, see `VocabularyShortlist`.

    Raises:
        ValueError: for values that are out of range or inconsistent.
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
    feed_forward_units: int | None = None
    scale_embeddings: bool | None = None
    attention_units: int | None = None
    max_source_length: int | None = None
    use_scale: bool = False
    attention_heads: int = 1
    attention_dropout: float = 0.0
    window: str | None = None
    half_width: int = 10
    alignment: str = "softmax"
    use_coverage: bool = False
    score_bias_init: float = 0.0
    sigmoid_noise: float = 0.0
    style: str = "luong"
    attentional_size: int | None = None
    input_feeding: bool = False
    bridge: str | None = None
    bridge_input: str = "mean"
    tie_embeddings: str = "none"
    dropout: float = 0.0
    word_dropout: float = 0.0
    weight_dropout: float = 0.0
    residual: bool = False
    variational_dropout: bool = False
    copy_words: int | None = None
    source_features: int | None = None
    shortlist: int | None = None

    def __post_init__(self) -> None:
        if self.bridge is None:
            object.__setattr__(self, "bridge", "copy" if self.attention == "none" else "dense")
        if self.scale_embeddings is None and not self.recurrent:
            object.__setattr__(self, "scale_embeddings", True)
        for name, allowed in (
            ("cell", CELL_KINDS),
            ("attention", ATTENTIONS),
            ("style", (*STYLES, "gnmt")),
            ("bridge", BRIDGES),
            ("bridge_input", BRIDGE_INPUTS),
            ("tie_embeddings", TIES),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"Expected: {name} in {allowed}. Received: {name}={getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            smallest = 5 if field.name.endswith("vocabulary") else 1
            if field.name == "source_vocabulary" and self.source_features is not None:
                smallest = 0
            counts = field.type in (int, int | None) and (value is not None or field.type is int)
            if counts or field.type in (bool, float):
                check_kind(field.name, value, int if counts else field.type)
            if field.type == bool | None and value is not None:
                check_kind(field.name, value, bool)
            if counts and value < smallest:
                raise ValueError(f"Expected: {field.name} >= {smallest}. Received: {field.name}={value}")
        for name in ("dropout", "word_dropout", "weight_dropout"):
            check_dropout(getattr(self, name), name)
        if self.weight_dropout and (
            self.cell != "lstm" or self.bridge == "copy" or self.input_feeding or self.style != "luong"
        ):
            raise ValueError(
                "weight_dropout is drawn for a whole pass of an LSTM. Expected: cell='lstm', bridge='dense', "
                f"input_feeding=False and style='luong' with it. Received: cell={self.cell!r}, bridge={self.bridge!r}, "
                f"input_feeding={self.input_feeding}, style={self.style!r}"
            )
        if not self.recurrent:
            check_self_attention(self)
        elif self.feed_forward_units is not None or self.scale_embeddings is not None:
            raise ValueError(
                "A recurrent model has no layers between its attention, and adds no positions to words. Expected: "
                f"feed_forward_units=None and scale_embeddings=None with cell={self.cell!r}. Received: "
                f"feed_forward_units={self.feed_forward_units}, scale_embeddings={self.scale_embeddings}"
            )
        self._check_attention()
        self._check_depths()
        self._check_copies()
        check_shortlist(self)
        if self.source_features is not None and self.source_vocabulary != 0:
            raise ValueError(
                "A source of features has no words. Expected: source_vocabulary=0 with source_features. "
                f"Received: source_vocabulary={self.source_vocabulary}"
            )

    @property
    def recurrent(self) -> bool:
        """Whether recurrent cells read the tokens in sequence."""
        return self.cell in CELLS

    @property
    def output_vocabulary(self) -> int:
        """Number of ids in a step's distribution: the target vocabulary, and copied words."""
        return self.target_vocabulary + (self.copy_words or 0)

    @property
    def memory_depth(self) -> int:
        """Depth of the encoder's outputs."""
        return self.encoder_units * (2 if self.bidirectional and self.recurrent else 1)

    def attention_arguments(self) -> dict[str, Any] | None:
        """Return the arguments of `LuongAttention`, or with `num_heads` of `MultiHeadLuongAttention`, or `None`."""
        if self.attention == "none":
            return None
        heads = {} if self.attention_heads == 1 and self.recurrent else {"num_heads": self.attention_heads}
        return {
            **heads,
            "score": self.attention,
            "units": self.attention_units,
            "max_source_length": self.max_source_length,
            "use_scale": self.use_scale,
            "dropout": self.attention_dropout,
            "window": self.window,
            "half_width": self.half_width,
            "alignment": self.alignment,
            "use_coverage": self.use_coverage,
            "score_bias_init": self.score_bias_init,
            "sigmoid_noise": self.sigmoid_noise,
        }

    @classmethod
    def attention_fields(cls, arguments: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return a config's fields from the arguments of an attention layer, the inverse of `attention_arguments`."""
        if arguments is None:
            return {"attention": "none"}
        names = {
            "score": "attention",
            "units": "attention_units",
            "num_heads": "attention_heads",
            "dropout": "attention_dropout",
        }
        known = {field.name for field in fields(cls)}
        renamed = {names.get(name, name): value for name, value in arguments.items()}
        return {name: value for name, value in renamed.items() if name in known}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Seq2SeqConfig":
        """Restore a config, the inverse of `to_dict`.

        A model without recurrence that lacks `scale_embeddings` was saved before that field existed: it gets `False`,
        which keeps its results. The constructor makes new ones.

        Raises:
            ValueError: for an unknown field.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(unknown_names("field of Seq2SeqConfig", unknown, known))
        before = {"scale_embeddings": False} if values.get("cell") == "self_attention" else {}
        return cls(**{**before, **values})

    def _check_attention(self) -> None:
        if self.attention == "none":
            defaults = {field.name: field.default for field in fields(self) if field.name in OF_ATTENTION}
            changed = {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}
            if changed:
                raise ValueError(
                    "The plain encoder-decoder has no attention to set, feed or scale. Expected: the defaults of "
                    f"{sorted(changed)} where attention='none'. Received: {changed}"
                )
            return
        check_choices(self.attention, self.window, self.alignment)
        check_score(self.attention, self.attention_units, self.max_source_length, self.use_scale)
        check_alignment(
            self.attention, self.window, self.half_width, self.alignment, self.use_coverage, self.sigmoid_noise
        )
        check_dropout(self.attention_dropout)
        if self.attention_heads > 1 and self.attention not in HEAD_SCORES:
            raise ValueError(
                f"A head compares projected queries and keys. Expected: attention in {HEAD_SCORES} with "
                f"attention_heads > 1. Received: attention={self.attention!r}"
            )
        if self.attention_heads > 1 and self.memory_depth % self.attention_heads:
            raise ValueError(
                f"Expected: attention_heads that divides {self.memory_depth}, the depth of the encoder's outputs. "
                f"Received: attention_heads={self.attention_heads}"
            )
        if self.style != "luong" and self.input_feeding:
            raise ValueError(
                "Here the context of the same step is fed. Expected: input_feeding=False with "
                f"style={self.style!r}. Received: input_feeding=True"
            )
        one = self.attention_heads == 1 and not self.attention_dropout and self.attentional_size is None
        if self.style == "gnmt" and (self.decoder_layers < 2 or not one):
            raise ValueError(
                "The layers above the first read one context. Expected: decoder_layers >= 2, attention_heads=1, "
                "attention_dropout=0 and attentional_size=None with style='gnmt'. Received: "
                f"{self.decoder_layers}, {self.attention_heads}, {self.attention_dropout}, {self.attentional_size}"
            )

    def _check_depths(self) -> None:
        depth = self.memory_depth
        same_depth = self.attention in SAME_DEPTH_SCORES and self.attention_heads == 1
        if same_depth and depth != self.decoder_units:
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

    def _check_copies(self) -> None:
        if self.copy_words is None:
            return
        if self.attention == "none" or self.source_vocabulary != self.target_vocabulary:
            raise ValueError(
                "Words are copied where attention points, and one vocabulary says which they are. Expected: attention "
                "and source_vocabulary == target_vocabulary with copy_words. Received: "
                f"attention={self.attention!r}, {self.source_vocabulary} and {self.target_vocabulary} words"
            )
