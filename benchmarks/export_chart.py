"""The figures of `export.py` as a picture: sentences a second, and bytes, of every format and precision.

    python benchmarks/export_chart.py docs/images/export.csv

writes docs/images/export.png, as `export.py --output docs/images/export` does at its end.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> None:
    """A bar for each contender, the fastest at the top of the widest beam among `rows`; medians over the rounds."""
    beam = max(int(row["beam"]) for row in rows)
    rows = [row for row in rows if int(row["beam"]) == beam]
    keys = list(dict.fromkeys((row["name"], row["precision"]) for row in rows))
    threads = sorted({int(row["threads"]) for row in rows})

    def of(key: tuple[str, str]) -> list[Mapping[str, Any]]:
        return [row for row in rows if (row["name"], row["precision"]) == key]

    def speed(key: tuple[str, str], count: int) -> float:
        return 1e3 / statistics.median(float(row["batch_1_ms"]) for row in of(key) if int(row["threads"]) == count)

    keys.sort(key=lambda key: max(speed(key, count) for count in threads))
    labels = [f"{name}\n{precision}" if name not in precision else precision for name, precision in keys]
    figure, (fast, small) = plt.subplots(1, 2, figsize=(10, 1.2 + 0.5 * len(keys)), layout="constrained", sharey=True)
    places = range(len(keys))
    height = 0.8 / len(threads)
    for number, count in enumerate(threads):
        values = [speed(key, count) for key in keys]
        offsets = [place + (number - (len(threads) - 1) / 2) * height for place in places]
        bars = fast.barh(offsets, values, height, label=f"{count} thread{'s' if count > 1 else ''}")
        fast.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
    fast.set_yticks(list(places), labels, fontsize=8)
    fast.set_xlabel(f"sentences a second, one at a time, beam {beam}")
    fast.legend(loc="lower right", fontsize=8)
    sizes = [float(of(key)[0]["bytes"] or 0) / 1e6 for key in keys]
    bars = small.barh(list(places), sizes, 0.6, color="tab:gray")
    small.bar_label(bars, labels=[f"{size:.1f}" if size else "" for size in sizes], fontsize=7, padding=2)
    small.set_xlabel("files, MB")
    for axes in (fast, small):
        axes.margins(x=0.09)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=pathlib.Path, help="what export.py wrote to PREFIX.csv")
    options = parser.parse_args(arguments)
    try:
        with options.log.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SystemExit(f"error: {options.log}: {error.strerror}. Expected the CSV that export.py wrote") from error
    if not rows or "batch_1_ms" not in rows[0]:
        raise SystemExit(f"error: {options.log}: no figures of export.py. Expected the CSV that it wrote")
    draw(rows, options.log.with_suffix(".png"))


if __name__ == "__main__":
    main()
