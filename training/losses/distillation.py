"""Teachers' predictions of the next token, at every position of the targets: distributions for one model to learn.

Word-level distillation (Hinton, Vinyals and Dean 2015, arXiv 1503.02531; Kim and Rush 2016, arXiv 1606.07947, section
3.1): the labels' one-hot rows are mixed with the teachers' distributions,

    t_n = (1 - w) [(1 - e) one-hot + e / V] + w q_n,   L = -1/N sum_n sum_v t_nv log p_nv

with w the weight of the teachers, and q their likeliest words, `CANDIDATES` of them, with shares that add up to 1.
Several teachers answer as their ensemble does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_attention.run_directory import RunDirectory
from keras_attention.translation.compiled import as_one
from keras_attention.types import PAD_ID, Tensor

from ..data.pairs import Batch, BatchDataset

CANDIDATES = 8
"""The likeliest words that are kept of a teacher's distribution; the others get nothing."""

Rows = dict[str, npt.NDArray[Any]]


class LikeliestWords(keras.Model):
    """{"source" `(B, S)`, "target" `(B, T)`} -> ids int32 and shares float32 `(B, T, K)`, the shares adding up to 1."""

    def __init__(self, models: Sequence[keras.Model], candidates: int) -> None:
        super().__init__()
        self.inner = list(models)
        self._net = as_one(self.inner)
        self.candidates = candidates
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        log_probs, _ = self._net.log_probs(inputs["source"], inputs["target"])
        best, ids = ops.top_k(log_probs, self.candidates)
        return ops.cast(ids, "int32"), ops.softmax(best, axis=-1)


class Teacher:
    """More inputs for a batch of training: `teacher_ids` and `teacher_shares` `(B, T, K)`, see `FusedCrossEntropy`.

    Args:
        runs: trained runs with the vocabularies of the run that learns.
        keep: remember what was said of a pair: for pairs that come again with the same ids.
    """

    def __init__(self, runs: Sequence[RunDirectory], keep: bool) -> None:
        words = runs[0].config.output_vocabulary
        self.candidates = min(CANDIDATES, words)
        self._model = LikeliestWords([run.load_model() for run in runs], self.candidates)
        self._known: dict[bytes, tuple[npt.NDArray[np.int32], npt.NDArray[np.float16]]] | None = {} if keep else None

    def __call__(self, dataset: BatchDataset, index: int, batch: Batch) -> Rows:
        """`extra` of `BatchDataset`."""
        inputs, labels = batch
        shape = (*labels.shape, self.candidates)
        rows: Rows = {"teacher_ids": np.zeros(shape, np.int32), "teacher_shares": np.zeros(shape, np.float32)}
        if dataset.rows(index) is None:  # a batch that shows the shapes
            return rows
        if self._known is None:
            return self._ask(inputs)
        keys = [
            source.tobytes() + b"|" + target.tobytes()
            for source, target in zip(*map(_cut, inputs.values()), strict=True)
        ]
        if new := [row for row, key in enumerate(keys) if key not in self._known]:
            # Filled up to quarters of the batch: JAX compiles each number of rows for itself.
            quarter = -(-len(keys) // 4)
            asked = np.resize(new, -(-len(new) // quarter) * quarter)
            said = self._ask({name: ids[asked] for name, ids in inputs.items()})
            for place, row in enumerate(new):
                length = int((labels[row] != PAD_ID).sum())
                ids, shares = (part[place, :length] for part in said.values())
                self._known[keys[row]] = ids.copy(), shares.astype(np.float16)
        for row, key in enumerate(keys):
            ids, shares = self._known[key]
            rows["teacher_ids"][row, : len(ids)] = ids
            rows["teacher_shares"][row, : len(ids)] = shares
        return rows

    def _ask(self, inputs: Rows) -> Rows:
        ids, shares = self._model.predict_on_batch(inputs)
        return {"teacher_ids": np.asarray(ids, np.int32), "teacher_shares": np.asarray(shares, np.float32)}


def _cut(rows: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    """Each row without its padding."""
    return [row[row != PAD_ID] for row in rows]
