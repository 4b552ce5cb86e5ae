"""Defaults that fit the amount of training text: 300 pairs want another training than 300,000.

Little text is read in small batches, many times, by a small model of few subwords (Sennrich and Zhang 2019, arXiv
1905.11901, section 5). Scores of few validation sentences are noisy, and an epoch is a few updates: patience is
counted in updates, in whole epochs.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory

from .config import TrainConfig
from .data.pairs import Pairs
from .loop.checkpoints import find_checkpoints

LARGE_MODEL: dict[str, Any] = {"embedding_size": 128, "encoder_units": 128, "decoder_units": 256, "dropout": 0.3}
"""Small enough for a laptop's processor."""
SMALL_MODEL: dict[str, Any] = {"embedding_size": 64, "encoder_units": 64, "decoder_units": 128, "dropout": 0.3}
SIZES = ("embedding_size", "encoder_units", "decoder_units")
SMALL_TEXT = 10_000
"""Pairs below which the small model is taken."""
UPDATES = 4000
"""The fewest updates of a training that goes through all its epochs, as long as `MOST_EPOCHS` allow."""
MOST_EPOCHS = 300
PATIENCE = 400
"""Updates without a better score that halve the learning rate, in whole epochs."""
WARMUP = 300
"""Updates over which the learning rate of a model without recurrence rises: at the full rate its first ones diverge
or stall (Vaswani et al. 2017, section 5.3)."""


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Settings and fields of the model that were chosen from the data, by name."""

    settings: Mapping[str, Any]
    model: Mapping[str, Any]

    @property
    def all(self) -> dict[str, Any]:
        return {**self.settings, **self.model}

    def changed(self, values: Mapping[str, Any], given: Mapping[str, Any]) -> Chosen:
        """The same names, those given left out, with other values where there are some."""
        parts = (
            {name: values.get(name, value) for name, value in part.items() if given.get(name) is None}
            for part in (self.settings, self.model)
        )
        return Chosen(*parts)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.all.items())


def choose(
    text: Pairs | None,
    settings: TrainConfig,
    given: Mapping[str, Any],
    output: pathlib.Path | None = None,
    parent: RunDirectory | None = None,
) -> Chosen:
    """The defaults for a training text, without those given.

    Args:
        text: None for a corpus larger than memory.
        settings: for the kinds of tokenizers.
        given: settings and fields of the model that the user gave.
        output: the run directory: a training that began there goes on with what was chosen then.
        parent: the run to start from, whose model's sizes are taken.

    >>> text = Pairs(["a b c"] * 300, [["x y"]] * 300, ["file"] * 300)
    >>> chosen = choose(text, TrainConfig(), {"epochs": 7}).all
    >>> chosen["batch_size"], chosen["patience"], chosen["vocabulary"], chosen["encoder_units"], "epochs" in chosen
    (16, 20, 138, 64, False)
    """
    found = _for_text(text, settings, sized=any(given.get(name) is not None for name in SIZES))
    if given.get("cell") == "self_attention":
        found = Chosen({**found.settings, "warmup": WARMUP}, found.model)
    if parent is not None:
        sizes = {name: parent.metadata["model"][name] for name in SIZES if name in parent.metadata["model"]}
        found = Chosen(found.settings, {**found.model, **sizes})
    return found.changed(_recorded(output), given)


def _recorded(output: pathlib.Path | None) -> Mapping[str, Any]:
    """The choices with which the training in a run directory began; empty without a training."""
    if output is None or not find_checkpoints(output):
        return {}
    try:
        training = RunDirectory.open(output).metadata.get("training", {})
    except UserError:  # whoever opens the run says so
        return {}
    # A run without a record began when these were the defaults for any text.
    fixed = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    # One that recorded none had no warm-up chosen for it.
    return {"warmup": fixed["warmup"], **training.get("chosen", {**fixed, **LARGE_MODEL})}


def _for_text(text: Pairs | None, settings: TrainConfig, sized: bool) -> Chosen:
    """The defaults for a text; `sized`: some size of the model is given, which the others must go with."""
    count = 10**9 if text is None else sum(map(len, text.references))
    batch_size = 64 if count >= 6400 else 32 if count >= 1600 else 16
    updates = math.ceil(count / batch_size)
    patience = min(max(2, math.ceil(PATIENCE / updates)), 20)
    found: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": min(max(30, math.ceil(UPDATES / updates)), MOST_EPOCHS),
        "patience": patience,
        "early_stopping_patience": 5 * patience,
    }
    if text is not None and (settings.source_tokenizer, settings.target_tokenizer) == ("subword", "subword"):
        found["vocabulary"] = vocabulary(text, settings.joint)
    return Chosen(found, SMALL_MODEL if count < SMALL_TEXT and not sized else LARGE_MODEL)


def vocabulary(text: Pairs, joint: bool) -> int:
    """Subwords for a text: they grow as the square root of its words, from 128 to 8000, and hold all its letters."""
    targets = [target for references in text.references for target in references]
    sides = [[*text.sources, *targets]] if joint else [text.sources, targets]
    sizes: list[float] = []
    for lines in sides:
        words, letters = 0, 0
        alphabet: set[str] = set()
        for line in lines:
            words, letters = words + len(line.split()), letters + len(line)
            alphabet.update(line)
        # A script without blanks has no words to count.
        running = max(words, letters / 6)
        sizes.append(max(128, min(4.6 * math.sqrt(running), 8000), 1.25 * len(alphabet) + 32))
    return math.ceil(max(sizes))
