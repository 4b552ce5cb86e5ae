"""Several devices of one host at each batch: TensorFlow's MirroredStrategy, or Keras' DataParallel on JAX.

Every device takes its share of a batch; the loss is the sum over all devices' tokens over the number of all devices'
tokens, so that the devices' number changes nothing but rounding. Keras 3 does not work under
MultiWorkerMirroredStrategy; several hosts are JAX's.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import keras
from keras import ops

from keras_attention.errors import UserError
from keras_attention.types import Tensor

Result = TypeVar("Result")

DISTRIBUTIONS = ("none", "mirrored", "data_parallel")
_BACKENDS = {"mirrored": "tensorflow", "data_parallel": "jax"}


class Devices:
    """The devices that share a training's batches.

    Args:
        name: one of `DISTRIBUTIONS`. "mirrored" takes all GPUs, or all logical processors where there is no GPU;
            "data_parallel" takes every device of JAX.

    Raises:
        UserError: where Keras runs on another backend.
    """

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self.count = 1
        # Under MirroredStrategy Keras mixes up what the devices pass to `add_loss`: it reports a sum over some of them.
        self.allow_added_losses = name != "mirrored"
        self._engine: Any = None
        needed = _BACKENDS.get(name)
        if needed is None:
            return
        if keras.backend.backend() != needed:
            raise UserError(
                f"--distribute {name} is for another backend. Expected KERAS_BACKEND={needed}. "
                f"Received: {keras.backend.backend()}"
            )
        if name == "mirrored":
            import tensorflow as tf

            devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            self._engine = tf.distribute.MirroredStrategy([device.name for device in devices])
            self.count = self._engine.num_replicas_in_sync
        else:
            self._engine = keras.distribution.DataParallel(devices=keras.distribution.list_devices())
            self.count = len(keras.distribution.list_devices())

    def scope(self) -> Any:
        """Where models and optimisers are made and fitted."""
        return contextlib.nullcontext() if self._engine is None else self._engine.scope()


def on_one_device(function: Callable[[], Result]) -> Result:
    """`function()` with nothing shared among devices: validation has batches of any size."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():
            # The scope of a strategy is that of a thread, and it cannot be left for a while.
            with concurrent.futures.ThreadPoolExecutor(1) as thread:
                return thread.submit(function).result()
    if keras.backend.backend() != "jax" or (before := keras.distribution.distribution()) is None:
        return function()
    keras.distribution.set_distribution(None)
    try:
        return function()
    finally:
        keras.distribution.set_distribution(before)


def over_devices(value: Tensor) -> Tensor:
    """The sum of a scalar over the devices of a TensorFlow strategy; elsewhere the scalar itself.

    Keras adds up the devices' gradients. On JAX a batch is one array whatever the number of devices.
    """
    context = _replica()
    if context is None:
        return value
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _replica() -> Any:
    """TensorFlow's context of one device among several, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return context if context is not None and context.num_replicas_in_sync > 1 else None


class Adam(keras.optimizers.Adam):
    """Keras' Adam, which bounds the norm of the whole batch's gradient also where several devices share the batch.

    Keras bounds each device's part before it adds them up, which gives other updates than one device.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        context = _replica()
        if context is not None and self.global_clipnorm is not None:
            import tensorflow as tf

            # Keras adds up over the devices once more, so that each gives its share.
            share = 1.0 / context.num_replicas_in_sync
            grads = [tf.convert_to_tensor(gradient) for gradient in grads]
            grads = [share * g for g in context.all_reduce(tf.distribute.ReduceOp.SUM, grads)]
            norm = ops.sqrt(sum(ops.sum(ops.square(g)) for g in grads)) / share
            factor = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
            grads = [factor * g for g in grads]
        return super().apply(grads, trainable_variables)
