"""Auxiliary training objectives: coverage, given alignments, and its own outputs as inputs.

Coverage loss (See, Liu and Manning 2017, arXiv 1704.04368, equation 13), a mean over the N real tokens of

    sum_s min(a_t(s), C_{t-1}(s)),      C_{t-1}(s) = sum_{u<t} a_u(s)

Guided alignment (Chen et al. 2016, arXiv 1607.01628, equations 6 and 7), a mean over the tokens that have links:

    cross-entropy  -sum_s g_t(s) log a_t(s)        mse  mean_s (g_t(s) - a_t(s))^2

with `g_t` even over the positions that token t is linked to. Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099,
section 2.4) keeps the gold word as the decoder's next input with a probability that falls with the updates i:

    linear  max(0, 1 - i / k)      exponential  k ** i      inverse_sigmoid  k / (k + exp(i / k))

and otherwise takes the model's own word, from a pass over the gold words (in parallel: Mihaylova and Martins 2019,
arXiv 1906.07651): a word drawn from the prediction, or the prediction's mean of all embeddings.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_attention.attention.masking import real_positions
from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.types import PAD_ID, Tensor

GUIDED_LOSSES = ("cross_entropy", "mse")
OWN_INPUTS = ("none", "word", "mean")
DECAYS = ("linear", "exponential", "inverse_sigmoid")


@dataclasses.dataclass(frozen=True)
class Signals:
    """Weights and kinds of what is learnt from beside the words; the defaults ask for nothing.

    Args:
        coverage_loss: weight of the coverage loss.
        guided_alignment: weight of the loss between attention and given links.
        guided_loss: one of `GUIDED_LOSSES`.
        scheduled_sampling: one of `OWN_INPUTS`: `"word"` draws one, `"mean"` takes the mean of the embeddings.
        scheduled_decay: one of `DECAYS`.
        scheduled_k: k of the decay: updates for the first and the last, a number below 1 for `"exponential"`.
    """

    coverage_loss: float = 0.0
    guided_alignment: float = 0.0
    guided_loss: str = "cross_entropy"
    scheduled_sampling: str = "none"
    scheduled_decay: str = "inverse_sigmoid"
    scheduled_k: float = 2000.0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("guided_loss", GUIDED_LOSSES),
            ("scheduled_sampling", OWN_INPUTS),
            ("scheduled_decay", DECAYS),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"Unknown {name}. Expected one of {', '.join(allowed)}. Received: {getattr(self, name)!r}"
                )
        for name in ("coverage_loss", "guided_alignment"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is out of range. Expected 0 or more. Received: {getattr(self, name)}")
        exponential = self.scheduled_decay == "exponential"
        if self.scheduled_k <= 0 or (exponential and self.scheduled_k >= 1):
            expected = "above 0 and below 1" if exponential else "above 0"
            raise UserError(
                f"scheduled_k is out of range for {self.scheduled_decay}. Expected {expected}. "
                f"Received: {self.scheduled_k}"
            )

    @property
    def read_alignments(self) -> bool:
        return self.coverage_loss > 0 or self.guided_alignment > 0

    @property
    def sample(self) -> bool:
        return self.scheduled_sampling != "none"

    def __bool__(self) -> bool:
        return self.read_alignments or self.sample


def keep_gold(decay: str, k: float, update: int) -> float:
    """The probability that a gold word stays the decoder's input at an update.

    >>> [keep_gold("linear", 100, update) for update in (0, 50, 200)]
    [1.0, 0.5, 0.0]
    """
    if decay == "linear":
        return max(0.0, 1.0 - update / k)
    if decay == "exponential":
        return float(k**update)
    return k / (k + math.exp(min(update / k, 700.0)))


def coverage_losses(alignments: Tensor) -> Tensor:
    """`sum_s min(a_t(s), C_{t-1}(s))`: `(B, T, S)` to `(B, T)`."""
    before = ops.cumsum(alignments, axis=1) - alignments
    return ops.sum(ops.minimum(alignments, before), axis=-1)


def guided_losses(alignments: Tensor, guide: Tensor, kind: str) -> Tensor:
    """Losses `(B, T)` of alignments `(B, T, S)` against a guide of the same shape, zero where its row is."""
    linked = ops.cast(ops.any(guide > 0, axis=-1), "float32")
    if kind == "mse":
        return ops.mean(ops.square(guide - alignments), axis=-1) * linked
    return -ops.sum(guide * ops.log(ops.maximum(alignments, 1e-9)), axis=-1) * linked


class AlignmentLoss(keras.layers.Layer):
    """Adds the coverage loss and that of guided alignment; passes on the first input.

    Call arguments: a list of anything, the alignments `(B, T, S)`, the labels `(B, T)` and, for guided alignment, the
    guide `(B, T, S)`.
    """

    def __init__(self, signals: Signals, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.signals = signals

    def call(self, inputs: list[Tensor]) -> Tensor:
        passed, alignments, labels = inputs[0], ops.cast(inputs[1], "float32"), inputs[2]
        real = ops.cast(ops.not_equal(labels, PAD_ID), "float32")
        loss: Any = 0.0
        if self.signals.coverage_loss:
            mean = ops.sum(coverage_losses(alignments) * real) / ops.maximum(ops.sum(real), 1.0)
            loss = loss + self.signals.coverage_loss * mean
        if self.signals.guided_alignment:
            guide = inputs[3]
            linked = real * ops.cast(ops.any(guide > 0, axis=-1), "float32")
            losses = guided_losses(alignments, guide, self.signals.guided_loss) * real
            loss = loss + self.signals.guided_alignment * ops.sum(losses) / ops.maximum(ops.sum(linked), 1.0)
        self.add_loss(loss)
        return passed

    def compute_output_spec(self, inputs: list[Tensor]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


class OwnInputs(keras.layers.Layer):
    """The embedded inputs of a decoder, some of which the model's own predictions take the place of.

    Args:
        embedding: of the target words.
        kind: `"word"` or `"mean"`.

    Call arguments: a list of the gold inputs `(B, T)`, their embeddings `(B, T, E)`, the logits `(B, T, V)` of a pass
    over them, and the probability of gold, `(B, 1)`. The prediction at t is for the input at t + 1; the first input is
    always gold. No gradient reaches the prediction.
    """

    def __init__(self, embedding: keras.Layer, kind: str, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding = embedding
        self.kind = kind
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: list[Tensor]) -> Tensor:
        gold, embedded, logits, keep = inputs
        logits = ops.stop_gradient(ops.cast(logits[:, :-1], "float32"))
        if self.kind == "word":
            noise = keras.random.uniform(ops.shape(logits), 1e-7, 1.0, seed=self.seed_generator)
            words = ops.argmax(logits - ops.log(-ops.log(noise)), axis=-1)  # Gumbel: a draw from the softmax
            own = self.embedding(ops.cast(words, "int32"))
        else:
            matrix = ops.reshape(self.embedding.embeddings, self.embedding.embeddings.shape)
            own = ops.cast(ops.matmul(ops.softmax(logits, axis=-1), matrix), embedded.dtype)
        first = ops.zeros_like(gold[:, :1])
        draws = keras.random.uniform(ops.shape(gold[:, 1:]), seed=self.seed_generator)
        replaced = ops.cast(draws >= keep, "int32") * ops.cast(ops.not_equal(gold[:, 1:], PAD_ID), "int32")
        replaced = ops.expand_dims(ops.cast(ops.concatenate([ops.cast(first, "int32"), replaced], axis=1), "bool"), 2)
        own = ops.concatenate([embedded[:, :1], own], axis=1)
        return ops.where(replaced, own, embedded)

    def compute_output_spec(self, inputs: list[Tensor]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[1].shape, inputs[1].dtype)


class Aligned(keras.layers.Layer):
    """A decoder that returns its alignments too.

    A layer of its own, for a functional model does not take a layer whose calls have one output and then two.
    """

    def __init__(self, decoder: keras.Layer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.decoder = decoder
        self.built = True

    def call(self, embedded: Tensor, encoded: dict[str, Any], training: bool | None = None) -> Any:
        return self.decoder(embedded, encoded, return_attention_scores=True, training=training)

    def compute_output_spec(self, embedded: Tensor, encoded: dict[str, Any], training: bool | None = None) -> Any:
        return self.decoder.compute_output_spec(embedded, encoded, return_attention_scores=True)


def rewire(model: keras.Model, signals: Signals) -> tuple[dict[str, Any], Any, Any | None]:
    """A second pass through a model of `build_seq2seq` that hears signals, with the same weights.

    Returns:
        More inputs by name (`gold` `(B, 1)`, `guide` `(B, T, S)`), what the output layer reads, or where embeddings are
        tied what it makes of it, and the alignments, where they are wanted.
    """
    net = EncoderDecoder(model)
    source, target = model.input["source"], model.input["target"]
    more: dict[str, Any] = {}
    encoded = net.encoder(net.source_embedding(source), real_positions(source))
    embedded = net.target_embedding(target)
    if signals.sample:
        more["gold"] = keras.Input((1,), name="gold")
        projected = net.output(net.decoder(embedded, encoded, training=False))
        logits = net.target_embedding(projected, reverse=True) if net.tied else projected
        mix = OwnInputs(net.target_embedding, signals.scheduled_sampling, name="own_inputs")
        embedded = mix([target, embedded, logits, more["gold"]])
    alignments = None
    if signals.read_alignments:
        hidden, alignments = Aligned(net.decoder, name="aligned")(embedded, encoded)
        if signals.guided_alignment:
            more["guide"] = keras.Input((None, None), name="guide")
    else:
        hidden = net.decoder(embedded, encoded)
    return more, net.output(hidden) if net.tied else hidden, alignments
