"""A corpus larger than memory: a folder of TSV files, of which one at a time is in memory, and the next on its way.

Each file is encoded once, into RUN/shards. An epoch takes the files in random order; within a file batches are made as
from any text (`BatchDataset`). Both orders are pure functions of (seed, epoch).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import pathlib
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import rich.progress

from keras_attention.errors import UserError
from keras_attention.files import write_atomically
from keras_attention.text.tokenizers import Tokenizer

from .pairs import Batch, BatchDataset, Encoded, Ids, Pairs, encode_pairs, read_tsv

SAMPLE = 200_000
"""Pairs, drawn evenly from all files, that vocabularies are made of."""


class Rows(Sequence[Ids]):
    """Rows of ids in one array: `flat[offsets[i]:offsets[i + 1]]`, an eighth of the memory of lists."""

    def __init__(self, flat: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64]) -> None:
        self.flat = flat
        self.offsets = offsets

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> Rows:
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        return cls(np.fromiter((token for row in rows for token in row), np.int32, int(offsets[-1])), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        return self.flat[self.offsets[index] : self.offsets[index + 1]].tolist()

    def __iter__(self) -> Iterator[Ids]:
        return (self[index] for index in range(len(self)))


def write_shard(path: pathlib.Path, data: Encoded) -> None:
    """Write the ids of one file's pairs."""
    sides = {"source": Rows.of(data.sources), "target": Rows.of(data.targets)}
    arrays = {f"{name}_{part}": getattr(rows, part) for name, rows in sides.items() for part in ("flat", "offsets")}

    def write(temporary: pathlib.Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    write_atomically(path, write)


def read_shard(path: pathlib.Path) -> Encoded:
    """Return the pairs that `write_shard` wrote. Raises UserError for a file that is gone or damaged."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            source, target = (Rows(file[f"{name}_flat"], file[f"{name}_offsets"]) for name in ("source", "target"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        problem = "vanished" if isinstance(error, FileNotFoundError) else f"is damaged ({error})"
        raise UserError(
            f"{path}: the encoded shard {problem}. What was trained up to the last whole epoch is kept. "
            "Delete the file if it is there, and start the same command again: it is made anew from its text"
        ) from error
    return Encoded(source, target)


@dataclasses.dataclass(frozen=True)
class Shards:
    """TSV files of parallel text; each fits into memory, all together need not.

    Raises UserError, from `find`, for a folder without any.
    """

    files: tuple[pathlib.Path, ...]
    skip_empty: bool = False

    @classmethod
    def find(cls, folder: str | pathlib.Path, skip_empty: bool = False) -> Shards:
        files = tuple(sorted(pathlib.Path(folder).glob("*.tsv")))
        if not files:
            raise UserError(f"{folder}: no shards. Expected a folder with files *.tsv of SOURCE<TAB>TARGET lines")
        return cls(files, skip_empty)

    @property
    def fingerprint(self) -> str:
        """Of names and sizes: reading a corpus of this kind again at each start would take too long."""
        text = "\n".join(f"{path.name} {path.stat().st_size}" for path in self.files)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def sample(self, seed: int, size: int = SAMPLE) -> tuple[Pairs, int]:
        """At most `size` pairs, each of the corpus' pairs as likely as any other, and the number of all pairs."""
        chooser = random.Random(seed)
        kept: list[tuple[str, str, str]] = []
        count = 0
        for path in _progress(self.files, "reading"):
            for entry in zip(*read_tsv(path, self.skip_empty).flat(), strict=True):
                count += 1
                if len(kept) < size:
                    kept.append(entry)
                elif (place := chooser.randrange(count)) < size:
                    kept[place] = entry
        sources, targets, origins = zip(*kept, strict=True)
        return Pairs(list(sources), [[target] for target in targets], list(origins)), count

    def encode(
        self,
        folder: pathlib.Path,
        source: Tokenizer,
        target: Tokenizer,
        max_length: int,
        say: Callable[[str], None],
        copy_words: int | None = None,
    ) -> list[pathlib.Path]:
        """Write the ids of every file into `folder`, where they are not yet; returns the paths."""
        paths = [folder / f"{path.stem}.npz" for path in self.files]
        missing = [(text, path) for text, path in zip(self.files, paths, strict=True) if not path.exists()]
        for text, path in _progress(missing, "encoding"):
            data, dropped = encode_pairs(read_tsv(text, self.skip_empty), source, target, max_length, copy_words)
            if dropped:
                say(f"{text}: left out {len(dropped)} pairs of more than {max_length} tokens, first {dropped[0]}")
            write_shard(path, data)
        return paths


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    return rich.progress.track(items, what, transient=True, disable=len(items) < 2)


class ShardedDataset(keras.utils.PyDataset):
    """Batches for `fit` of shards on disk; the interface of `BatchDataset`. Read in order: every index after the last.

    Args:
        paths: what `Shards.encode` wrote.
        options: the arguments of `BatchDataset` after the data.

    `failure` holds the error of a shard that could not be read: TensorFlow hides errors of the threads that feed it.
    """

    def __init__(self, paths: Sequence[pathlib.Path], **options: Any) -> None:
        super().__init__()
        self.paths = list(paths)
        self.options = options
        self.failure: UserError | None = None
        self.pairs = [_count(path) for path in self.paths]
        size = options["batch_size"]
        self._lengths = [-(-count // size) for count in self.pairs]
        self._loader = concurrent.futures.ThreadPoolExecutor(1)
        self._tokens: dict[int, int] = {}
        self._probe = BatchDataset(Encoded([[4]] * 2, [[4]] * 2), **{**options, "batch_size": 1})
        self._probe.probe_shapes()
        self._probed = False
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Fix the order of files, and of the batches in each."""
        self._probed = False
        self._epoch = epoch
        order = np.random.default_rng([self.options["seed"], epoch, 1]).permutation(len(self.paths))
        self._order = [int(shard) for shard in order if self._lengths[shard]]
        self._starts = np.concatenate([[0], np.cumsum([self._lengths[shard] for shard in self._order])])
        self._position = -1
        self._tokens = {}
        self._next = self._load(0)

    def probe_shapes(self) -> None:
        """See `BatchDataset.probe_shapes`."""
        self._probed = len(self) > 1

    def __len__(self) -> int:
        return sum(self._lengths)

    updates = property(__len__, doc="Updates of an epoch.")

    def __getitem__(self, index: int) -> Any:
        if self._probed:
            return self._probe[index]
        shard, batch = self._find(index)
        self._tokens[index] = shard.target_tokens(batch)
        return shard[batch]

    def batch(self, index: int) -> Batch:
        """Inputs and labels of batch `index`."""
        shard, batch = self._find(index)
        return shard.batch(batch)

    def target_tokens(self, index: int) -> int:
        """Number of real labels, EOS included, of batch `index`, once it was served."""
        return self._tokens.pop(index, 0)

    def _find(self, index: int) -> tuple[BatchDataset, int]:
        """The shard of batch `index`, loaded, and the number of the batch in it."""
        position = int(np.searchsorted(self._starts, index, side="right")) - 1
        if position != self._position:
            if position != self._position + 1:
                self._next = self._load(position)
            try:
                self._shard = self._next.result()
            except UserError as error:
                self.failure = error
                raise
            self._position = position
            self._next = self._load(position + 1)
        return self._shard, index - int(self._starts[position])

    def _load(self, position: int) -> concurrent.futures.Future[Any]:
        return self._loader.submit(self._read, self._order[position] if position < len(self._order) else None)

    def _read(self, shard: int | None) -> BatchDataset | None:
        if shard is None:
            return None
        dataset = BatchDataset(read_shard(self.paths[shard]), **self.options)
        dataset.start_epoch(self._epoch * len(self.paths) + shard)
        return dataset


def _count(path: pathlib.Path) -> int:
    """The pairs of an encoded shard, from the header of one array alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("source_offsets.npy") as file:
            np.lib.format.read_magic(file)
            return int(np.lib.format.read_array_header_1_0(file)[0][0]) - 1
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return len(read_shard(path))
