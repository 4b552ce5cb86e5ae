"""Learning curves of several runs in one picture, from their history.csv.

    python benchmarks/curves.py --monitor val_bleu --output docs/images/curves-multi30k "recipe=runs/multi30k"

Writes PREFIX.png and PREFIX.csv.
"""

from __future__ import annotations

import argparse
import pathlib

import matplotlib.pyplot as plt
from tables import write_csv


def main(arguments: list[str] | None = None) -> None:
    from keras_attention.training.loop.history import read_history

    parser = argparse.ArgumentParser(description="Learning curves of several runs.")
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--monitor", default="val_bleu", help="a column of history.csv")
    parser.add_argument("--output", type=pathlib.Path, required=True, metavar="PREFIX")
    options = parser.parse_args(arguments)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = []
    for argument in options.runs:
        label, _, folder = argument.rpartition("=")
        history = read_history(pathlib.Path(folder) / "history.csv")
        if options.monitor not in history[0]:
            raise SystemExit(f"error: {folder} has no {options.monitor}. Expected one of {', '.join(history[0])}")
        minutes = [row["seconds"] / 60 for row in history]
        axes.plot(minutes, [row[options.monitor] for row in history], label=label or folder, marker=".", markersize=4)
        rows += [{"run": label or folder, "minutes": m, **row} for m, row in zip(minutes, history, strict=True)]
    axes.set_xlabel("minutes of training, validation included")
    axes.set_ylabel(options.monitor.removeprefix("val_") + " on validation text")
    axes.grid(alpha=0.3)
    axes.legend()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output.with_suffix(".png"), dpi=110)
    plt.close(figure)
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(options.output.with_suffix(".csv"), [{name: row.get(name, "") for name in names} for row in rows])


if __name__ == "__main__":
    main()
