"""From a dataset of batches to what `fit` reads, with no thread that makes an epoch wait at its end.

Keras makes a `tf.data` pipeline of a dataset under TensorFlow, tuned by a thread that sleeps for 10 ms, 20 ms and so on
up to a minute. The end of an epoch waits for that thread to wake (TensorFlow 2.21: epochs with 2.3, 4.8 and 9.8 seconds
of work took 2.6, 5.1 and 10.3), a seventh of the time of epochs of three minutes. The same pipeline without tuning,
which has nothing to tune, ends when its batches do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import keras


class Batches(Protocol):
    """Interface of `BatchDataset`, `ShardedDataset` and `StackedDataset`."""

    def probe_shapes(self) -> None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


AHEAD = 2
"""Batches that are made while earlier ones are trained on."""


def feed(dataset: Batches) -> Any:
    """Argument of `fit(..., shuffle=False)` for a dataset; `dataset.start_epoch` still sets the order."""
    dataset.probe_shapes()
    if keras.backend.backend() != "tensorflow":
        return dataset
    import tensorflow as tf

    def serve() -> Iterator[Any]:
        for index in range(len(dataset)):
            yield dataset[index]

    def spec(*arrays: Any) -> Any:
        shapes = [array.shape[1:] for array in arrays]
        fixed = (sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))
        return tf.TensorSpec((None, *fixed), arrays[0].dtype)

    first = [dataset[index] for index in range(min(2, len(dataset)))]
    options = tf.data.Options()
    options.autotune.enabled = False
    stream = tf.data.Dataset.from_generator(serve, output_signature=keras.tree.map_structure(spec, *first))
    stream = stream.apply(tf.data.experimental.assert_cardinality(len(dataset)))
    return stream.prefetch(AHEAD).with_options(options)
