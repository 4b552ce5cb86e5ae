"""The Keras model that `build_seq2seq` returns: it checks ids, and joins outputs of different widths."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.models.batch_checks import BatchGuard, InputCheck


@keras.saving.register_keras_serializable(package="keras_attention")
class Seq2SeqModel(keras.Model):
    """A functional model of `source` and `target` that rejects ids which it would misread.

    `fit`, `evaluate`, `predict` and their `_on_batch` forms raise the `ValueError` of `check_ids` or `check_features`:
    for padding before a token, ids out of range and numbers that are not integers. Arrays are checked before the first
    step. A PyDataset, a generator or a `tf.data.Dataset` is checked batch by batch. A torch `DataLoader`, a grain
    dataset and a distributed dataset are not checked. Labels are not checked, because their form depends on the loss.
    Results are those of `keras.Model`, and calling the model checks nothing.
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
        # Keras passes the validation inputs to `evaluate` at each epoch, where they are recognised by identity.
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
            The model's outputs `(N, T, V)`, T of the widest batch. Positions past a narrower batch's width are 0: their
                argmax is padding, and 0 stays 0 under a mask, unlike infinity and NaN.
        """
        guard = self._guard()
        checked = guard(x)
        if isinstance(x, dict | list | tuple):  # arrays, which Keras slices into batches of one width
            return super().predict(x, batch_size, verbose, steps, callbacks)
        collector = _Collector()
        # Keras would append the progress bar behind the collector, whose end must come last.
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
    """Signal to end a prediction whose batches Keras cannot concatenate."""


class _Collector(keras.callbacks.Callback):
    """Collector of each batch's outputs, which joins those of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Any] = []

    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.outputs.append((logs or {})["outputs"])

    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        if len({tuple(output.shape[1:]) for output in self.outputs}) > 1:
            raise _WidthsError

    def joined(self) -> npt.NDArray[Any]:
        """Concatenate all outputs, right-padded with 0."""
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
    """Wrap `validation_data` of `fit` in a guard."""
    if isinstance(data, list | tuple) and data:
        return (guard(data[0]), *data[1:])
    return guard(data)
