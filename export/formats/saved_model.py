"""SavedModel: the graphs as signatures, through `keras.export.ExportArchive`."""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from ..graphs.graph import Graph
from ..graphs.port import Port


def tensor_spec(port: Port) -> tf.TensorSpec:
    """Return the port as a TensorFlow spec; a named axis has any size."""
    shape = [axis if isinstance(axis, int) else None for axis in port.axes]
    return tf.TensorSpec(shape, port.dtype, name=port.name)


def write_saved_model(path: pathlib.Path, graphs: Iterable[Graph], resources: Iterable[Any] = ()) -> None:
    """Write graphs as signatures of one SavedModel.

    Args:
        path: folder to write.
        graphs: each becomes the signature of its name; the first is `serving_default` too.
        resources: resources of the graphs besides the model's weights: lookup tables, tokenizers.
    """
    archive = keras.export.ExportArchive()  # finds the weights in the graphs; a tracked model would store them twice
    for resource in resources:
        archive.track(resource)
    for graph in graphs:
        archive.add_endpoint(graph.name, graph.function, [tensor_spec(port) for port in graph.inputs])
    with quiet():
        archive.write_out(str(path), verbose=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress TensorFlow's warnings about lookup tables, which it calls safe to ignore."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
