"""The functional encoder-decoder, and the view of it that searches and exports step through."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_attention.attention.masking import real_positions
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.decoder import Decoder
from keras_attention.models.encoder import Encoder
from keras_attention.models.model import Seq2SeqModel
from keras_attention.models.pointer_generator import PointerGenerator, without_copies
from keras_attention.models.searching import Searching
from keras_attention.models.shortlist import Among, VocabularyShortlist, among, masked_log_softmax
from keras_attention.models.transformer import AttentionDecoder, AttentionEncoder
from keras_attention.types import Tensor, TensorDict


def build_seq2seq(config: Seq2SeqConfig) -> Seq2SeqModel:
    """Build the encoder-decoder of a config, as a functional Keras model that checks its training data.

    Inputs: a dict of `source`, int32 `(B, S)`, tokens and EOS, and `target`, int32 `(B, T)`, BOS and tokens, both
    right-padded with 0. Output: float32 logits `(B, T, target_vocabulary)`. Labels are the tokens and EOS.

    With `source_features` F the source is float32 `(B, S, F)`, right-padded with zeros (see `real_positions`).
    With `copy_words` all three may hold ids from `target_vocabulary` on, which stand for source words (see
    `CopiedWords`), and the output is log-probabilities `(B, T, target_vocabulary + copy_words)`. These equal their
    own log-softmax, so that losses on logits accept them. The same holds for a model with a `shortlist`.

    Example:
    >>> config = Seq2SeqConfig(source_vocabulary=11, target_vocabulary=13, encoder_units=4, decoder_units=6)
    >>> build_seq2seq(config).output_shape
    (None, None, 13)
    """
    words = config.source_features is None
    shape = (None,) if config.source_features is None else (None, config.source_features)
    source = keras.Input(shape, dtype="int32" if words else "float32", name="source")
    target = keras.Input((None,), dtype="int32", name="target")
    size = config.embedding_size
    if config.tie_embeddings == "all":
        target_embedding = _embedding(config, config.target_vocabulary, "embedding", tied=True)
        source_embedding = target_embedding
    else:
        source_embedding = (
            _embedding(config, config.source_vocabulary, "source_embedding")
            if words
            else keras.layers.Dense(size, name="source_embedding")
        )
        tied = config.tie_embeddings == "target"
        target_embedding = _embedding(config, config.target_vocabulary, "target_embedding", tied)
    encoder, decoder = _stacks(config)
    output_size = config.target_vocabulary if config.tie_embeddings == "none" else size
    output = keras.layers.Dense(output_size, name="output")
    tied = config.tie_embeddings != "none"
    if config.copy_words is None:
        encoded = encoder(source_embedding(source), real_positions(source))
        logits = _logits(decoder(target_embedding(target), encoded), output, target_embedding, tied)
    else:
        read, written = (without_copies(ids, config.target_vocabulary) for ids in (source, target))
        encoded = encoder(source_embedding(read), real_positions(source))
        attentional, alignments = decoder(target_embedding(written), encoded, return_attention_scores=True)
        logits = _logits(attentional, output, target_embedding, tied)
        logits = PointerGenerator(config.copy_words, name="pointer")(logits, attentional, alignments, source)
    if config.shortlist is not None:
        vocabularies = config.source_vocabulary, config.target_vocabulary
        candidates = VocabularyShortlist(*vocabularies, config.shortlist, name="shortlist")(source)
        logits = masked_log_softmax(logits, ops.expand_dims(candidates, 1))
    return Seq2SeqModel({"source": source, "target": target}, logits, name="seq2seq")


def _embedding(config: Seq2SeqConfig, vocabulary: int, name: str, tied: bool = False) -> keras.Layer:
    """Embedding table; times the square root of the depth its initial values have size 1, beside positions of 0.7."""
    # One initializer for each table, because a reused instance draws the same numbers again.
    first = (
        keras.initializers.RandomNormal(stddev=config.embedding_size**-0.5) if config.scale_embeddings else "uniform"
    )
    kind = keras.layers.ReversibleEmbedding if tied else keras.layers.Embedding
    return kind(vocabulary, config.embedding_size, embeddings_initializer=first, name=name)


def _stacks(config: Seq2SeqConfig) -> tuple[keras.Layer, keras.Layer]:
    """Build encoder and decoder of a config."""
    if not config.recurrent:
        shared: dict[str, Any] = {
            "attention": config.attention_arguments(),
            "feed_forward_units": config.feed_forward_units,
            "dropout": config.dropout,
            "word_dropout": config.word_dropout,
        }
        scaled = bool(config.scale_embeddings)
        words = scaled and config.source_features is None  # projected features already have their own scale
        return (
            AttentionEncoder(
                config.encoder_units, config.encoder_layers, **shared, scale_embeddings=words, name="encoder"
            ),
            AttentionDecoder(
                config.decoder_units, config.decoder_layers, **shared, scale_embeddings=scaled, name="decoder"
            ),
        )
    encoder = Encoder(
        cell=config.cell,
        units=config.encoder_units,
        num_layers=config.encoder_layers,
        bidirectional=config.bidirectional,
        dropout=config.dropout,
        return_cell_state=config.bridge == "copy",
        weight_dropout=config.weight_dropout,
        residual=config.residual,
        variational_dropout=config.variational_dropout,
        word_dropout=config.word_dropout,
        name="encoder",
    )
    decoder = Decoder(
        cell=config.cell,
        units=config.decoder_units,
        num_layers=config.decoder_layers,
        attention=config.attention_arguments(),
        attentional_size=config.attentional_size,
        input_feeding=config.input_feeding,
        bridge=config.bridge or "dense",
        bridge_input=config.bridge_input,
        dropout=config.dropout,
        style=config.style,
        weight_dropout=config.weight_dropout,
        residual=config.residual,
        variational_dropout=config.variational_dropout,
        word_dropout=config.word_dropout,
        name="decoder",
    )
    return encoder, decoder


def _logits(attentional: Tensor, output: keras.Layer, embedding: keras.Layer, tied: bool) -> Tensor:
    """`W_s h~_t + b`; if tied, `E (W h~_t + b)` with the embedding matrix E. In float32."""
    projected = output(attentional)
    return ops.cast(embedding(projected, reverse=True) if tied else projected, "float32")


COPIES = "copies"
"""Memory key of the source ids, in a model that copies them."""
CANDIDATES = "candidates"
"""Memory key of the candidate mask, bool `(B, V)`, in a model with a shortlist."""


class EncoderDecoder(Searching):
    """Steps and searches through a model made by `build_seq2seq`, including one that was saved and loaded.

    A view: it holds no weights and no state of its own. It uses only `keras.ops`, so that it runs eagerly, inside
    `tf.function` or `jax.jit`, and in exported graphs.

    Args:
        model: result of `build_seq2seq`.

    Raises:
        ValueError: if the model lacks one of the layers.
    """

    def __init__(self, model: keras.Model) -> None:
        layers = {layer.name: layer for layer in model.layers}
        shared = layers.get("embedding")
        needed = ["encoder", "decoder", "output"] + ([] if shared else ["source_embedding", "target_embedding"])
        missing = [name for name in needed if name not in layers]
        if missing:
            raise ValueError(
                "This is no encoder-decoder of build_seq2seq. Expected: layers named "
                f"{needed}. Received: a model '{model.name}' without {missing}"
            )
        self.model = model
        self.encoder: Encoder | AttentionEncoder = layers["encoder"]
        self.decoder: Decoder | AttentionDecoder = layers["decoder"]
        self.output = layers["output"]
        self.pointer: PointerGenerator | None = layers.get("pointer")
        self.shortlist: VocabularyShortlist | None = layers.get("shortlist")
        self.source_embedding = shared or layers["source_embedding"]
        self.target_embedding = shared or layers["target_embedding"]
        self.tied = isinstance(self.target_embedding, keras.layers.ReversibleEmbedding)

    @property
    def config(self) -> Seq2SeqConfig:
        """Return the config that this model was built from, derived from its layers."""
        encoder, decoder = self.encoder.get_config(), self.decoder.get_config()
        shared = self.source_embedding is self.target_embedding
        common: dict[str, Any] = {
            "source_vocabulary": 0 if self.source_features else self.source_embedding.input_dim,
            "source_features": self.source_features,
            "target_vocabulary": self.target_embedding.input_dim,
            "embedding_size": self.target_embedding.output_dim,
            "encoder_units": encoder["units"],
            "encoder_layers": encoder["num_layers"],
            "decoder_units": decoder["units"],
            "decoder_layers": decoder["num_layers"],
            **Seq2SeqConfig.attention_fields(decoder["attention"]),
            "tie_embeddings": "all" if shared else "target" if self.tied else "none",
            "dropout": decoder["dropout"],
            "word_dropout": decoder["word_dropout"],
            "copy_words": self.pointer and self.pointer.copy_words,
            "shortlist": self.shortlist and self.shortlist.candidates,
        }
        if isinstance(self.decoder, AttentionDecoder):
            alone = {name: decoder[name] for name in ("feed_forward_units", "scale_embeddings")}
            return Seq2SeqConfig(**common, **alone, cell="self_attention")
        return Seq2SeqConfig(
            **common,
            cell=encoder["cell"],
            bidirectional=encoder["bidirectional"],
            style=decoder["style"],
            attentional_size=decoder["attentional_size"],
            input_feeding=decoder["input_feeding"],
            bridge=decoder["bridge"],
            bridge_input=decoder["bridge_input"],
            weight_dropout=decoder["weight_dropout"],
            residual=decoder["residual"],
            variational_dropout=decoder["variational_dropout"],
        )

    def encode(self, source: Tensor, recurrence: str = "layer", capacity: int = 100) -> tuple[TensorDict, TensorDict]:
        """Encode source ids `(B, S)` to the decoder's initial state and its memory, see `Decoder.start`.

        Args:
            source: int32, tokens and EOS, right-padded with 0; or features, float32 `(B, S, F)`.
            recurrence: `"layer"` or `"loop"`, see `RecurrentStack`.
            capacity: maximum number of steps from the state; used only by a model without recurrence, whose state
                caches the earlier tokens.
        """
        source = ops.convert_to_tensor(source, dtype=self.source_dtype)
        mask = real_positions(source)
        encoded = self.encoder(self._embed_source(source), mask, recurrence=recurrence, training=False)
        state, memory = self.decoder.start(encoded, capacity)
        if self.shortlist is not None:
            memory = {**memory, CANDIDATES: self.shortlist(source)}
        return state, memory if self.pointer is None else {**memory, COPIES: source}

    def step(
        self, token: Tensor, state: TensorDict, memory: TensorDict, chosen: Among | None = None
    ) -> tuple[Tensor, TensorDict, Tensor]:
        """One step of the decoder, run by every search and every exported graph.

        Args:
            token: int32 `(B,)`, the previous token; BOS at first.
            state: from `encode` or the previous step.
            memory: from `encode`.
            chosen: of a model with a shortlist, the candidates that `stepper` prepares once.

        Returns:
            float32 log-probabilities `(B, V)` of the next token, the new state, and the alignment `(B, S)`, which is
            zero for the plain encoder-decoder.
        """
        read = {name: tensor for name, tensor in memory.items() if name not in (COPIES, CANDIDATES)}
        attentional, new_state, alignment = self.decoder.step(self._embed_target(token), state, read)
        if self.shortlist is not None:
            return self._among_candidates(attentional, memory, chosen), new_state, alignment
        logits = self.logits(attentional)
        if self.pointer is not None:
            logits, attentional, rows = (ops.expand_dims(tensor, 1) for tensor in (logits, attentional, alignment))
            logits = self.pointer(logits, attentional, rows, memory[COPIES])[:, 0]
        return ops.log_softmax(logits, axis=-1), new_state, alignment

    def logits(self, attentional: Tensor) -> Tensor:
        """Map the decoder's outputs `(..., A)` to logits of tokens, float32 `(..., V)`, without copies."""
        return _logits(attentional, self.output, self.target_embedding, self.tied)

    def stepper(self, memory: TensorDict) -> Callable[..., tuple[Tensor, TensorDict, Tensor]]:
        """Return `step` for a search through one memory, with step-invariant parts computed once."""
        if self.shortlist is None or keras.backend.backend() == "jax":
            return self.step
        return functools.partial(self.step, chosen=among(memory[CANDIDATES], self._words))

    def _words(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows `(C, E)` and bias `(C,)` of the output layer for some token ids."""
        if self.tied:
            rows = self.target_embedding(ids)
            return rows, ops.zeros_like(rows[:, 0])
        table = ops.transpose(self.output.kernel)  # a constant of exported graphs, gathered like embeddings
        return ops.take(table, ids, axis=0), ops.take(self.output.bias, ids, axis=0)

    def _among_candidates(self, attentional: Tensor, memory: TensorDict, chosen: Among | None) -> Tensor:
        """Log-probabilities `(B, V)` of a step. JAX, whose shapes are static, computes the product for all tokens."""
        if keras.backend.backend() == "jax":
            return masked_log_softmax(self.logits(attentional), memory[CANDIDATES])
        chosen = chosen or among(memory[CANDIDATES], self._words)
        return chosen.log_probs(self.output(attentional) if self.tied else attentional, memory[CANDIDATES])

    def align(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Run the teacher-forced pass without dropout: the model's output `(B, T, V)` and alignments `(B, T, S)`."""
        source = ops.convert_to_tensor(source, dtype=self.source_dtype)
        target = ops.convert_to_tensor(target, dtype="int32")
        mask = real_positions(source)
        encoded = self.encoder(self._embed_source(source), mask, training=False)
        attentional, alignments = self.decoder(
            self._embed_target(target), encoded, return_attention_scores=True, training=False
        )
        logits = self.logits(attentional)
        if self.pointer is not None:
            logits = self.pointer(logits, attentional, alignments, source)
        if self.shortlist is not None:
            logits = masked_log_softmax(logits, ops.expand_dims(self.shortlist(source), 1))
        return logits, alignments

    def log_probs(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Run the teacher-forced pass: log-probabilities `(B, T, V)` and alignments `(B, T, S)`; see `align`."""
        logits, alignments = self.align(source, target)
        return ops.log_softmax(logits, axis=-1), alignments

    def _embed_source(self, ids: Tensor) -> Tensor:
        layer = self.source_embedding
        return layer(ids if self.pointer is None else without_copies(ids, layer.input_dim))

    def _embed_target(self, ids: Tensor) -> Tensor:
        layer = self.target_embedding
        return layer(ids if self.pointer is None else without_copies(ids, layer.input_dim))

    @property
    def source_features(self) -> int | None:
        """Feature depth F, None for a source of tokens."""
        dense = isinstance(self.source_embedding, keras.layers.Dense)
        return self.source_embedding.kernel.shape[0] if dense else None

    @property
    def max_source_length(self) -> int | None:
        """Maximum source length of a location score; None for no limit."""
        return self.config.max_source_length

    @property
    def source_dtype(self) -> str:
        return "int32" if self.source_features is None else "float32"

    @property
    def covers_source(self) -> bool:
        """Whether the model has alignments: False for the plain encoder-decoder."""
        return self.decoder.attention_arguments is not None

    def source_mask(self, memory: TensorDict) -> Tensor:
        """Return the mask of the source tokens, bool `(B, S)`."""
        return memory["mask"]

    def representation(self, state: TensorDict) -> Tensor:
        """Return the decoder's representation of the last token it read, see `Decoder.representation`."""
        return self.decoder.representation(state)
