"""Named trainings: where the text comes from, and the model and settings found good for it on validation data."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_attention.errors import UserError, unknown_names
from keras_attention.run_directory import RunDirectory

from .data import dates
from .data import downloads as datasets
from .data.pairs import Pairs, read_parallel, read_tsv
from .data.shards import Shards


@dataclasses.dataclass(frozen=True)
class Splits:
    """Text to train on, to validate with, and (where the recipe makes or knows one) to test with.

    `shards`: text to train on that stays on the disk; `train` is empty then. `also`: more text to validate on.
    `synthetic`: pairs that take the place of a share of the real ones in each epoch. `links`: between the words of the
    pairs to train on. `teachers`: runs whose predictions are learnt, too.
    """

    train: Pairs
    validation: Pairs
    test: Pairs | None = None
    shards: Shards | None = None
    also: Mapping[str, Pairs] = dataclasses.field(default_factory=dict)
    synthetic: Pairs | None = None
    links: list[list[tuple[int, int]]] | None = None
    teachers: Sequence[RunDirectory] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named training.

    Attributes:
        description: one line for the user.
        load: `load(folder or None, seed)` -> the text.
        model: fields of `Seq2SeqConfig`, vocabularies aside.
        settings: fields of `TrainConfig`.
        plain_model: fields that replace those of `model` where attention is "none".
    """

    description: str
    load: Callable[[pathlib.Path | None, int], Splits]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    plain_model: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _dates(data: pathlib.Path | None, seed: int) -> Splits:
    if data is not None:
        raise UserError(f"The recipe dates generates its text. Expected no --data. Received: {data}")
    return Splits(*dates.generate(seed))


def _multi30k(data: pathlib.Path | None, seed: int) -> Splits:
    folder = data or datasets.fetch("multi30k")
    train, validation, test = (
        (folder / f"{name}.lc.norm.tok.en", folder / f"{name}.lc.norm.tok.de")
        for name in ("train", "val", "test_2016_flickr")
    )
    datasets.require(folder, [*train, *validation])
    has_test = test[0].exists() and test[1].exists()
    return Splits(
        read_parallel(train[0], train[1]),
        read_parallel(validation[0], validation[1]),
        read_parallel(test[0], test[1]) if has_test else None,
    )


def _g2p(data: pathlib.Path | None, seed: int) -> Splits:
    folder = data or datasets.fetch("g2p")
    files = [folder / name for name in ("train.tsv", "tune.tsv", "dev.tsv")]
    datasets.require(folder, files[:2])
    test = read_tsv(files[2]) if files[2].exists() else None
    return Splits(read_tsv(files[0]), read_tsv(files[1]), test)


RECIPES: dict[str, Recipe] = {
    "dates": Recipe(
        "human-written dates to ISO 8601, generated; two minutes on two cores",
        _dates,
        model={
            "embedding_size": 32,
            "encoder_units": 48,
            "decoder_units": 96,
            "attention": "general",
            "dropout": 0.1,
        },
        settings={
            "task": "exact",
            "source_tokenizer": "char",
            "target_tokenizer": "char",
            "max_length": 60,
            "batch_size": 64,
            "epochs": 5,
            "learning_rate": 3e-3,
            "label_smoothing": 0.0,
            "ema_momentum": 0.99,
            "padding_multiple": 8,
        },
    ),
    "multi30k": Recipe(
        "image captions, English to German (Multi30k); three hours on one core",
        _multi30k,
        model={
            "embedding_size": 192,
            "encoder_units": 192,
            "decoder_units": 384,
            "attention": "general",
            "tie_embeddings": "all",
            "dropout": 0.3,
        },
        settings={
            "task": "translation",
            "joint": True,
            "vocabulary": 6000,
            "max_length": 60,
            "batch_size": 48,
            "epochs": 80,
            "time_limit": 175.0,
            "learning_rate": 1.5e-3,
            "schedule": "cosine",
            "warmup": 1000,
            "subword_alpha": 0.3,
            "matmul_dtype": "auto",
            "label_smoothing": 0.1,
            "ema_momentum": 0.9995,
            "validation_sentences": 500,
            "early_stopping_patience": 40,
        },
    ),
    "g2p": Recipe(
        "English spelling to phonemes (CMUdict); 15 minutes on two cores",
        _g2p,
        model={
            "embedding_size": 64,
            "encoder_units": 128,
            "decoder_units": 256,
            "attention": "general",
            "dropout": 0.2,
        },
        settings={
            "task": "g2p",
            "source_tokenizer": "char",
            "target_tokenizer": "word",
            "max_length": 40,
            "batch_size": 128,
            "epochs": 40,
            "time_limit": 15.0,
            "learning_rate": 2e-3,
            "label_smoothing": 0.1,
            "ema_momentum": 0.999,
            "patience": 2,
        },
    ),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name. Raises UserError, with the names there are, for another."""
    if name not in RECIPES:
        raise UserError(unknown_names("recipe", [name], RECIPES))
    return RECIPES[name]
