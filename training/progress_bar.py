"""The live progress of a training: a bar on a terminal, one plain line for each epoch elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import keras
import rich.console
import rich.progress

from .data.pairs import BatchDataset


def count_bar(name: str) -> rich.progress.Progress:
    """A bar that counts, on standard error where that is a terminal: for commands whose output others read."""
    return rich.progress.Progress(
        rich.progress.TextColumn(name),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


class Display(keras.callbacks.Callback):
    """Shows epoch, tokens per second, loss, validation perplexity and score. Runs after the callback that validates.

    Args:
        dataset: knows the number of target tokens in each batch.
        epochs: number of epochs at most.
        monitor: name of the validation score.
        console: where to show it; standard output if None.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        epochs: int,
        monitor: str,
        console: rich.console.Console | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.epochs = epochs
        self.monitor = monitor
        self.console = console or rich.console.Console(highlight=False, soft_wrap=True)
        self._bar: rich.progress.Progress | None = None
        self._task: rich.progress.TaskID | None = None
        self._last = ""
        self._tokens = 0
        self._started = 0.0
        self._speed_of_epoch = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(bar_width=10),
                rich.progress.TaskProgressColumn(),
                rich.progress.TimeRemainingColumn(compact=True),
                rich.progress.TextColumn("{task.fields[numbers]}"),
                console=self.console,
                transient=True,
                refresh_per_second=4,
            )
            self._bar.start()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._tokens = 0
        self._started = time.monotonic()
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(
                f"epoch {epoch + 1}/{self.epochs}", total=len(self.dataset), numbers=self._last
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._tokens += self.dataset.target_tokens(batch)
        self._speed_of_epoch = self._speed()
        if self._bar is not None and self._task is not None:
            numbers = f"{self._speed():,.0f} tokens/s  loss {float((logs or {}).get('loss', 0.0)):.3f}{self._last}"
            self._bar.update(self._task, completed=batch + 1, numbers=numbers)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        perplexity = logs["val_perplexity"]
        # Short enough for a terminal of 80 columns, in the bar and in the line.
        score = f"{self.monitor} {logs[f'val_{self.monitor}']:.2f}".replace("exact_match", "exact")
        self._last = f"  val ppl {perplexity:.2f} {score}"
        both = f" ({logs['val_perplexity_backward']:.2f} backwards)" if "val_perplexity_backward" in logs else ""
        self.console.print(
            f"epoch {epoch + 1}/{self.epochs}  loss {logs['loss']:.4f}  val ppl {perplexity:.2f}{both}  "
            f"{score}  rate {logs['learning_rate']:.1e}  {self._speed_of_epoch:,.0f} tokens/s"
        )

    def close(self) -> None:
        """Take the bar off the terminal; also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def _speed(self) -> float:
        return self._tokens / max(time.monotonic() - self._started, 1e-9)
