"""Which learning rate to start with: a short run in which it rises from tiny to too large (Smith 2015, section 3.3)."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
from typing import Any

import keras

from keras_attention.metrics.plots import rate_curve
from keras_attention.run_directory import write_text

from ..data.pairs import BatchDataset
from ..data.tf_feed import feed

LOWEST, HIGHEST = 1e-6, 1.0
SMOOTHING = 0.95
"""Of the running mean of the loss, corrected for its start."""
DIVERGED = 2.0
"""The test ends when the smoothed loss is so many times the lowest one."""


@dataclasses.dataclass(frozen=True)
class RateTest:
    """Learning rates in rising order, the smoothed loss at each, and the rate at which the loss falls fastest."""

    rates: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """The rate of the steepest fall of the loss per factor of the rate, before the lowest loss."""
        lowest = min(range(len(self.losses)), key=self.losses.__getitem__)
        window = max(1, len(self.losses) // 20)
        slopes = {
            index: self.losses[min(index + window, lowest)] - self.losses[max(index - window, 0)]
            for index in range(lowest + 1)
        }
        return self.rates[min(slopes, key=slopes.__getitem__)]

    def save(self, folder: pathlib.Path) -> None:
        """learning-rate.csv, and plots/learning-rate.png."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["learning_rate", "loss"])
        writer.writerows(zip(self.rates, self.losses, strict=True))
        write_text(folder / "learning-rate.csv", buffer.getvalue())
        rate_curve(folder / "plots" / "learning-rate.png", self.rates, self.losses, self.suggestion)


def rising_rates(model: keras.Model, dataset: BatchDataset, updates: int = 200) -> RateTest:
    """Train the compiled `model` for at most `updates` updates of rising rate; its weights are of no use afterwards."""
    recorder = _Recorder(dataset, updates)
    epochs = math.ceil(updates / len(dataset))
    model.fit(feed(dataset), epochs=epochs, shuffle=False, verbose=0, callbacks=[recorder])
    return RateTest(recorder.rates, recorder.losses)


class _Recorder(keras.callbacks.Callback):
    def __init__(self, dataset: BatchDataset, updates: int) -> None:
        super().__init__()
        self.dataset = dataset
        self.updates = updates
        self.rates: list[float] = []
        self.losses: list[float] = []
        self._mean = 0.0
        self._total = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.dataset.start_epoch(epoch)
        self._total = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        share = len(self.rates) / max(self.updates - 1, 1)
        self.model.optimizer.learning_rate = LOWEST * (HIGHEST / LOWEST) ** min(share, 1.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # Keras reports the mean over the epoch so far, weighted by rows; batches have the same number but the last.
        total = float((logs or {})["loss"]) * (batch + 1)
        loss, self._total = total - self._total, total
        self._mean = SMOOTHING * self._mean + (1.0 - SMOOTHING) * loss
        smoothed = self._mean / (1.0 - SMOOTHING ** (len(self.rates) + 1))
        if math.isfinite(smoothed):
            self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
            self.losses.append(smoothed)
        if not math.isfinite(smoothed) or smoothed > DIVERGED * min(self.losses) or len(self.rates) >= self.updates:
            self.model.stop_training = True
