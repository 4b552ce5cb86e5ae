"""A training goes on only with the choices that it began with; each difference is told with both values."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.run_directory import RunDirectory

from ..config import TrainConfig
from ..recipes import Splits


def reopen(
    run: RunDirectory,
    recipe: str | None,
    settings: TrainConfig,
    config: Seq2SeqConfig,
    splits: Splits,
    text: str,
) -> RunDirectory:
    """The run, its record of the settings that may change brought up to date.

    `text` is the fingerprint of all text (see `prepare.fingerprint`). Raises UserError for other choices than the run
    began with.
    """
    training = run.metadata.get("training", {})
    then: dict[str, Any] = {
        **{field.name: field.default for field in dataclasses.fields(TrainConfig)},  # what was no choice when it began
        "also_validate": training.get("also_validate", {}),
        "recipe": training.get("recipe"),
        **training.get("settings", {}),
        **run.config.to_dict(),  # likewise
        "text": training.get("data", {}).get("sha256"),
    }
    now: dict[str, Any] = {"recipe": recipe, **settings.to_dict(), **config.to_dict(), "text": text}
    now["also_validate"] = {name: len(pairs) for name, pairs in splits.also.items()}
    changed = sorted(
        name for name in {*now, *then} if name not in TrainConfig.RESUMABLE and now.get(name) != then.get(name)
    )
    if changed:
        data = training.get("data", {})
        counts = {
            "there": (data.get("train"), data.get("validation")),
            "now": (len(splits.train) if splits.shards is None else None, len(splits.validation)),
        }
        told = [
            _text_difference(counts) if name == "text" else f"{name}: {then.get(name)!r} there, {now.get(name)!r} now"
            for name in changed
        ]
        raise UserError(
            f"{run.path}: holds a training with other choices ({'; '.join(told)}). "
            "Expected the same command to resume it. Use another --output, or --overwrite to start anew"
        )
    run.metadata["training"]["settings"] = settings.to_dict()
    run.save()
    return run


def _text_difference(counts: dict[str, tuple[int | None, int | None]]) -> str:
    """The numbers of pairs then and now, or a note that as many others are there."""
    told = [
        f"{'?' if train is None else train} + {'?' if validation is None else validation} pairs {when}"
        for when, (train, validation) in counts.items()
    ]
    alike = counts["there"] == counts["now"]
    return f"text: {told[0]}, {'as many others' if alike else told[1]} now" if alike else f"text: {', '.join(told)}"
