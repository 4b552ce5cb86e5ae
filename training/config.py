"""Every choice of a training, as plain data. The command line's options have the same names."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from keras_attention.errors import UserError, unknown_names
from keras_attention.metrics.output_scores import TASK_METRIC
from keras_attention.ranges import check_ranges
from keras_attention.recurrent.lstm_kernel import PRODUCTS
from keras_attention.text.tokenizers import KINDS

from .hardware.devices import DISTRIBUTIONS
from .loop.schedules import SCHEDULES
from .losses.auxiliary import Signals


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; the model itself is a `Seq2SeqConfig`.

    Attributes:
        task: "translation" (watches BLEU), "g2p" (word error rate, several references), "exact" (exact match).
        source_tokenizer, target_tokenizer: "subword", "char" or "word".
        joint: one vocabulary for both sides.
        vocabulary: most ids of a vocabulary; None for no bound (subwords: 8000).
        max_length: pairs with more tokens on either side are left out.
        batch_size: pairs of a batch.
        epochs: most passes over the data, or most times `epochs_per_validation` of them.
        time_limit: minutes of training, validation included, over all resumed parts; None for no limit.
        learning_rate, min_learning_rate: of Adam; halved on plateau, never below the smallest.
        clip_norm: bound on the norm of the whole gradient.
        label_smoothing: mass spread over the vocabulary.
        ema_momentum: momentum of the exponential moving average of the weights, which is validated and kept; 0: none.
        patience: epochs without a better validation score that halve the learning rate.
        early_stopping_patience: epochs without a better validation score that end the training.
        validation_sentences: how many validation sentences are translated (greedily) after each epoch.
        tokenize: sacrebleu's tokenisation for BLEU, "none" or "13a".
        seed: of the weights, dropout, batches and splits.
        padding_multiple: lengths are padded to a multiple of it, which bounds the number of shapes.
        schedule: "plateau" halves the learning rate after `patience` epochs without a better score; "cosine" lowers it
            along half a cosine to `min_learning_rate`, which it reaches when the epochs or the time limit end.
        warmup: updates over which the learning rate rises to its value.
        subword_alpha: segmentations are drawn anew for each epoch, with this alpha (see `SubwordTokenizer.sample`); 0:
            always the best one.
        target_subword_alpha: the alpha of the target side, where it is another one. A model that learnt many
            segmentations of the target spreads its probability over them, which a search does not add up.
        synthetic_share: share of each epoch's pairs that is drawn from synthetic text, where there is any.
        backward: share of the pairs, drawn anew for each epoch, whose target is learnt from its last word to its first:
            the model can then write in both directions, see `Agreement`.
        distillation: weight of the teachers' predictions against the labels, where there are teachers (see `teacher`).
        matmul_dtype: "bfloat16" rounds the operands of large products in training: faster on processors that have such
            products (AVX512-BF16, AMX); "auto" does so on these.
        fused_loss: project onto the vocabulary and take the loss in one, without holding the logits (not where
            `distribute` is "mirrored").
        jit: compile the training step with XLA (always on under JAX).
        accumulation: batches whose gradients are averaged for one update; each batch's loss is a mean over its own
            tokens.
        coverage_loss, guided_alignment, guided_loss, scheduled_sampling, scheduled_decay, scheduled_k: what is learnt
            from beside the words, see `Signals`. They need `fused_loss`.
        distribute: share each batch among devices: "mirrored" (TensorFlow), "data_parallel" (JAX) or "none".
        steps_per_execution: updates that one compiled call makes, under JAX: for a GPU, which otherwise waits for
            Python between them (see `stacking`). It needs `fused_loss` and text in memory.
        epochs_per_validation: passes over the data that count as one epoch, at whose end is validated and saved;
            under JAX, too. What is drawn anew for each epoch is then drawn for each pass.
        tensorboard: write RUN/tensorboard: scores, weights as histograms, attention as pictures.
    """

    task: str = "translation"
    source_tokenizer: str = "subword"
    target_tokenizer: str = "subword"
    joint: bool = False
    vocabulary: int | None = None
    max_length: int = 100
    batch_size: int = 64
    epochs: int = 30
    time_limit: float | None = None
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-5
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    ema_momentum: float = 0.999
    patience: int = 2
    early_stopping_patience: int = 10
    validation_sentences: int = 1000
    tokenize: str = "none"
    seed: int = 1
    padding_multiple: int = 4
    schedule: str = "plateau"
    warmup: int = 0
    subword_alpha: float = 0.0
    target_subword_alpha: float | None = None
    synthetic_share: float = 0.5
    backward: float = 0.0
    distillation: float = 0.5
    matmul_dtype: str = "float32"
    fused_loss: bool = True
    jit: bool = False
    accumulation: int = 1
    coverage_loss: float = 0.0
    guided_alignment: float = 0.0
    guided_loss: str = "cross_entropy"
    scheduled_sampling: str = "none"
    scheduled_decay: str = "inverse_sigmoid"
    scheduled_k: float = 2000.0
    distribute: str = "none"
    steps_per_execution: int = 1
    epochs_per_validation: int = 1
    tensorboard: bool = False

    RESUMABLE: ClassVar[tuple[str, ...]] = (
        "epochs",
        "time_limit",
        "early_stopping_patience",
        "distribute",
        "tensorboard",
    )
    """Settings that may change when a training is resumed: they say when to stop and where to run, not what to do."""

    def __post_init__(self) -> None:
        _choice("task", self.task, tuple(TASK_METRIC))
        _choice("source_tokenizer", self.source_tokenizer, KINDS)
        _choice("target_tokenizer", self.target_tokenizer, KINDS)
        _choice("tokenize", self.tokenize, ("none", "13a"))
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("matmul_dtype", self.matmul_dtype, ("auto", *PRODUCTS))
        _choice("distribute", self.distribute, DISTRIBUTIONS)
        if self.distribute == "mirrored" and self.accumulation > 1:
            raise UserError("Keras accumulates no gradients under MirroredStrategy. Expected accumulation 1, or JAX")
        _range("warmup", self.warmup, self.warmup >= 0, "0 or more")
        _range("subword_alpha", self.subword_alpha, self.subword_alpha >= 0, "0 or more")
        _range(
            "target_subword_alpha",
            self.target_subword_alpha,
            self.target_subword_alpha is None or self.target_subword_alpha >= 0,
            "0 or more",
        )
        if self.draws_segmentations and "subword" not in (self.source_tokenizer, self.target_tokenizer):
            raise UserError(
                "subword_alpha draws segmentations into subwords. Expected a subword tokenizer on one side at least. "
                f"Received: {self.source_tokenizer} and {self.target_tokenizer}"
            )
        if self.signals and (not self.fused_loss or self.distribute != "none"):
            raise UserError(
                "coverage_loss, guided_alignment and scheduled_sampling are parts of the fused loss on one device. "
                "Expected fused_loss and distribute none with them"
            )
        alone = self.fused_loss and self.distribute == "none" and self.accumulation == 1 and not self.signals.sample
        if self.stacked and not alone:
            raise UserError(
                "steps_per_execution and epochs_per_validation are for the fused loss on one device. "
                "Expected fused_loss, distribute none, accumulation 1 and scheduled_sampling none with them"
            )
        if self.backward and self.guided_alignment:
            raise UserError("guided_alignment reads targets forwards. Expected backward 0 with it")
        for name in (
            "batch_size",
            "epochs",
            "patience",
            "early_stopping_patience",
            "validation_sentences",
            "accumulation",
            "steps_per_execution",
            "epochs_per_validation",
        ):
            _range(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        check_ranges(max_length=self.max_length, padding_multiple=self.padding_multiple)
        _range("vocabulary", self.vocabulary, self.vocabulary is None or self.vocabulary >= 5, "5 or more")
        _range("time_limit", self.time_limit, self.time_limit is None or self.time_limit > 0, "more than 0 minutes")
        for name in ("learning_rate", "min_learning_rate", "clip_norm"):
            _range(name, getattr(self, name), getattr(self, name) > 0, "more than 0")
        for name in ("label_smoothing", "ema_momentum", "synthetic_share", "backward"):
            _range(name, getattr(self, name), 0 <= getattr(self, name) < 1, "0 or more, below 1")
        _range("distillation", self.distillation, 0 < self.distillation <= 1, "above 0, at most 1")
        _range("seed", self.seed, 0 <= self.seed < 2**32, "0 to 2**32 - 1")
        if self.joint and self.source_tokenizer != self.target_tokenizer:
            raise UserError(
                "joint needs one kind of tokenizer. Expected source_tokenizer == target_tokenizer. "
                f"Received: {self.source_tokenizer} and {self.target_tokenizer}"
            )

    @property
    def signals(self) -> Signals:
        """Auxiliary training objectives."""
        return Signals(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Signals)})

    @property
    def sampling_alphas(self) -> tuple[float, float]:
        """Of the source and the target."""
        return (
            self.subword_alpha,
            self.subword_alpha if self.target_subword_alpha is None else self.target_subword_alpha,
        )

    @property
    def stacked(self) -> bool:
        """Whether batches come in stacks, see `stacking`."""
        return self.steps_per_execution > 1 or self.epochs_per_validation > 1

    @property
    def draws_segmentations(self) -> bool:
        return any(self.sampling_alphas)

    @property
    def monitor(self) -> str:
        """The validation score that the schedule and the best checkpoint go by."""
        return TASK_METRIC[self.task]

    @property
    def loss_name(self) -> str:
        """The training loss with what it holds beside the cross-entropy against the labels."""
        parts = {
            "smoothed labels": self.label_smoothing,
            "coverage": self.coverage_loss,
            "guided alignment": self.guided_alignment,
        }
        held = ", ".join(name for name, weight in parts.items() if weight)
        return f"training loss ({held})" if held else "training loss"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def make(cls, *layers: dict[str, Any]) -> TrainConfig:
        """Settings of several dicts, later ones first in rank; a value None stands for "not given".

        Raises UserError for an unknown name or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        merged: dict[str, Any] = {}
        for layer in layers:
            unknown = sorted(set(layer) - known)
            if unknown:
                raise UserError(unknown_names("setting", unknown, known))
            merged.update({name: value for name, value in layer.items() if value is not None})
        return cls(**merged)

    @classmethod
    def of_run(cls, saved: dict[str, Any]) -> TrainConfig:
        """Return the settings that a run was saved with; names of removed ones are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls.make({name: value for name, value in saved.items() if name in known})


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"Unknown {name}. Expected one of {', '.join(allowed)}. Received: {value!r}")


def _range(name: str, value: Any, valid: bool, expected: str) -> None:
    if not valid:
        raise UserError(f"{name} is out of range. Expected {expected}. Received: {value}")
