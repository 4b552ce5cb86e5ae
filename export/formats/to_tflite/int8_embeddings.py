"""Int8 embedding tables of a TFLite file, with a scale for each row, applied in the lookup.

The converter's own int8 gives a whole table one scale, and dequantises all of it wherever a loop reads from it. It
also stores a tied table twice, since the product with it has a scale for each row. Here a lookup reads int8 rows and
their scales: only rows that are read become floats, and a tied table and its product share one buffer.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_attention.types import Tensor

from ...graphs.loops import all_layers
from ..int8_rows import quantised_rows


@contextlib.contextmanager
def int8_lookups(model: keras.Layer) -> Iterator[None]:
    """Context in which the model's embeddings gather int8 rows, and layers tied to them hold the same numbers.

    Numbers that are already multiples of their scale give the same int8 when the converter quantises them again, and
    it stores equal constants once.
    """
    layers = [layer for layer in all_layers(model) if is_plain(layer)]
    former = [keras.ops.convert_to_numpy(layer.embeddings).copy() for layer in layers]
    for layer, table in zip(layers, former, strict=True):
        rows, scale = quantised_rows(table)
        layer.call = _lookup(layer, rows, scale)
        layer.embeddings.assign(rows * scale[:, None])
    try:
        yield
    finally:
        for layer, table in zip(layers, former, strict=True):
            del layer.call
            layer.embeddings.assign(table)


def is_plain(layer: Any) -> bool:
    """Return whether a layer is exactly Keras' embedding, without a subclass or Keras' quantisation."""
    return type(layer) in (keras.layers.Embedding, keras.layers.ReversibleEmbedding) and not (
        layer.lora_enabled or layer.quantization_mode
    )


def _lookup(layer: Any, rows: np.ndarray, scale: np.ndarray) -> Callable[..., Tensor]:
    stock = layer.call

    def call(inputs: Tensor, reverse: bool = False) -> Tensor:
        if reverse:
            return stock(inputs, reverse=True)
        ids = tf.cast(inputs, tf.int32)
        return tf.cast(tf.gather(rows, ids), tf.float32) * tf.expand_dims(tf.gather(scale, ids), -1)

    return call
