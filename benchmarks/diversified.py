"""One small model from what larger recipes know: back-translation, distillation and a mean of weights, in one command.

    python benchmarks/diversified.py --data DATA --runs runs/diversified --output docs/images/diversified

DATA is the folder of the multi30k recipe. Two trainings run side by side, a processor core each, all of one form:

1. `back` reads German, `forth` reads English.
2. `back` translates the German training text: other English sources for known targets.
3. Two trainings go on from `forth` with other seeds, on real and back-translated pairs; `mean-1` is the mean of both.
4. `mean-1` translates the English training text: other targets for known sources.
5. Two trainings go on from `mean-1`, on real pairs and on both kinds of made ones; `mean-2` is the mean of both.

Every stage is commands of `keras-attention`, printed as they start; nothing but the training text is used. Killed, the
same command goes on where it was. Every run is scored on `val` at the end; the test set is not read.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from typing import Any

from tables import add_outputs, report

MINUTES = {"first": 50.0, "second": 40.0, "third": 33.0}
"""Of the trainings of steps 1, 3 and 5."""
SIDES = ("en", "de")
MODEL = {"embedding_size": 192, "encoder_units": 192, "decoder_units": 384, "tie_embeddings": "all", "dropout": 0.3}
SETTINGS: dict[str, Any] = {
    "set": [f"{name}={value}" for name, value in MODEL.items()],
    "attention": "general",
    "task": "translation",
    "joint": True,
    "vocabulary": 6000,
    "max_length": 60,
    "products": "auto",
    "sampling": 0.3,
    "label_smoothing": 0.1,
    "validation_sentences": 500,
    "stop_after": 300,
    "epochs": 300,
    "schedule": "cosine",
}
ONE_THREAD = {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


def command(*arguments: object, core: int | None = None) -> list[str]:
    line = [sys.executable, "-m", "keras_attention.cli", *map(str, arguments)]
    return line if core is None or shutil.which("taskset") is None else ["taskset", "-c", str(core), *line]


def run_together(*lines: list[str]) -> None:
    """Runs commands side by side; ends with the first one that failed."""
    for line in lines:
        print(shlex.join(line), flush=True)
    environment = {**os.environ, **ONE_THREAD} if len(lines) > 1 else None
    running = [subprocess.Popen(line, env=environment) for line in lines]
    try:
        if any([one.wait() for one in running]):  # a list: every one is waited for
            raise SystemExit("error: a command failed; what it said stands above. The same command goes on from there")
    finally:
        for one in running:
            one.terminate()


def train(data: pathlib.Path, output: pathlib.Path, sides: tuple[str, str], core: int, **options: Any) -> list[str]:
    """The command of one training: options that are lists are given again for each, true ones without a value."""
    files = {
        f"{prefix}{name}": data / f"{split}.lc.norm.tok.{side}"
        for prefix, split in (("", "train"), ("val-", "val"))
        for name, side in zip(("source", "target"), sides, strict=True)
    }
    line: list[object] = []
    for name, value in {**files, **SETTINGS, **options}.items():
        for one in value if isinstance(value, list) else [value]:
            line += [f"--{name.replace('_', '-')}", *([] if one is True else [one])]
    return command("train", *line, "--output", output, core=core)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Multi30k with synthetic pairs and means of weights.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the multi30k recipe")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/diversified"))
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the minutes of all trainings")
    parser.add_argument("--sentences", type=int, help="translate the first N lines of the training text only")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    data, runs = options.data, options.runs
    runs.mkdir(parents=True, exist_ok=True)
    minutes = {name: options.scale * value for name, value in MINUTES.items()}
    source, target = (training_text(data, runs, side, options.sentences) for side in SIDES)

    first = {
        "batch_size": 64,
        "learning_rate": 1.5e-3,
        "warmup": 800,
        "averaging": 0.999,
        "time_limit": minutes["first"],
    }
    later = {"batch_size": 32, "averaging": 0.9995}
    back, forth = runs / "back", runs / "forth"
    if not (runs / "back.tsv").exists():
        run_together(
            train(data, back, ("de", "en"), 0, **first),
            train(data, forth, ("en", "de"), 1, **first, smallest_learning_rate=1e-3),
        )
        synthesize = ("synthesize", back, "--source", target, "--output", runs / "back.tsv", "--reverse")
        run_together(command(*synthesize, "--batch-size", 128))

    second = {
        **later,
        "start_from": forth,
        "synthetic": runs / "back.tsv",
        "learning_rate": 1e-3,
        "smallest_learning_rate": 5e-4,
        "warmup": 300,
        "time_limit": minutes["second"],
    }
    branches(data, runs, "one", (1, 2), second)
    mean(runs, "one", (1, 2), "mean-1")
    if not (runs / "forth.tsv").exists():
        synthesize = ("synthesize", runs / "mean-1", "--source", source, "--output", runs / "forth.tsv")
        run_together(command(*synthesize, "--batch-size", 128))

    third = {
        **later,
        "start_from": runs / "mean-1",
        "synthetic": [runs / "back.tsv", runs / "forth.tsv"],
        "synthetic_share": 0.6,
        "learning_rate": 5e-4,
        "warmup": 100,
        "time_limit": minutes["third"],
    }
    branches(data, runs, "two", (3, 4), third)
    mean(runs, "two", (3, 4), "mean-2")

    rows = []
    for name in ("forth", "one-1", "one-2", "mean-1", "two-3", "two-4", "mean-2"):
        files = [
            f"--{kind}={data}/val.lc.norm.tok.{side}" for kind, side in zip(("source", "target"), SIDES, strict=True)
        ]
        done = subprocess.run(
            command("evaluate", runs / name, *files, "--beam", 5), stdout=subprocess.PIPE, text=True, check=True
        )
        rows.append({"run": name, "val_bleu": round(json.loads(done.stdout.splitlines()[-1])["bleu"], 2)})
    lines = "\n".join(f"| {row['run']} | {row['val_bleu']:.2f} |" for row in rows)
    report(options, "diversified", f"| run | val, beam 5 |\n|---|---|\n{lines}", rows)
    print(json.dumps({row["run"]: row["val_bleu"] for row in rows}))


def training_text(data: pathlib.Path, runs: pathlib.Path, side: str, count: int | None) -> pathlib.Path:
    """The training text of one side, or a file of its first lines."""
    path = data / f"train.lc.norm.tok.{side}"
    if count is None:
        return path
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    short = runs / f"first-{count}.{side}"
    short.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return short


def branches(
    data: pathlib.Path, runs: pathlib.Path, name: str, seeds: tuple[int, int], options: dict[str, Any]
) -> None:
    """Two trainings side by side that differ in their seeds."""
    run_together(
        *(train(data, runs / f"{name}-{seed}", SIDES, core, seed=seed, **options) for core, seed in enumerate(seeds))
    )


def mean(runs: pathlib.Path, name: str, seeds: tuple[int, int], output: str) -> None:
    if not (runs / output / "config.json").exists():
        run_together(command("average", *(runs / f"{name}-{seed}" for seed in seeds), "--output", runs / output))


if __name__ == "__main__":
    main()
