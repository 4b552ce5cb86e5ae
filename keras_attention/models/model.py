"""The Keras model that `build_seq2seq` returns: ids are checked, outputs of any widths are joined."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.models.batch_checks import BatchGuard, InputCheck


@keras.saving.register_keras_serializable(package="keras_attention")
class Seq2SeqModel(keras.Model):
    """A functional model of `source` and `target` that refuses ids which it would read wrongly.

    `fit`, `evaluate`, `predict` and their `_on_batch` forms raise the `ValueError` of `check_ids` or `check_features`:
    for padding before a token, ids out of range and numbers that are not whole. Arrays are checked before the first
    step. Of a PyDataset, a generator or a `tf.data.Dataset` each batch is checked when it is read. A torch
    `DataLoader`, a grain dataset and a distributed dataset are not checked. Labels are not checked: their form is the
    loss's. What is computed is what `keras.Model` computes, and a call of the model checks nothing.
    """

    _passed: int | None = None

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """`keras.Model.fit`, with the check of `Seq2SeqModel` on training and validation data."""
        guard = self._guard()
        x = guard(x)
        validation = _guarded_validation(guard, validation_data)
        # Keras gives the validation inputs to `evaluate` at each epoch, where they are known by their identity.
        self._passed = id(keras.utils.unpack_x_y_sample_weight(validation)[0]) if validation is not None else None
        fixed = x, y, batch_size, epochs, verbose, callbacks, validation_split, validation
        try:
            with guard.telling():
                return super().fit(*fixed, *more, **options)
        finally:
            self._passed = None

    def evaluate(self, x: Any = None, *more: Any, **options: Any) -> Any:
        """`keras.Model.evaluate`, with the check of `Seq2SeqModel`."""
        if self._passed is not None and id(x) == self._passed:
            return super().evaluate(x, *more, **options)
        guard = self._guard()
        x = guard(x)
        with guard.telling():
            return super().evaluate(x, *more, **options)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """`keras.Model.predict`, with the check of `Seq2SeqModel`; batches may have targets of different widths.

        Returns:
            The model's outputs `(N, T, V)`, T of the widest batch. Positions past a narrower batch's own width are 0:
            their best word is padding, and 0 stays 0 under a mask, which infinity and NaN do not.
        """
        guard = self._guard()
        checked = guard(x)
        if isinstance(x, dict | list | tuple):  # arrays, which Keras cuts into batches of one width
            return super().predict(x, batch_size, verbose, steps, callbacks)
        collector = _Collector()
        # Keras would append the bar of progress behind the collector, whose end comes last.
        bar = [keras.callbacks.ProgbarLogger()] if verbose != 0 else []
        listed = [*(keras.tree.flatten(callbacks) if callbacks else []), *bar, collector]
        with guard.telling():
            try:
                return super().predict(checked, batch_size, verbose, steps, listed)
            except _WidthsError:
                return collector.joined()

    def train_on_batch(self, x: Any, *more: Any, **options: Any) -> Any:
        """`keras.Model.train_on_batch`, with the check of `Seq2SeqModel`."""
        self._guard().check(x)
        return super().train_on_batch(x, *more, **options)

    def test_on_batch(self, x: Any, *more: Any, **options: Any) -> Any:
        """`keras.Model.test_on_batch`, with the check of `Seq2SeqModel`."""
        self._guard().check(x)
        return super().test_on_batch(x, *more, **options)

    def predict_on_batch(self, x: Any) -> Any:
        """`keras.Model.predict_on_batch`, with the check of `Seq2SeqModel`."""
        self._guard().check(x)
        return super().predict_on_batch(x)

    def _guard(self) -> BatchGuard:
        return BatchGuard(InputCheck.of(self))


class _WidthsError(Exception):
    """Ends a prediction whose batches Keras cannot join."""


class _Collector(keras.callbacks.Callback):
    """Keeps the outputs of each batch, and joins those that are not of one width."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.outputs.append((logs or {})["outputs"])

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        if len({tuple(output.shape[1:]) for output in self.outputs}) > 1:
            raise _WidthsError

    def joined(self) -> npt.NDArray[Any]:
        """All outputs below each other, padded on the right with 0."""
        arrays = [keras.ops.convert_to_numpy(output) for output in self.outputs]
        widest = max(array.shape[1] for array in arrays)
        first = arrays[0]
        joined = np.zeros((sum(map(len, arrays)), widest, *first.shape[2:]), first.dtype)
        start = 0
        for array in arrays:
            joined[start : start + len(array), : array.shape[1]] = array
            start += len(array)
        return joined


def _guarded_validation(guard: BatchGuard, data: Any) -> Any:
    """`validation_data` of `fit`, whose inputs a guard sees."""
    if isinstance(data, list | tuple) and data:
        return (guard(data[0]), *data[1:])
    return guard(data)
