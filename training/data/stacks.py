"""Several updates in one call, for devices that outrun the program that feeds them: JAX only.

A step of a small model takes a GPU a few milliseconds; between two of them it waits for Python to hand over hundreds of
arrays, make a batch and read the loss. Here batches of like length are stacked, and one compiled call goes through the
stack by `jax.lax.scan`: the same updates one after the other, with the callbacks of `fit` around each call. The stacks
to come are made in a thread meanwhile.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from .pairs import BatchDataset

AHEAD = 3
"""Stacks that are made while earlier ones are trained on."""


@keras.saving.register_keras_serializable(package="keras_attention")
class StackedSteps(keras.Model):
    """A functional model whose `fit` is given stacks of batches, `(N, B, ...)` each, and updates once for each batch.

    The learning rate is that of the call; the losses reported are those after its last batch.
    """

    def train_step(self, state: Any, data: Any) -> tuple[Any, Any]:
        import jax

        def one(state: Any, batch: Any) -> tuple[Any, Any]:
            logs, new = super(StackedSteps, self).train_step(state, batch)
            # What goes round a loop keeps its type: counters that JAX has made weakly typed take it again.
            return jax.tree.map(lambda value, old: jax.numpy.asarray(value, old.dtype), new, state), logs

        state = jax.tree.map(lambda value: jax.lax.convert_element_type(value, value.dtype), state)
        state, logs = jax.lax.scan(one, state, data)
        return jax.tree.map(lambda values: values[-1], logs), state


def pad_to(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """`array` with zeros after its end along every axis."""
    return np.pad(array, [(0, wanted - size) for size, wanted in zip(array.shape, shape, strict=True)])


class StackedDataset(keras.utils.PyDataset):
    """Stacks of a dataset's batches, for `StackedSteps`.

    A pass's batches are sorted by their shape, cut into stacks of `height` (one may be lower), padded to the stack's
    largest shape, and the stacks are shuffled: a pure function of the dataset's seed and the number of the pass.

    Args:
        dataset: batches of one number of rows each (`row_multiple` is the batch's size).
        height: batches of a stack.
        passes: passes over the data that count as one epoch of `fit`.

    Example: `StackedDataset(BatchDataset(data, 256, seed=1, row_multiple=256), height=16)`.
    """

    def __init__(self, dataset: BatchDataset, height: int, passes: int = 1) -> None:
        super().__init__()
        self.dataset = dataset
        self.height = height
        self.passes = passes
        self.epoch = 0
        self._pass = -1
        self._stacks: list[npt.NDArray[np.int64]] = []
        self._tokens: dict[int, int] = {}
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._coming: dict[int, concurrent.futures.Future[Any]] = {}

    def start_epoch(self, epoch: int) -> None:
        """Fix the order of the stacks of one epoch."""
        for future in self._coming.values():
            future.cancel()
        self._thread.submit(lambda: None).result()  # what had begun is done
        self.epoch = epoch
        self._coming, self._tokens = {}, {}

    def probe_shapes(self) -> None:
        """JAX compiles each shape for itself."""

    def __len__(self) -> int:
        return self.passes * self._per_pass

    def __getitem__(self, index: int) -> Any:
        for number in range(index, min(index + 1 + AHEAD, len(self))):
            if number not in self._coming:
                self._coming[number] = self._thread.submit(self._make, number)
        self._coming.pop(index - 1, None)
        return self._coming[index].result()

    def target_tokens(self, index: int) -> int:
        """Number of real labels, EOS included, of stack `index`, which has been made."""
        return self._tokens[index]

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return self.passes * len(self.dataset)

    @property
    def _per_pass(self) -> int:
        return -(-len(self.dataset) // self.height)

    def _make(self, index: int) -> Any:
        """Stack `index` of the epoch; runs in the thread alone, which so has the dataset to itself."""
        number = self.epoch * self.passes + index // self._per_pass
        if number != self._pass:
            self.dataset.start_epoch(number)
            self._stacks = self._order(number)
            self._pass = number
        batches = self._stacks[index % self._per_pass]
        self._tokens[index] = sum(self.dataset.target_tokens(batch) for batch in batches)
        parts = [self.dataset[batch] for batch in batches]

        def stack(*arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
            shape = tuple(int(size) for size in np.max([array.shape for array in arrays], axis=0))
            return np.stack([pad_to(array, shape) for array in arrays])

        return keras.tree.map_structure(stack, *parts)

    def _order(self, number: int) -> list[npt.NDArray[np.int64]]:
        data = self.dataset.data
        shapes = []
        for batch in range(len(self.dataset)):
            rows = self.dataset.rows(batch)
            assert rows is not None
            shapes.append([max(len(side[row]) for row in rows) for side in (data.sources, data.targets)])
        source, target = np.asarray(shapes, np.int64).T // self.dataset.multiple
        order = np.lexsort((source, target))
        stacks = [order[start : start + self.height] for start in range(0, len(order), self.height)]
        shuffled = np.random.default_rng([self.dataset.seed, number, 13]).permutation(len(stacks))
        return [stacks[place] for place in shuffled]
