"""What a finished training leaves to read: metrics.json, curves, the model card."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_attention.run_directory import RunDirectory, write_json

from .settings import Settings

if TYPE_CHECKING:
    from .callbacks import Progress


def write_reports(run: RunDirectory, settings: Settings, progress: Progress) -> None:
    """metrics.json: the best epoch's scores, epochs and seconds."""
    best = progress.history[progress.plateau.best_epoch or 0]
    write_json(run.path / "metrics.json", {"best": best, "epochs": progress.epoch, "seconds": progress.seconds})
