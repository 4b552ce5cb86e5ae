"""The training loss: label-smoothed cross-entropy on sparse ids, a mean over real tokens."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_attention.types import PAD_ID, Tensor

from ..hardware.devices import over_devices


def token_losses(labels: Tensor, logits: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each position against the smoothed one-hot label.

        loss = -(1 - e) log p(label) - e mean_w log p(w)

    Args:
        labels: int `(B, T)`.
        logits: `(B, T, V)`, computed on in float32.
        label_smoothing: e, the mass spread evenly over all V words (Szegedy et al. 2016).

    Returns:
        float32 `(B, T)`; padding positions are included.
    """
    log_probs = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    labels = ops.expand_dims(ops.cast(labels, "int32"), -1)
    losses = -ops.squeeze(ops.take_along_axis(log_probs, labels, axis=-1), -1)
    if label_smoothing:
        losses = (1.0 - label_smoothing) * losses - label_smoothing * ops.mean(log_probs, axis=-1)
    return losses


def token_mean(labels: Tensor, losses: Tensor) -> Tensor:
    """Scalar: the sum of `losses (B, T)` over real labels (not padding, id 0) over their number; 0 without any.

    Where several devices share a batch it is the number of all devices' labels: their losses add up to the batch's.
    """
    weights = ops.cast(ops.not_equal(labels, PAD_ID), "float32")
    return ops.sum(losses * weights) / ops.maximum(over_devices(ops.sum(weights)), 1.0)


@keras.saving.register_keras_serializable(package="keras_attention")
class TokenCrossEntropy(keras.losses.Loss):
    """`token_mean` of `token_losses`, for `compile(loss=TokenCrossEntropy(0.1))`: labels `(B, T)`, logits `(B, T, V)`.

    Padding (label 0) counts neither above nor below the fraction. A sample weight `(B,)` or `(B, T)` multiplies both.
    Raises ValueError for a smoothing outside [0, 1).

    Example: `model.compile("adam", loss=TokenCrossEntropy(label_smoothing=0.1))`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "token_cross_entropy") -> None:
        super().__init__(name=name, reduction="none", dtype="float32")
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(
                f"Label smoothing is out of range. Expected 0 <= label_smoothing < 1. Received: {label_smoothing}"
            )
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The scalar loss of a batch."""
        losses = token_losses(y_true, y_pred, self.label_smoothing)
        if sample_weight is None:
            return token_mean(y_true, losses)
        weights = ops.cast(sample_weight, "float32")
        if len(weights.shape) == 1:
            weights = ops.expand_dims(weights, -1)
        weights = weights * ops.cast(ops.not_equal(y_true, PAD_ID), "float32")
        return ops.divide_no_nan(ops.sum(losses * weights), ops.sum(weights))

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Losses of each position `(B, T)`."""
        return token_losses(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict[str, Any]:
        return {"label_smoothing": self.label_smoothing, "name": self.name}
