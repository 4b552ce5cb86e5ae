"""What `fit` runs between steps and epochs: validation, schedule, best model, checkpoint; and the limit on time."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory, write_atomically
from keras_attention.text import Tokenizer

from .checkpoints import load_checkpoint, save_checkpoint
from .data import BatchDataset, Encoded, Ids, Pairs
from .evaluation import Evaluator, perplexity
from .history import write_history
from .metrics import HIGHER_IS_BETTER, score_outputs
from .schedules import Plateau, after_epoch, cosine, learning_rate
from .settings import Settings


@dataclasses.dataclass
class Progress:
    """How far a training has come; JSON data, saved with every checkpoint.

    `seconds` of training so far, of which the last validation took `validation_seconds`: time is up when there is none
    left for another one.
    """

    epoch: int = 0
    seconds: float = 0.0
    validation_seconds: float = 0.0
    plateau: Plateau = dataclasses.field(default_factory=Plateau)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        return cls(**{**values, "plateau": Plateau(**values["plateau"])})

    def finished(self, settings: Settings) -> str | None:
        """Why there is nothing left to train, or None."""
        if self.plateau.since_best >= settings.stop_after:
            return f"no better {settings.monitor} for {settings.stop_after} epochs"
        if self.epoch >= settings.epochs:
            return f"{settings.epochs} epochs done"
        if settings.time_limit is not None and self.seconds + self.validation_seconds >= 60.0 * settings.time_limit:
            return f"{settings.time_limit:g} minutes used"
        return None


@dataclasses.dataclass(frozen=True)
class Validation:
    """What each epoch is judged by: encoded pairs for the loss, and sentences to translate for the score."""

    encoded: Encoded
    pairs: Pairs
    sources: list[Ids]


class Trainer(keras.callbacks.Callback):
    """The state of one training; at each epoch's end it validates, keeps the best, halves the learning rate, saves.

    The averaged weights live in a twin of the model, so that the trained weights are never touched.

    Args:
        run: where to save.
        settings: how to train.
        dataset: the training batches; this sets their order for each epoch.
        validation: what to judge by.
        tokenizer: of the target side.
        twin: a second model of the same configuration, uncompiled.
        inner: the model that `twin` is a twin of, where what is fitted is a model around it (see `fuse_loss`).
    """

    def __init__(
        self,
        run: RunDirectory,
        settings: Settings,
        dataset: BatchDataset,
        validation: Validation,
        tokenizer: Tokenizer,
        twin: keras.Model,
        inner: keras.Model | None = None,
    ) -> None:
        super().__init__()
        self.run = run
        self.settings = settings
        self.dataset = dataset
        self.validation = validation
        self.tokenizer = tokenizer
        self.twin = twin
        self.inner = inner
        self.progress = Progress()
        self.evaluator = Evaluator(twin, max_length=max(100, settings.max_length))
        self.outputs: list[str] = []
        self._clock = 0.0

    @property
    def checkpoint_path(self) -> pathlib.Path:
        return self.run.path / "checkpoints" / "last.npz"

    def resume(self, model: keras.Model) -> bool:
        """Load the last checkpoint into the compiled `model`; False when there is none."""
        if not self.checkpoint_path.exists():
            return False
        self.progress = Progress.from_dict(load_checkpoint(self.checkpoint_path, model))
        return True

    def seconds(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return self.progress.seconds + time.monotonic() - self._clock

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._clock = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.dataset.start_epoch(epoch)
        # PyTorch's dropout draws from a global state that no variable holds: it starts anew with each epoch.
        keras.utils.set_random_seed((1_000_003 * self.settings.seed + epoch) % 2**32)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        settings = self.settings
        update = self.progress.epoch * len(self.dataset) + batch
        if settings.schedule == "plateau" and update > settings.warmup:
            return
        rate = learning_rate(self.progress.plateau, settings.learning_rate, settings.smallest_learning_rate)
        if settings.schedule == "cosine":
            progress = update / (settings.epochs * len(self.dataset))
            if settings.time_limit is not None:
                left = 60.0 * settings.time_limit - self.progress.validation_seconds
                progress = max(progress, self.seconds() / max(left, 1e-9))
            rate = cosine(progress, settings.learning_rate, settings.smallest_learning_rate)
        self.model.optimizer.learning_rate = rate * min(1.0, (update + 1) / max(settings.warmup, 1))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        limit = self.settings.time_limit
        if limit is not None and self.seconds() + self.progress.validation_seconds >= 60.0 * limit:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        started = time.monotonic()
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row = {"epoch": epoch + 1, "loss": float(logs["loss"]), **self.validate(), "learning_rate": rate}
        logs.update(row)
        validation_seconds = time.monotonic() - started
        score = row[f"val_{self.settings.monitor}"]
        higher = HIGHER_IS_BETTER[self.settings.monitor]
        better = self.progress.plateau.improved_by(score, row["val_loss"], higher)
        plateau = after_epoch(self.progress.plateau, epoch, score, row["val_loss"], higher, self.settings.patience)
        if better or not self.run.model_path.exists():
            write_atomically(self.run.model_path, lambda temporary: self.twin.save(temporary))
        if self.settings.schedule == "plateau":
            self.model.optimizer.learning_rate = learning_rate(
                plateau, self.settings.learning_rate, self.settings.smallest_learning_rate
            )
        seconds = self.seconds()
        self._clock = time.monotonic()
        row["seconds"] = round(seconds, 3)
        self.progress = Progress(epoch + 1, seconds, validation_seconds, plateau, [*self.progress.history, row])
        save_checkpoint(self.checkpoint_path, self.model, self.progress.to_dict())
        write_history(self.run.path / "history.csv", self.progress.history)
        if self.progress.finished(self.settings) is not None:
            self.model.stop_training = True

    def validate(self) -> dict[str, float]:
        """Loss, perplexity and scores of the averaged weights on the validation data."""
        copy_averages(self.model, self.twin, self.inner)
        loss = self.evaluator.loss(self.validation.encoded)
        ids = self.evaluator.greedy(self.validation.sources)
        self.outputs = [self.tokenizer.decode(row) for row in ids]
        scores = score_outputs(
            self.settings.task, self.outputs, self.validation.pairs.references, self.settings.tokenize
        )
        numbers = {f"val_{name}": value for name, value in scores.items() if isinstance(value, float)}
        return {"val_loss": loss, "val_perplexity": perplexity(loss), **numbers}


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
