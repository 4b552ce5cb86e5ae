"""Adam as the trainings here take it: one pass over each variable, and one norm however many devices share a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from ..hardware.devices import replica


@dataclasses.dataclass(frozen=True)
class _Moments:
    """The two moments of each variable. Not a bare dict: Keras would save what it finds in one a second time."""

    of: dict[int, tuple[Any, Any]]


@keras.saving.register_keras_serializable(package="keras_attention")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam` (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1), with three differences on TensorFlow.

    Checkpoints are those of Keras, and under JAX and PyTorch the numbers too.

    With `ema_warmup` the momentum of the averaged weights grows with the updates n that were made: it is
    `min(ema_momentum, (1 + n) / (10 + n))`, so that an average is of the last tenth of a short training, and holds
    nothing of the random start.

    Each float32 variable is updated by the kernel that TensorFlow has for it (`ResourceApplyAdam`), which reads and
    writes variable, moments and gradient once; Keras' own update takes ten operations, each with a pass over memory.

    The gradient of an embedding comes from TensorFlow as rows, a row for each time that a word is read. Keras 3.15 adds
    up the squares of the rows of one word, both for the second moment and for the norm, where the algorithm has the
    square of their sum; here as on the other backends the rows are added up first.

    Where several devices share a batch, `global_clipnorm` bounds the norm of the whole batch's gradient; Keras bounds
    each device's part before it adds them up, which gives other updates than one device.
    """

    _moments: _Moments | None = None
    _largest_momentum: float = 0.99

    def __init__(self, *arguments: Any, ema_warmup: bool = False, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.ema_warmup = ema_warmup

    @property
    def ema_momentum(self) -> Any:
        """The momentum of the next update; a tensor where it grows."""
        if not getattr(self, "ema_warmup", False):
            return self._largest_momentum
        updates = ops.cast(self.iterations, "float32")
        return ops.minimum(self._largest_momentum, (1.0 + updates) / (10.0 + updates))

    @ema_momentum.setter
    def ema_momentum(self, largest: float) -> None:
        self._largest_momentum = largest

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config()
        return {**config, "ema_momentum": self._largest_momentum, "ema_warmup": self.ema_warmup}

    def add_optimizer_variables(self, trainable_variables: Sequence[Any], name: Any, initializer: Any = "zeros") -> Any:
        """Keras' own; each variable's two moments are kept at hand for `update_step`."""
        made = super().add_optimizer_variables(trainable_variables, name, initializer)
        if list(name) == ["momentum", "velocity"]:
            keys = [_key(variable) for variable in trainable_variables]
            self._moments = _Moments(dict(zip(keys, zip(*made, strict=True), strict=True)))
        return made

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        moments = None if self._moments is None else self._moments.of.get(_key(variable))
        if moments is None or self.amsgrad or not _has_kernel(variable):
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        step = tf.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (tf.constant(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        tf.raw_ops.ResourceApplyAdam(
            var=_plain(variable).handle,
            m=moments[0].value.handle,
            v=moments[1].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(self.epsilon, variable.dtype),
            grad=tf.cast(gradient, variable.dtype),
        )

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            grads = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in grads]
        context = replica()
        if context is not None and self.global_clipnorm is not None:
            import tensorflow as tf

            # Keras adds up over the devices once more, so that each gives its share.
            share = 1.0 / context.num_replicas_in_sync
            there = [place for place, gradient in enumerate(grads) if gradient is not None]
            summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [grads[place] for place in there])
            norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in summed))
            factor = share * self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
            for place, gradient in zip(there, summed, strict=True):
                grads[place] = factor * gradient
        return super().apply(grads, trainable_variables)


def _plain(variable: Any) -> Any:
    """TensorFlow's own variable of one of Keras; what Keras hands an optimiser is the former."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _key(variable: Any) -> int:
    return id(_plain(variable)) if keras.backend.backend() == "tensorflow" else id(variable)


def _has_kernel(variable: Any) -> bool:
    """Whether TensorFlow updates the variable here; not under a strategy, whose variables are several."""
    if keras.backend.backend() != "tensorflow" or keras.backend.standardize_dtype(variable.dtype) != "float32":
        return False
    import tensorflow as tf

    return not tf.distribute.has_strategy()
