"""history.csv: one row for each epoch."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_attention.files import write_text


def write_history(path: str | pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, numbers in full precision (`repr`), atomically; a number that a row lacks is left empty."""
    if not rows:
        return
    buffer = io.StringIO()
    names = dict.fromkeys(name for row in reversed(rows) for name in row)
    writer = csv.DictWriter(buffer, fieldnames=list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: repr(value) for name, value in row.items()} for row in rows])
    write_text(path, buffer.getvalue())


def read_history(path: str | pathlib.Path) -> list[dict[str, float]]:
    """The rows of history.csv as numbers, without those that a row lacks."""
    with pathlib.Path(path).open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
