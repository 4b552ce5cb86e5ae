"""TensorBoard's files, written by TensorFlow's own writer: scores, weights as histograms, attention as pictures."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.files import write_atomically
from keras_attention.models.encoder_decoder import EncoderDecoder

from ..data.pairs import make_batch
from .trainer import Trainer

PICTURES = 2
BUCKETS = 30
CELL = 16
"""Pixels of a position in a picture of an alignment."""


class TensorBoard(keras.callbacks.Callback):
    """Writes RUN/tensorboard at each epoch's end, from what `trainer` validated; stands after it among the callbacks.

    What is there already is made that of the epochs so far, as history.csv is: no epoch's scores are missing or double.
    Show it with `tensorboard --logdir RUN/tensorboard`. Raises UserError where TensorFlow is not installed.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.trainer = trainer
        self._folder = trainer.run.path / "tensorboard"
        try:
            import tensorflow as tf
        except ImportError as error:
            raise UserError(
                "--tensorboard needs TensorFlow's writer. Expected the package tensorflow: "
                "pip install 'keras-luong[tensorflow]'"
            ) from error
        self._tf = tf
        self._open_writer: Any = None
        found = self._mend(trainer.progress.epoch)
        self._write_scores(trainer.progress.history, found)

    def _mend(self, epochs: int) -> set[tuple[str, int]]:
        """Tags and steps of the events of the epochs so far, each once; events of other epochs are deleted.

        A kill after an epoch's events were written, and a checkpoint that was lost, leave such ones.
        """
        found: set[tuple[str, int]] = set()
        for path in sorted(self._folder.glob("events.out.tfevents.*")):
            records, kept = read_records(self._tf, path), []
            for record in records:
                event = self._tf.compat.v1.Event.FromString(record)
                names = {(value.tag, event.step) for value in event.summary.value}
                if not names or (event.step <= epochs and not names & found):
                    kept.append(record)
                    found |= names
            if len(kept) < len(records):
                write_atomically(path, functools.partial(write_records, self._tf, records=kept))
        return found

    @property
    def _writer(self) -> Any:
        """Of a new file, which begins with what is first written."""
        if self._open_writer is None:
            self._open_writer = self._tf.summary.create_file_writer(str(self._folder))
        return self._open_writer

    def _write_scores(self, rows: Sequence[dict[str, Any]], found: set[tuple[str, int]]) -> None:
        """The scores of epochs, without those that are there."""
        scores = [(name, value, row["epoch"]) for row in rows for name, value in row.items() if name != "epoch"]
        for name, value, epoch in scores:
            if (name, epoch) not in found:
                with self._writer.as_default():
                    self._write(name, np.float32(value), "scalars", epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write_scores(self.trainer.progress.history[-1:], set())
        with self._writer.as_default():
            for variable in self.trainer.twin.trainable_variables:
                values = keras.ops.convert_to_numpy(variable)
                self._write(f"weights/{variable.path}", histogram(values), "histograms", epoch + 1)
            for number, picture in enumerate(self._pictures(), 1):
                self._write(f"attention/{number}", picture, "images", epoch + 1)
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        if self._open_writer is not None:
            self._open_writer.close()

    def _write(self, tag: str, value: Any, plugin: str, step: int) -> None:
        metadata = self._tf.compat.v1.SummaryMetadata(
            plugin_data=self._tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
        )
        with self._tf.device("cpu:0"):
            self._tf.summary.write(tag, value, step=step, metadata=metadata)

    def _pictures(self) -> list[Any]:
        """Of the first validation pairs: width, height and PNG, which is how TensorBoard stores a picture."""
        if self.trainer.run.config.attention == "none":
            return []
        data = self.trainer.validation.encoded
        pictures = []
        for source, target in list(zip(data.sources, data.targets, strict=True))[:PICTURES]:
            inputs, _ = make_batch([source], [target])
            _, alignment = EncoderDecoder(self.trainer.twin).align(inputs["source"], inputs["target"])
            shades = 255 - np.round(255 * keras.ops.convert_to_numpy(alignment)[0]).astype(np.uint8)
            pixels = np.kron(shades, np.ones((CELL, CELL), np.uint8))[:, :, None]
            png = self._tf.io.encode_png(pixels).numpy()
            height, width = pixels.shape[:2]
            pictures.append(self._tf.constant([str(width).encode(), str(height).encode(), png]))
        return pictures


def read_records(tf: Any, path: pathlib.Path) -> list[bytes]:
    """The records of a file of events, up to one that a kill cut off."""
    records = []
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)):
            records.append(record.numpy())
    return records


def write_records(tf: Any, path: pathlib.Path, records: Sequence[bytes]) -> None:
    """Write a file of events."""
    with tf.io.TFRecordWriter(str(path)) as file:
        for record in records:
            file.write(record)


def histogram(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Rows of (left edge, right edge, count)."""
    counts, edges = np.histogram(values.astype(np.float64), BUCKETS)
    return np.stack([edges[:-1], edges[1:], counts.astype(np.float64)], axis=1)
