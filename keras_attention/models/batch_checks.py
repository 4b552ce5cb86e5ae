"""Checks of the data given to `fit` and its like: arrays as a whole, streams batch by batch."""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_attention.models.id_checks import check_features, check_ids


@dataclass(frozen=True)
class InputCheck:
    """Check of a `build_seq2seq` model's inputs: vocabulary sizes, or the depth of features. It holds no tensors."""

    source_vocabulary: int
    target_vocabulary: int
    source_features: int | None

    @classmethod
    def of(cls, model: keras.Model) -> InputCheck:
        """Return the check that a model's layers imply."""
        layers = {layer.name: layer for layer in model.layers}
        source, target = (layers.get("embedding") or layers[f"{side}_embedding"] for side in ("source", "target"))
        features = model.input["source"].shape[2] if isinstance(source, keras.layers.Dense) else None
        copied = layers["pointer"].copy_words if "pointer" in layers else 0
        words = 0 if features else source.input_dim + copied
        return cls(words, target.input_dim + copied, features)

    def __call__(self, inputs: Any) -> None:
        """Check `inputs`, the first argument of `fit`; anything but arrays and tensors is left to Keras.

        Raises:
            ValueError: for inputs that `check_ids` or `check_features` rejects.
        """
        if isinstance(inputs, list | tuple) and len(inputs) == 2:
            inputs = dict(zip(("source", "target"), inputs, strict=True))
        if not isinstance(inputs, dict):
            return
        for name in ("source", "target"):
            values = inputs.get(name)
            if not hasattr(values, "shape") or not hasattr(values, "dtype"):
                continue
            if name == "source" and self.source_features is not None:
                check_features(name, values, self.source_features)
            else:
                check_ids(name, values, self.source_vocabulary if name == "source" else self.target_vocabulary)


class BatchGuard:
    """Check of all data that one `fit` reads, raised as the caller's `ValueError` whichever thread made the batch.

    Args:
        check: raises `ValueError` for wrong inputs.
    """

    def __init__(self, check: Callable[[Any], None]) -> None:
        self.check = check
        self.failure: ValueError | None = None

    def __call__(self, data: Any) -> Any:
        """Check arrays at once and return them; wrap a stream so that its batches are checked as they are read.

        Streams are PyDatasets, generators and `tf.data`. Others pass unchecked, since reading a batch would consume it.
        """
        if isinstance(data, keras.utils.PyDataset):
            return GuardedDataset(data, self)
        if isinstance(data, types.GeneratorType):
            return self._guarded(data)
        if is_tensorflow_dataset(data):
            return self._mapped(data)
        self.check(data)
        return data

    def see(self, batch: Any) -> None:
        """Check one batch, `inputs` or `(inputs, labels, ...)`, and remember its error."""
        try:
            self.check(batch[0] if isinstance(batch, list | tuple) and batch else batch)
        except ValueError as error:
            self.failure = error
            raise

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Re-raise the check's own error where a backend wraps it, as TensorFlow's pipelines do."""
        try:
            yield
        except Exception as error:
            if self.failure is None or error is self.failure:
                raise
            raise self.failure from error

    def _guarded(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            self.see(batch)
            yield batch

    def _mapped(self, dataset: Any) -> Any:
        """Map a check over a `tf.data.Dataset`, without prefetching or reshuffling."""
        import tensorflow as tf

        names = ("source", "target")

        def look(source: Any, target: Any) -> bool:
            self.see({"source": source, "target": target})
            return True

        @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
        def passed(*batch: Any) -> Any:
            inputs = batch[0]
            if isinstance(inputs, list | tuple) and len(inputs) == 2:
                given = list(inputs)
            elif isinstance(inputs, dict) and all(name in inputs for name in names):
                given = [inputs[name] for name in names]
            else:
                return batch if single is None else inputs  # Keras reports missing inputs
            with tf.control_dependencies([tf.numpy_function(look, given, tf.bool)]):
                inputs = keras.tree.map_structure(tf.identity, inputs)
            return (inputs, *batch[1:]) if single is None else inputs

        single = None if isinstance(dataset.element_spec, tuple) else dataset.element_spec
        return dataset.map(passed)


class GuardedDataset(keras.utils.PyDataset):
    """A PyDataset whose batches a `BatchGuard` checks, with the dataset's workers, order and number of batches."""

    def __init__(self, dataset: keras.utils.PyDataset, guard: BatchGuard) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self.dataset = dataset
        self.guard = guard

    @property
    def num_batches(self) -> int | None:
        batches: int | None = self.dataset.num_batches
        return batches

    def __getitem__(self, index: int) -> Any:
        batch = self.dataset[index]
        self.guard.see(batch)
        return batch

    def on_epoch_begin(self) -> None:
        self.dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self.dataset.on_epoch_end()


def is_tensorflow_dataset(data: Any) -> bool:
    """Return whether `data` is a `tf.data.Dataset`, without importing TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(data, tensorflow.data.Dataset)
