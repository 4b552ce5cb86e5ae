"""Validation on any backend: token-weighted loss and greedy outputs of a model, both compiled by Keras itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_attention.search_policy import SearchPolicy
from keras_attention.text.padding import length_batches, pad_rows
from keras_attention.translation.compiled import SearchModel
from keras_attention.types import EOS_ID, PAD_ID, Tensor

from ..data.pairs import Encoded, Ids, make_batch
from ..losses.cross_entropy import token_losses


class LossModel(keras.Model):
    """{"source", "target", "labels"} -> the summed cross-entropies of each row, padding left out.

    `(B, 2)`: against the labels, and against the smoothed labels, which is what the training minimises.
    """

    def __init__(self, model: keras.Model, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.inner = model
        self.label_smoothing = label_smoothing
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> Tensor:
        logits = self.inner({"source": inputs["source"], "target": inputs["target"]}, training=False)
        real = ops.cast(ops.not_equal(inputs["labels"], PAD_ID), "float32")
        smoothings = (0.0, self.label_smoothing) if self.label_smoothing else (0.0,)
        sums = [ops.sum(token_losses(inputs["labels"], logits, e) * real, axis=-1) for e in smoothings]
        return ops.stack([sums[0], sums[-1]], axis=-1)


class Evaluator:
    """Loss and greedy outputs of one model whose weights may change between calls; compiled once.

    Args:
        model: of `build_seq2seq`.
        batch_size: rows at a time.
        max_length: most tokens of an output.
        label_smoothing: of the training, see `losses`.
    """

    def __init__(
        self,
        model: keras.Model,
        batch_size: int = 64,
        max_length: int = 100,
        multiple: int = 8,
        label_smoothing: float = 0.0,
    ) -> None:
        self.batch_size = batch_size
        self.multiple = multiple
        self._loss = LossModel(model, label_smoothing)
        self._search = SearchModel(
            model,
            policy=SearchPolicy(beam_size=1, max_length=max_length),
        )

    def loss(self, data: Encoded, backward: bool = False) -> float:
        """Mean cross-entropy of a real target token (EOS included), over all tokens of `data` together.

        `backward`: of targets that are written from their last word to their first.
        """
        return self.losses(data, backward)[0]

    def losses(self, data: Encoded, backward: bool = False) -> tuple[float, float]:
        """That, and the same against smoothed labels: the quantity that the training minimises."""
        total: Any = 0.0
        for rows in length_batches(data.targets, self.batch_size):
            sources, targets = [data.sources[i] for i in rows], [data.targets[i] for i in rows]
            inputs, labels = make_batch(sources, targets, self.multiple, [backward] * len(rows))
            sums = self._loss.predict_on_batch({**inputs, "labels": labels})
            total = total + np.sum(sums, axis=0, dtype=np.float64)
        plain, smoothed = total / sum(len(row) + 1 for row in data.targets)
        return float(plain), float(smoothed)

    def greedy(self, sources: Sequence[Ids]) -> list[Ids]:
        """Greedy outputs, without EOS, in the order of `sources`."""
        outputs: list[Ids] = [[] for _ in sources]
        for rows in length_batches(sources, self.batch_size):
            batch = pad_rows([[*sources[i], EOS_ID] for i in rows], self.multiple)
            result = self._search.predict_on_batch({"source": batch})
            for index, ids, length in zip(rows, result["ids"][:, 0], result["lengths"][:, 0], strict=True):
                outputs[index] = [int(token) for token in ids[: int(length)] if token != EOS_ID]
        return outputs


def perplexity(loss: float) -> float:
    """exp(loss), infinite instead of an overflow."""
    return math.exp(loss) if loss < 700 else math.inf
