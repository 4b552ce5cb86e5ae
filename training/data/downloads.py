"""Public data sets from their own homes, checked by SHA-256, kept in a cache; or a local copy that the user names."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import pathlib
import re
import urllib.request
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from keras_attention.errors import UserError
from keras_attention.files import write_bytes, write_text
from keras_attention.text.lines import read_lines

TIMEOUT_SECONDS = 60
TUNE_WORDS, DEV_WORDS = 2000, 2670


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        home: address of the folder that holds the files.
        files: name -> SHA-256.
        derive: makes further files in the folder from those, or None.
    """

    home: str
    files: Mapping[str, str]
    derive: Callable[[pathlib.Path], None] | None = None


def split_cmudict(folder: pathlib.Path) -> None:
    """Make train.tsv, tune.tsv, dev.tsv (WORD<TAB>P H O N E M E S, no stress) from cmudict.dict, always the same."""
    entries: dict[str, list[str]] = {}
    for line in read_lines(folder / "cmudict.dict"):
        word, _, phonemes = line.partition("#")[0].strip().partition(" ")
        word = re.sub(r"\(\d+\)$", "", word).upper()
        if word.replace("'", "").isascii() and word.replace("'", "").isalpha():
            pronunciation = re.sub(r"\d", "", phonemes).strip()
            accepted = entries.setdefault(word, [])
            if pronunciation not in accepted:
                accepted.append(pronunciation)
    words = sorted(entries)
    order = [words[index] for index in np.random.default_rng(0).permutation(len(words))]
    parts = {"tune": order[:TUNE_WORDS], "dev": order[TUNE_WORDS : TUNE_WORDS + DEV_WORDS]}
    parts["train"] = order[TUNE_WORDS + DEV_WORDS :]
    for name, chosen in parts.items():
        text = "".join(f"{word}\t{phonemes}\n" for word in sorted(chosen) for phonemes in entries[word])
        path = folder / f"{name}.tsv"
        if not path.exists() or path.read_bytes() != text.encode("utf-8"):
            write_text(path, text)


DATA_SETS: dict[str, DataSet] = {
    "multi30k": DataSet(
        "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/tok",
        {
            "train.lc.norm.tok.en": "08925f8e0572bcd5a006702fc5fe20e2d77c6917d4eebd576fc20de6693c2119",
            "train.lc.norm.tok.de": "cb5a23529b65ec2061f1dc446192a9c37382b63cc75f81a0be59d34894b3a505",
            "val.lc.norm.tok.en": "46573ce391ae227f1c72f873392436a20ef18e0a6d518098cfbd70b77c8572ec",
            "val.lc.norm.tok.de": "97232bd273eceb7207f689527386a97e4be2616b18ada47576bdaf96c8ae1f00",
            "test_2016_flickr.lc.norm.tok.en": "5b7f32627cf99eced828311b955dae9800bb52bc8b91cf8b6526829e605b29d2",
            "test_2016_flickr.lc.norm.tok.de": "c6a33d39d48f9f510de147651316cd9d918e09ad0219df734a2f16b6baccacc4",
        },
    ),
    "g2p": DataSet(
        "https://raw.githubusercontent.com/cmusphinx/cmudict/master",
        {"cmudict.dict": "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"},
        split_cmudict,
    ),
}


def require(folder: pathlib.Path, files: Iterable[pathlib.Path]) -> None:
    """Raise UserError unless `folder` holds all `files`; the message lists what is missing."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Expected the folder of the data set's files")
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise UserError(f"{folder}: incomplete. Expected the file(s) {', '.join(missing)} there")


def fetch(name: str, cache: pathlib.Path | None = None, data_sets: Mapping[str, DataSet] = DATA_SETS) -> pathlib.Path:
    """The folder of the data set `name` in the cache, fetched from its home where it is not there yet, or damaged.

    The cache is `~/.cache/keras-attention`, if None. Derived files are made anew each time. Raises UserError without a
    network, and for a file whose SHA-256 is not the known one: that file is not kept.
    """
    data_set = data_sets[name]
    folder = (cache or pathlib.Path.home() / ".cache" / "keras-attention") / name
    for file, digest in data_set.files.items():
        path = folder / file
        if path.exists():
            if _digest(_read(path)) == digest:
                continue
            print(f"{path}: is damaged, or of another version: fetched anew")
        content = _download(f"{data_set.home}/{file}")
        found = _digest(content)
        if found != digest:
            raise UserError(
                f"{data_set.home}/{file}: not the file that this version knows. Expected SHA-256 {digest}. "
                f"Received: {found}, {len(content)} bytes. Start the command again, or name a folder with the right "
                "files: --data FOLDER"
            )
        write_bytes(path, content)
    if data_set.derive is not None:
        data_set.derive(folder)
    return folder


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}. Expected a file of the cache") from error


def _download(address: str) -> bytes:
    print(f"fetching {address}")
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    # A body cut short, or in chunks that are none, is no OSError; nor is an address that is none.
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise UserError(
            f"{address}: cannot be fetched ({reason}). Expected a network, and the whole file. Start the command "
            "again, or name a folder that holds the data set's files: --data FOLDER"
        ) from error
