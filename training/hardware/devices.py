"""Several devices at each batch: TensorFlow's MirroredStrategy on one host, Keras' DataParallel on JAX on many.

Every device takes its share of a batch; the loss is the sum over all devices' tokens over the number of all devices'
tokens, so that the devices' number changes nothing but rounding. Keras 3 does not work under
MultiWorkerMirroredStrategy; several hosts are JAX's: a process on each, that Keras' own variables tell of each other
(`keras.distribution.initialize`). Every process reads all text and serves its rows of each batch; what decides how a
training goes on (scores, time) is that of process 0.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.types import Tensor

Result = TypeVar("Result")

DISTRIBUTIONS = ("none", "mirrored", "data_parallel")
_BACKENDS = {"mirrored": "tensorflow", "data_parallel": "jax"}


HOSTS, PROCESSES, PROCESS = (f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"))
"""Environment variables that `keras.distribution.initialize` reads: HOST:PORT of process 0, how many, and which."""


class Devices:
    """The devices that share a training's batches.

    Args:
        name: one of `DISTRIBUTIONS`. "mirrored" takes all GPUs, or all logical processors where there is no GPU;
            "data_parallel" takes every device of JAX, of all processes where there are several.

    Attributes:
        count: number of devices, of all processes together.
        part: which process this is, and how many there are.

    Raises:
        UserError: where Keras runs on another backend, or processes do not know of each other.
    """

    def __init__(self, name: str = "none") -> None:
        self.name = name
        self.count = 1
        self.part = (0, 1)
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
            if process() is not None:
                _join_processes()
            import jax

            self.part = (jax.process_index(), jax.process_count())
            # Not by Keras: it shards `tf.data` only; each process' dataset serves its own rows.
            self._engine = keras.distribution.DataParallel(
                devices=keras.distribution.list_devices(), auto_shard_dataset=False
            )
            self.count = len(keras.distribution.list_devices())

    def scope(self) -> Any:
        """Where models and optimisers are made and fitted."""
        return contextlib.nullcontext() if self._engine is None else self._engine.scope()


def process() -> tuple[int, int] | None:
    """Which of how many processes this one is to be, by the environment; None where nothing is said.

    Raises UserError for half of what is needed.
    """
    values = {name: os.environ.get(name, "") for name in (HOSTS, PROCESSES, PROCESS)}
    if not any(values.values()):
        return None
    number, count = values[PROCESS], values[PROCESSES]
    if not (values[HOSTS] and number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise UserError(
            f"Several processes need {HOSTS}=HOST:PORT of process 0, {PROCESSES}=N and {PROCESS}=0 .. N-1. "
            f"Received: {', '.join(f'{name}={value!r}' for name, value in values.items())}"
        )
    return int(number), int(count)


def output_of_process(output: pathlib.Path, distribute: str) -> pathlib.Path:
    """Where this process writes: process 0 to `output`, process n to a folder `output`.n beside it, which is alike."""
    part = process() if distribute == "data_parallel" else None
    return output.with_name(f"{output.name}.{part[0]}") if part is not None and part[0] else output


def _join_processes() -> None:
    import jax

    if jax.distributed.is_initialized():
        return
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UserError(
            f"The processes do not find each other at {os.environ[HOSTS]} ({reason}). Expected the same {HOSTS} and "
            f"{PROCESSES} everywhere, a {PROCESS} for each, and a port that is open"
        ) from error


def agree(numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of process 0, in every process; where there is one process, just these."""
    if keras.backend.backend() != "jax":
        return numbers
    import jax

    if jax.process_count() == 1:
        return numbers
    from jax.experimental import multihost_utils

    values = multihost_utils.broadcast_one_to_all(np.array(list(numbers.values()), np.float32))
    return dict(zip(numbers, (float(value) for value in values), strict=True))


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
    context = replica()
    if context is None:
        return value
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def replica() -> Any:
    """TensorFlow's context of one device among several, or None."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return context if context is not None and context.num_replicas_in_sync > 1 else None
