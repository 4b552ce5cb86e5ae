"""A toy task for the tests of training: words of six letters' alphabet, reversed. Small enough for seconds."""

from __future__ import annotations

import pathlib
import random
from typing import Any

MODEL = {"embedding_size": 7, "encoder_units": 6, "decoder_units": 12, "dropout": 0.1}
SETTINGS: dict[str, Any] = {
    "task": "exact",
    "source_tokenizer": "char",
    "target_tokenizer": "char",
    "batch_size": 16,
    "epochs": 2,
    "learning_rate": 1e-2,
    "label_smoothing": 0.1,
    "ema_momentum": 0.9,
    "patience": 1,
    "validation_sentences": 11,
    "max_length": 20,
}
OPTIONS = [
    *(f"--set={name}={value}" for name, value in MODEL.items()),
    *(f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()),
]
"""The same choices for the command line."""


def write_pairs(folder: pathlib.Path, count: int = 97) -> tuple[pathlib.Path, pathlib.Path]:
    """Write source.txt and target.txt: `count` words and their reversals."""
    generator = random.Random(3)
    words = ["".join(generator.choices("abcdef", k=generator.randint(2, 9))) for _ in range(count)]
    source, target = folder / "source.txt", folder / "target.txt"
    source.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    target.write_text("".join(f"{word[::-1]}\n" for word in words), encoding="utf-8")
    return source, target
