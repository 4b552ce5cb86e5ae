"""Every attention mechanism on the same task, with the same budget: grapheme-to-phoneme, word error rate on `tune`.

    python benchmarks/ablation.py --data DATA --runs runs/ablation --output docs/images/ablation

DATA is the folder of the g2p recipe. Each variant is trained by `keras-attention train --recipe g2p` for the same
minutes, one after the other, and scored by `keras-attention evaluate` on `tune`. Started again, it goes on where it
was: a variant whose `score.json` exists is not trained again. Writes OUTPUT.csv and OUTPUT.png, prints the table, then
one JSON object. `--variants` picks some; `--core N` pins each training to one processor core (Linux).
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib.pyplot as plt

MODEL: dict[str, Any] = {"embedding_size": 64, "encoder_units": 64, "decoder_units": 128, "dropout": 0.1}
"""Both encoder directions together are as deep as the decoder, as dot and cosine need it."""

VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"attention": "none"},
    "dot": {"attention": "dot"},
    "general": {"attention": "general"},
    "concat": {"attention": "concat"},
    "additive": {"attention": "additive", "style": "bahdanau"},
    "location": {"attention": "location", "max_source_length": 40},
    "cosine": {"attention": "cosine", "use_scale": True},
    "local-m": {"attention": "general", "window": "local_m", "half_width": 3},
    "local-p": {"attention": "general", "window": "local_p", "half_width": 3},
    "monotonic": {"attention": "general", "alignment": "monotonic", "score_bias_init": -1.0},
    "multi-head": {"attention": "scaled_dot", "attention_heads": 4},
    "general, input feeding": {"attention": "general", "input_feeding": True},
}
"""Name to fields of `Seq2SeqConfig`. Input feeding is off where it is not named. `concat` and `additive` have one
score: the first in Luong's decoder, attention after the recurrent step, the second in Bahdanau's, attention before."""


@dataclass(frozen=True)
class Row:
    """What one variant reached."""

    variant: str
    weights: int
    epochs: int
    minutes: float
    wer: float
    per: float


def run_directory(runs: pathlib.Path, variant: str) -> pathlib.Path:
    return runs / variant.replace(", ", "-").replace(" ", "-")


def command(name: str, *arguments: object, core: int | None = None) -> str:
    """Output of `keras-attention NAME ...`, run in a process of its own."""
    line = [sys.executable, "-m", "keras_attention.cli", name, *map(str, arguments)]
    if core is not None:
        line = ["taskset", "-c", str(core), *line]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    return done.stdout


def count_weights(run: pathlib.Path) -> int:
    from keras_attention import build_seq2seq
    from keras_attention.run_directory import RunDirectory

    return int(build_seq2seq(RunDirectory.open(run).config).count_params())


def train_and_score(runs: pathlib.Path, variant: str, data: pathlib.Path, minutes: float, core: int | None) -> Row:
    run = run_directory(runs, variant)
    kept = run / "score.json"
    if kept.exists():
        return Row(**json.loads(kept.read_text(encoding="utf-8")))
    fields = {**MODEL, **VARIANTS[variant]}
    choices = [part for name, value in fields.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    command("train", "--recipe", "g2p", "--data", data, "--output", run, "--time-limit", minutes, *choices, core=core)
    scores = json.loads(command("evaluate", run, "--tsv", data / "tune.tsv", core=core).splitlines()[-1])
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    row = Row(
        variant, count_weights(run), metrics["epochs"], round(metrics["minutes"], 1), scores["wer"], scores["per"]
    )
    temporary = kept.with_suffix(".part")
    temporary.write_text(json.dumps(asdict(row)), encoding="utf-8")
    temporary.replace(kept)
    return row


def at_equal_epochs(runs: pathlib.Path, rows: Sequence[Row]) -> tuple[int, dict[str, float]]:
    """How many epochs every variant has, and the greedy WER that each had then on the first 1,000 words of `tune`."""
    fewest = min(row.epochs for row in rows)
    found = {}
    for row in rows:
        with (run_directory(runs, row.variant) / "history.csv").open(encoding="utf-8", newline="") as file:
            history = list(csv.DictReader(file))
        found[row.variant] = float(history[fewest - 1]["val_wer"])
    return fewest, found


def table(rows: Sequence[Row], epochs: int, earlier: dict[str, float]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(row),
            "wer": f"{row.wer:.2f}",
            "per": f"{row.per:.2f}",
            f"wer_at_epoch_{epochs}": f"{earlier[row.variant]:.1f}",
        }
        for row in rows
    ]


def write_csv(path: pathlib.Path, lines: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def markdown(lines: Sequence[dict[str, Any]]) -> str:
    """The same table for the docs, best first."""
    ranked = sorted(lines, key=lambda line: float(line["wer"]))
    head = [name.replace("_", " ") for name in lines[0]]
    parts = [head, ["---"] * len(head), *([str(value) for value in line.values()] for line in ranked)]
    return "".join(f"| {' | '.join(part)} |\n" for part in parts)


def draw(path: pathlib.Path, rows: Sequence[Row], epochs: int, earlier: dict[str, float]) -> None:
    """One bar a variant, best at the top; a mark where each stood when all had made the same number of epochs."""
    ranked = sorted(rows, key=lambda row: row.wer, reverse=True)
    names = [row.variant for row in ranked]
    figure, axis = plt.subplots(figsize=(7.5, 0.34 * len(ranked) + 1.6), layout="constrained")
    bars = axis.barh(names, [row.wer for row in ranked], color="#1f5fa8", label="after the same minutes")
    axis.scatter(
        [earlier[name] for name in names], names, marker="D", color="#e0a030", label=f"after {epochs} epochs (greedy)"
    )
    for bar, row in zip(bars, ranked, strict=True):
        if row.variant == "none":
            bar.set_color("#c2571a")
        axis.text(0.6, bar.get_y() + bar.get_height() / 2, f"{row.wer:.1f}", va="center", color="white")
    axis.set_xlabel("word error rate on tune, % (less is better)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, ncols=2, loc="outside upper center")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Every attention mechanism on g2p, with the same budget.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with train.tsv and tune.tsv")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/ablation"))
    parser.add_argument("--output", type=pathlib.Path, required=True, help="path without ending")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training, for each variant")
    parser.add_argument("--core", type=int, help="processor core to pin each training to")
    options = parser.parse_args(arguments)
    rows = [
        train_and_score(options.runs, variant, options.data, options.minutes, options.core)
        for variant in options.variants
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    written, picture = (options.output.with_name(options.output.name + ending) for ending in (".csv", ".png"))
    epochs, earlier = at_equal_epochs(options.runs, rows)
    lines = table(rows, epochs, earlier)
    write_csv(written, lines)
    draw(picture, rows, epochs, earlier)
    print(markdown(lines), end="")
    print(json.dumps({"csv": str(written), "png": str(picture), "rows": lines}))


if __name__ == "__main__":
    main()
