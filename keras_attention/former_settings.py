"""Names that settings of a training had in runs of earlier versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, str] = {
    "averaging": "ema_momentum",
    "stop_after": "early_stopping_patience",
    "smallest_learning_rate": "min_learning_rate",
    "products": "matmul_dtype",
    "steps_per_call": "steps_per_execution",
    "passes": "epochs_per_validation",
    "sampling": "subword_alpha",
    "target_sampling": "target_subword_alpha",
}
"""Earlier name -> present name."""
REMOVED: dict[str, Any] = {"consistency": 0.0}
"""Settings that exist no more, each with the value at which it did nothing."""


def with_present_names(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of config.json with present names of its settings, without removed ones.

    A removed setting stays where it had an effect, so that such a training is not resumed without it.
    """
    training = metadata.get("training")
    if not isinstance(training, Mapping):
        return dict(metadata)
    renamed = {
        record: {
            RENAMED.get(name, name): value
            for name, value in training[record].items()
            if name not in REMOVED or value != REMOVED[name]
        }
        for record in ("settings", "chosen")
        if isinstance(training.get(record), Mapping)
    }
    return {**metadata, "training": {**training, **renamed}}
