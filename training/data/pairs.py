"""Parallel text: read from plain files or a TSV, encoded, and served to `fit` as length-bucketed NumPy batches.

Source rows are words + EOS; target inputs are BOS + words, labels are words + EOS; everything is padded on the right
with 0. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.models.pointer_generator import of_text
from keras_attention.text.lines import read_lines, read_parallel_lines
from keras_attention.text.padding import pad_rows
from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer
from keras_attention.types import BACKWARD_ID, BOS_ID, EOS_ID, PAD_ID

Ids = list[int]
Batch = tuple[dict[str, npt.NDArray[np.int32]], npt.NDArray[np.int32]]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Parallel text: `sources[i]` has the accepted outputs `references[i]` (several for g2p); training uses every one.

    `origin` says where a pair came from ("file:line"), for messages.
    """

    sources: list[str]
    references: list[list[str]]
    origins: list[str]

    def __len__(self) -> int:
        return len(self.sources)

    def flat(self) -> tuple[list[str], list[str], list[str]]:
        """Sources, targets and origins, one entry for each accepted output."""
        entries = [
            (source, target, origin)
            for source, targets, origin in zip(self.sources, self.references, self.origins, strict=True)
            for target in targets
        ]
        return [entry[0] for entry in entries], [entry[1] for entry in entries], [entry[2] for entry in entries]

    def head(self, count: int | None) -> Pairs:
        """The first `count` pairs."""
        return Pairs(self.sources[:count], self.references[:count], self.origins[:count])

    def select(self, indices: Sequence[int]) -> Pairs:
        return Pairs(
            [self.sources[i] for i in indices],
            [self.references[i] for i in indices],
            [self.origins[i] for i in indices],
        )


def read_parallel(source: str | pathlib.Path, target: str | pathlib.Path, skip_empty: bool = False) -> Pairs:
    """Pairs of two files, line by line.

    Raises UserError on different line counts and, unless `skip_empty`, on empty lines.
    """
    sources, targets = read_parallel_lines(source, target)
    kept: list[int] = []
    for index, (one, other) in enumerate(zip(sources, targets, strict=True)):
        if one.strip() and other.strip():
            kept.append(index)
        elif not skip_empty:
            empty = source if not one.strip() else target
            raise UserError(
                f"{empty}:{index + 1}: empty line. Expected a sentence. "
                f"Remove line {index + 1} from {source} and {target}, or give --skip-empty to leave such pairs out"
            )
    if not kept:
        raise UserError(f"{source}: no pair of sentences is left. Expected at least one line with text in both files")
    return Pairs([sources[i] for i in kept], [[targets[i]] for i in kept], [f"{source}:{i + 1}" for i in kept])


def read_tsv(
    path: str | pathlib.Path,
    skip_empty: bool = False,
    option: str = "--skip-empty",
    on_empty: Callable[[str], None] | None = None,
) -> Pairs:
    """Pairs of one file of SOURCE<TAB>TARGET lines; lines with the same source are several accepted outputs of it.

    Raises UserError with file and line for a line without exactly one tab and, unless `skip_empty`, for an empty side.
    The message names the `option` that leaves such lines out; `on_empty` is told of each that is.
    """
    positions: dict[str, int] = {}
    sources: list[str] = []
    references: list[list[str]] = []
    origins: list[str] = []
    for number, line in enumerate(read_lines(path), 1):
        fields = line.split("\t")
        if len(fields) == 2 and all(field.strip() for field in fields):
            source, target = fields
            position = positions.setdefault(source, len(sources))
            if position == len(sources):
                sources.append(source)
                references.append([])
                origins.append(f"{path}:{number}")
            if target not in references[position]:
                references[position].append(target)
            continue
        problem = "empty line" if not line.strip() else "an empty side" if len(fields) == 2 else f"{len(fields)} fields"
        problem = f"{path}:{number}: {problem}. Expected SOURCE<TAB>TARGET, both with text"
        if not (skip_empty and (not line.strip() or len(fields) == 2)):
            raise UserError(f"{problem}. Mend the line, or give {option} to leave empty ones out")
        if on_empty is not None:
            on_empty(problem)
    if not sources:
        raise UserError(f"{path}: no pair is left. Expected at least one line SOURCE<TAB>TARGET")
    return Pairs(sources, references, origins)


def split_pairs(pairs: Pairs, fraction: float, seed: int) -> tuple[Pairs, Pairs]:
    """Training and validation pairs: a random `fraction` (at least one pair), chosen by `seed`, is held out."""
    if not 0.0 < fraction < 1.0:
        raise UserError(f"The validation fraction is out of range. Expected 0 < fraction < 1. Received: {fraction}")
    if len(pairs) < 2:
        raise UserError(
            f"{pairs.origins[0]}: one pair cannot be split. Expected two pairs or more, or validation files"
        )
    count = min(max(1, round(len(pairs) * fraction)), len(pairs) - 1)
    held_out = set(np.random.default_rng(seed).permutation(len(pairs))[:count].tolist())
    rest = [index for index in range(len(pairs)) if index not in held_out]
    return pairs.select(rest), pairs.select(sorted(held_out))


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Ids of pairs, without BOS and EOS."""

    sources: Sequence[Ids]
    targets: Sequence[Ids]
    kept: list[int] | None = None
    """Which of the (source, target) pairs given were kept; None for all."""

    def __len__(self) -> int:
        return len(self.sources)


def encode_pairs(
    pairs: Pairs,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    max_length: int | None,
    copy_words: int | None = None,
) -> tuple[Encoded, list[str]]:
    """Ids of every (source, target), and the origins of pairs left out for a side of more than `max_length` tokens.

    With `copy_words` words of the source that the one vocabulary lacks have ids of their own, see `CopiedWords`.
    """
    sources, targets, origins = pairs.flat()
    kept: tuple[list[Ids], list[Ids], list[int]] = ([], [], [])
    dropped: list[str] = []
    for index, (source, target, origin) in enumerate(zip(sources, targets, origins, strict=True)):
        reader, writer = of_text((source_tokenizer, target_tokenizer), source, copy_words)
        source_ids, target_ids = reader.encode(source), writer.encode(target)
        if max_length is not None and max(len(source_ids), len(target_ids)) > max_length:
            dropped.append(origin)
        else:
            kept[0].append(source_ids)
            kept[1].append(target_ids)
            kept[2].append(index)
    return Encoded(*kept), dropped


def sample_pairs(
    text: Sequence[Sequence[str]],
    best: Encoded,
    tokenizers: tuple[Tokenizer, Tokenizer],
    alphas: tuple[float, float],
    seed: int,
    max_length: int,
) -> Encoded:
    """Ids of every (source, target) in segmentations drawn at random; the best one where the draw is too long.

    A side with an alpha of 0, or whose tokenizer has no segmentations to draw (characters, words) stays as it is.
    """
    sides: list[Sequence[Ids]] = []
    for side, (lines, rows, tokenizer) in enumerate(zip(text, (best.sources, best.targets), tokenizers, strict=True)):
        if isinstance(tokenizer, SubwordTokenizer) and alphas[side]:
            drawn = tokenizer.sample(lines, alphas[side], 2 * seed + side)
            rows = [new if len(new) <= max_length else old for new, old in zip(drawn, rows, strict=True)]
        sides.append(rows)
    return Encoded(sides[0], sides[1])


def make_batch(
    sources: Sequence[Ids], targets: Sequence[Ids], multiple: int = 1, backward: Sequence[bool] | None = None
) -> Batch:
    """Model inputs {"source" `(B, S)`, "target" `(B, T)`} and labels `(B, T)`: EOS, BOS and padding are added here.

    A target that is marked `backward` is written from its last word to its first, and begins with EOS in place of BOS.
    """
    ways = [False] * len(targets) if backward is None else backward
    rows = [row[::-1] if turned else row for row, turned in zip(targets, ways, strict=True)]
    firsts = [BACKWARD_ID if turned else BOS_ID for turned in ways]
    source = pad_rows([[*row, EOS_ID] for row in sources], multiple)
    target = pad_rows([[first, *row] for first, row in zip(firsts, rows, strict=True)], multiple)
    labels = pad_rows([[*row, EOS_ID] for row in rows], multiple)
    return {"source": source, "target": target}, labels


def bucket_order(
    source_lengths: npt.NDArray[np.int64],
    target_lengths: npt.NDArray[np.int64],
    batch_size: int,
    multiple: int,
    seed: int,
    epoch: int,
) -> list[npt.NDArray[np.int64]]:
    """Batches of like length in random order: a pure function of `(seed, epoch)`.

    A random permutation is sorted (stably) by target length, then source length, both in steps of `multiple`, cut into
    batches, and the batches are shuffled. So batches differ from epoch to epoch, while padding stays small.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(source_lengths))
    keys = (-(-source_lengths[order] // multiple), -(-target_lengths[order] // multiple))
    order = order[np.lexsort(keys)]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def _add_rows(rows: npt.NDArray[np.int32], count: int, first: int) -> npt.NDArray[np.int32]:
    """`count` more rows of one token `first` and padding."""
    more = np.zeros((count, *rows.shape[1:]), rows.dtype)
    if more.ndim == 2:
        more[:, :1] = first
    return np.concatenate([rows, more])


class BatchDataset(keras.utils.PyDataset):
    """The batches of an epoch for `keras.Model.fit(dataset, shuffle=False)`; `start_epoch(n)` sets their order.

    Args:
        data: all pairs.
        batch_size: pairs of a batch.
        seed: of the order of pairs and batches.
        multiple: lengths are padded to a multiple of it.
        sample: where given, `sample(epoch)` replaces `data` in each epoch by as many pairs.
        labels_as_input: serve ({..., "labels": labels},) for a model with the loss built in, not (inputs, labels).
        row_multiple: batches are filled up to a multiple of so many rows, with rows that have no label.
        extra: `extra(dataset, index, batch)`, more inputs by name for a batch, rows first.
        backward: share of the pairs, drawn anew for each epoch, whose target is written from its end (`make_batch`).
        part: `(i, n)`: serve the i-th of n equal parts of each batch's rows; n divides `row_multiple`.

    Example: `dataset = BatchDataset(Encoded([[4, 5]], [[6]]), batch_size=32, seed=1); inputs, labels = dataset[0]`.
    """

    def __init__(
        self,
        data: Encoded,
        batch_size: int,
        seed: int,
        multiple: int = 4,
        sample: Callable[[int], Encoded] | None = None,
        labels_as_input: bool = False,
        row_multiple: int = 1,
        part: tuple[int, int] = (0, 1),
        extra: Callable[[BatchDataset, int, Batch], dict[str, Any]] | None = None,
        backward: float = 0.0,
    ) -> None:
        super().__init__()
        self.extra = extra
        self.backward = backward
        self.epoch = 0
        self.part = part
        self.row_multiple = row_multiple
        self.data = data
        self.sample = sample
        self.labels_as_input = labels_as_input
        self.batch_size = batch_size
        self.seed = seed
        self.multiple = multiple
        self._batches: list[npt.NDArray[np.int64]] = []
        self._probed = False
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Fix the order of batches of one epoch."""
        self._probed = False
        self.epoch = epoch
        if self.sample is not None:
            self.data = self.sample(epoch)
        self._turned = np.random.default_rng([self.seed, epoch, 11]).random(len(self.data)) < self.backward
        self._target_lengths = np.asarray([len(row) + 1 for row in self.data.targets], np.int64)
        source_lengths = np.asarray([len(row) + 1 for row in self.data.sources], np.int64)
        self._batches = bucket_order(
            source_lengths, self._target_lengths, self.batch_size, self.multiple, self.seed, epoch
        )

    def probe_shapes(self) -> None:
        """Until `start_epoch`, serve empty batches of unlike shapes.

        `feed` takes the first two batches to tell fixed axes from free ones before any epoch starts; two real batches
        of equal length would make it refuse every other length. Where there is one batch alone, it is
        of the same shape in each epoch, and served as it is: one shape would say that it never changes.
        """
        self._probed = len(self) > 1

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    updates = property(__len__, doc="Updates of an epoch.")

    def __getitem__(self, index: int) -> Any:
        inputs, labels = self.batch(index)
        if self.extra is not None:
            inputs = {**inputs, **self.extra(self, index, (inputs, labels))}
        if lacking := -len(labels) % self.row_multiple:
            inputs = {name: _add_rows(rows, lacking, EOS_ID) for name, rows in inputs.items()}
            labels = _add_rows(labels, lacking, PAD_ID)
        index, count = self.part
        if count > 1:
            rows = slice(index * len(labels) // count, (index + 1) * len(labels) // count)
            inputs, labels = {name: ids[rows] for name, ids in inputs.items()}, labels[rows]
        return ({**inputs, "labels": labels},) if self.labels_as_input else (inputs, labels)

    def rows(self, index: int) -> npt.NDArray[np.int64] | None:
        """Which of the epoch's pairs batch `index` holds; None for the empty batches of `probe_shapes`."""
        return None if self._probed else self._batches[index]

    def batch(self, index: int) -> Batch:
        """Inputs and labels of batch `index`."""
        if self._probed:
            return make_batch(
                [[EOS_ID] * index * self.multiple] * (index + 1),
                [[EOS_ID] * index * self.multiple] * (index + 1),
                self.multiple,
            )
        rows = self._batches[index]
        sources, targets = [self.data.sources[i] for i in rows], [self.data.targets[i] for i in rows]
        return make_batch(sources, targets, self.multiple, self._turned[rows].tolist())

    def target_tokens(self, index: int) -> int:
        """Number of real labels, EOS included, of batch `index`."""
        return int(self._target_lengths[self._batches[index]].sum())
