"""Callbacks of `fit`: validation, schedule, best model, checkpoint; and the limit on time."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import HIGHER_IS_BETTER, score_outputs
from keras_attention.models.pointer_generator import TextIds
from keras_attention.run_directory import RunDirectory

from ..config import TrainConfig
from ..data.pairs import BatchDataset, Encoded, Ids, Pairs
from ..hardware.devices import agree, on_one_device
from .checkpoints import NAMES, find_checkpoints, load_checkpoint, save_checkpoint
from .history import write_history
from .schedules import Plateau, after_epoch, cosine, learning_rate
from .validation import Evaluator, perplexity

EXPLODED = 1.5
"""A training loss of so many times the lowest one before is worth a warning."""


@dataclasses.dataclass
class Progress:
    """Progress of a training; JSON data, saved with every checkpoint.

    `seconds` of training so far, of which the last validation took `validation_seconds`: time is up when there is none
    left for another one. `cut`: where in its epoch the limit on time ended it, if in the middle.
    """

    epoch: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    cut: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        return cls(**{**values, "plateau": Plateau(**values["plateau"])})

    def finished(self, settings: TrainConfig) -> str | None:
        """Why there is nothing left to train, or None."""
        patience = settings.early_stopping_patience
        if self.plateau.since_best >= patience:
            return f"no better {settings.monitor} for {patience} epoch{'s' * (patience > 1)}"
        if self.epoch >= settings.epochs:
            return f"{settings.epochs} epoch{'s' * (settings.epochs > 1)} done"
        if settings.time_limit is not None and self.seconds + self.validation_seconds >= 60.0 * settings.time_limit:
            return f"{settings.time_limit:g} minutes used{self.cut}"
        return None


@dataclasses.dataclass(frozen=True)
class Validation:
    """Validation data: encoded pairs for the loss, and sentences to translate for the score."""

    encoded: Encoded
    pairs: Pairs
    sources: list[Ids]
    writers: Sequence[TextIds]


class Trainer(keras.callbacks.Callback):
    """The state of one training; at each epoch's end it validates, keeps the best, halves the learning rate, saves.

    The averaged weights live in a twin of the model, so that the trained weights are never touched.

    Args:
        run: where to save.
        settings: how to train.
        dataset: the training batches; this sets their order for each epoch.
        validation: what to judge by.
        twin: a second model of the same configuration, uncompiled.
        inner: the model that `twin` is a twin of, where what is fitted is a model around it (see `fuse_loss`).
        also: more text to validate on, by name; it is reported and decides nothing.
        say: where warnings go.
        alone: whether no other process takes part, so that this one's clock may end an epoch.
    """

    def __init__(
        self,
        run: RunDirectory,
        settings: TrainConfig,
        dataset: BatchDataset,
        validation: Validation,
        twin: keras.Model,
        inner: keras.Model | None = None,
        also: Mapping[str, Validation] | None = None,
        say: Callable[[str], None] = print,
        alone: bool = True,
    ) -> None:
        super().__init__()
        self.alone = alone
        self.also = dict(also or {})
        self.say = say
        self.run = run
        self.settings = settings
        self.dataset = dataset
        self.validation = validation
        self.twin = twin
        self.inner = inner
        self.progress = Progress()
        self.evaluator = Evaluator(
            twin, max_length=max(100, settings.max_length), label_smoothing=settings.label_smoothing
        )
        self.outputs: list[str] = []
        self._clock = 0.0
        self._cut = ""
        self._warmed_up = False
        self._unit = "call" if settings.stacked else "batch"

    @property
    def checkpoint_path(self) -> pathlib.Path:
        return self.run.path / "checkpoints" / NAMES[0]

    def resume(self, model: keras.Model) -> bool:
        """Load the newest whole checkpoint into the compiled `model`; False when there is none at all.

        Raises UserError where all that there are are damaged.
        """
        paths = find_checkpoints(self.run.path)
        damage: UserError | None = None
        for path in paths:
            try:
                self.progress = Progress.from_dict(load_checkpoint(path, model, self.run.metadata.get("id")))
            except UserError as error:
                damage = damage or error
                continue
            if path != self.checkpoint_path:
                problem = f"{self.checkpoint_path}: is missing" if damage is None else str(damage).partition(". ")[0]
                self.say(f"{problem}; going on from the one before, epoch {self.progress.epoch}")
            # A kill after the checkpoint, or a checkpoint that was lost, left other rows there.
            write_history(self.run.path / "history.csv", self.progress.history)
            return True
        if damage is not None:
            raise damage
        return False

    def seconds(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return self.progress.seconds + time.monotonic() - self._clock

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._clock = time.monotonic()
        self._warmed_up = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.dataset.start_epoch(epoch)
        self._cut = ""
        # PyTorch's dropout draws from a global state that no variable holds: it starts anew with each epoch.
        keras.utils.set_random_seed((1_000_003 * self.settings.seed + epoch) % 2**32)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        settings = self.settings
        if settings.schedule == "plateau" and self._warmed_up:
            return
        updates = self.dataset.updates  # of which a call may make several
        update = round((self.progress.epoch + batch / len(self.dataset)) * updates)
        rate = learning_rate(self.progress.plateau, settings.learning_rate, settings.min_learning_rate)
        if settings.schedule == "cosine":
            progress = update / (settings.epochs * updates)
            if settings.time_limit is not None and self.alone:
                left = 60.0 * settings.time_limit - self.progress.validation_seconds
                progress = max(progress, self.seconds() / max(left, 1e-9))
            rate = cosine(progress, settings.learning_rate, settings.min_learning_rate)
        self._warmed_up = update + 1 >= settings.warmup
        self.model.optimizer.learning_rate = rate * min(1.0, (update + 1) / max(settings.warmup, 1))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        epoch, batches = self.progress.epoch + 1, len(self.dataset)
        self._require_finite("loss", float((logs or {}).get("loss", 0.0)), f"epoch {epoch}, {self._unit} {batch + 1}")
        limit = self.settings.time_limit
        if limit is not None and self.alone and self.seconds() + self.progress.validation_seconds >= 60.0 * limit:
            if batch + 1 < batches and not self._cut:
                self._cut = f", in epoch {epoch} after {self._unit} {batch + 1} of {batches}"
            self.model.stop_training = True

    def _require_finite(self, name: str, value: float, where: str) -> None:
        """Raises UserError, before anything is saved, for a loss that is NaN or infinite."""
        if math.isfinite(value):
            return
        kept = f"The checkpoint of epoch {self.progress.epoch} and the best model are kept in {self.run.path}. "
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        raise UserError(
            f"The {name} became {value} ({where}, learning rate {rate:.2g}): the training has diverged. "
            + (kept if self.progress.epoch else "")
            + "Train with a lower --learning-rate or --clip-norm, or a longer --warmup"
            + (f", if you like from here on: --start-from {self.run.path}" if self.progress.epoch else "")
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        started = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._require_finite("loss", float(logs["loss"]), f"epoch {epoch + 1}")
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), **agree(self.validate()), "learning_rate": rate}
        self._require_finite("validation loss", row["val_loss"], f"epoch {epoch + 1}")
        lowest = min((before["loss"] for before in self.progress.history), default=math.inf)
        if row["loss"] > EXPLODED * lowest:
            self.say(
                f"warning: the training loss rose from {lowest:.3f} to {row['loss']:.3f}: gradients explode, though "
                f"their norm is bounded by {self.settings.clip_norm:g}. Lower --learning-rate or --clip-norm"
            )
        logs.update(row)
        validation_seconds = agree({"seconds": time.monotonic() - started})["seconds"]
        score = row[f"val_{self.settings.monitor}"]
        higher = HIGHER_IS_BETTER[self.settings.monitor]
        better = self.progress.plateau.improved_by(score, row["val_loss"], higher)
        plateau = after_epoch(self.progress.plateau, epoch, score, row["val_loss"], higher, self.settings.patience)
        if better or not self.run.model_path.exists():
            self.run.save_model(self.twin)
        if self.settings.schedule == "plateau":
            self.model.optimizer.learning_rate = learning_rate(
                plateau, self.settings.learning_rate, self.settings.min_learning_rate
            )
        seconds = agree({"seconds": self.seconds()})["seconds"]
        self._clock = time.monotonic()
        row["seconds"] = round(seconds, 3)
        history = [*self.progress.history, row]
        self.progress = Progress(epoch + 1, seconds, validation_seconds, plateau, history, self._cut)
        save_checkpoint(self.checkpoint_path, self.model, self.progress.to_dict(), self.run.metadata.get("id"))
        write_history(self.run.path / "history.csv", self.progress.history)
        if self.progress.finished(self.settings) is not None:
            self.model.stop_training = True

    def validate(self) -> dict[str, float]:
        """Loss, perplexity and scores of the averaged weights on the validation text, and on what is `also` watched."""

        def all_scores() -> dict[str, float]:
            numbers, self.outputs = self._scores(self.validation, "val_")
            if self.settings.backward:
                loss = self.evaluator.loss(self.validation.encoded, backward=True)
                numbers.update({"val_loss_backward": loss, "val_perplexity_backward": perplexity(loss)})
            for name, text in self.also.items():
                numbers.update(self._scores(text, f"val_{name}_")[0])
            return numbers

        copy_averages(self.model, self.twin, self.inner)
        return on_one_device(all_scores)

    def _scores(self, text: Validation, prefix: str) -> tuple[dict[str, float], list[str]]:
        loss, smoothed = self.evaluator.losses(text.encoded)
        outputs = [
            writer.decode(row) for writer, row in zip(text.writers, self.evaluator.greedy(text.sources), strict=True)
        ]
        scores = score_outputs(self.settings.task, outputs, text.pairs.references, self.settings.tokenize)
        numbers = {f"{prefix}{name}": value for name, value in scores.items() if isinstance(value, float)}
        losses = {f"{prefix}loss": loss}
        if self.settings.label_smoothing:  # the loss of training is this one, and no other
            losses[f"{prefix}smoothed_loss"] = smoothed
        return {**losses, f"{prefix}perplexity": perplexity(loss), **numbers}, outputs


def averages(optimizer: keras.optimizers.Optimizer) -> list[Any]:
    """The optimiser's moving averages of the trainable variables, in their order; empty where it keeps none."""
    return [v for v in optimizer.variables if v.name.endswith("_average")] if optimizer.use_ema else []


def copy_averages(model: keras.Model, twin: keras.Model, inner: keras.Model | None = None) -> None:
    """Give `twin` the averaged weights of the compiled `model` (its plain weights where nothing is averaged).

    `inner`: the model of which `twin` is a twin, if not `model` itself; its weights are among those of `model`.
    """
    inner = model if inner is None else inner
    sources = averages(model.optimizer) or model.trainable_variables
    if len(sources) != len(twin.trainable_variables):
        raise UserError(
            "The optimiser's averages do not fit the model. "
            f"Expected {len(twin.trainable_variables)}. Received: {len(sources)}"
        )
    average = {id(variable): source for variable, source in zip(model.trainable_variables, sources, strict=True)}
    for variable, own in zip(twin.variables, inner.variables, strict=True):
        variable.assign(keras.ops.convert_to_numpy(average.get(id(own), own)))  # a copy: JAX gives up its buffers
