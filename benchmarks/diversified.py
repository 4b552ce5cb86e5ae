"""A translator that also learns from what a model of the other direction made of the training text (back-translation).

    python benchmarks/diversified.py --data DATA --runs runs/diversified --output docs/images/diversified

DATA is the folder of the multi30k recipe. All models are of one form:

1. `back` reads German, `forth` reads English; both are trained side by side, a processor core each.
2. `back` translates the German training text: other English sources for known targets.
3. `final` goes on from `forth`, on real and back-translated pairs, until its learning rate has come down.

Every stage is commands of `keras-attention`, printed as they start; nothing but the training text is used. Killed, the
same command goes on where it was. The runs are scored on `val` at the end; the test set is not read.
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

MINUTES = {"first": 50.0, "final": 80.0}
"""Of the trainings of steps 1 and 3."""
SIDES = ("en", "de")
MODEL = {"embedding_size": 192, "encoder_units": 192, "decoder_units": 384, "tie_embeddings": "all", "dropout": 0.3}
SETTINGS: dict[str, Any] = {
    "set": [f"{name}={value}" for name, value in MODEL.items()],
    "attention": "general",
    "task": "translation",
    "joint": True,
    "vocabulary": 6000,
    "max_length": 60,
    "batch_size": 64,
    "matmul_dtype": "auto",
    "subword_alpha": 0.3,
    "target_subword_alpha": 0.0,
    "label_smoothing": 0.1,
    "validation_sentences": 500,
    "early_stopping_patience": 300,
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


def train(
    data: pathlib.Path, output: pathlib.Path, sides: tuple[str, str], core: int | None, **options: Any
) -> list[str]:
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
    parser = argparse.ArgumentParser(description="Multi30k with back-translated pairs.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the multi30k recipe")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/diversified"))
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the minutes of all trainings")
    parser.add_argument("--sentences", type=int, help="translate the first N lines of the training text only")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    data, runs = options.data, options.runs
    runs.mkdir(parents=True, exist_ok=True)
    minutes = {name: options.scale * value for name, value in MINUTES.items()}
    target = training_text(data, runs, SIDES[1], options.sentences)

    back, forth, final = runs / "back", runs / "forth", runs / "final"
    first = {"learning_rate": 1.5e-3, "warmup": 800, "ema_momentum": 0.999, "time_limit": minutes["first"]}
    if not (runs / "back.tsv").exists():
        run_together(
            train(data, back, ("de", "en"), 0, **first),
            train(data, forth, SIDES, 1, **first, min_learning_rate=1.2e-3),
        )
        synthesize = ("synthesize", back, "--source", target, "--output", runs / "back.tsv", "--reverse")
        run_together(command(*synthesize, "--batch-size", 128))
    last: dict[str, Any] = {
        "start_from": forth,
        "synthetic": runs / "back.tsv",
        "synthetic_share": 0.5,
        "learning_rate": 1.2e-3,
        "warmup": 200,
        "ema_momentum": 0.9995,
        "time_limit": minutes["final"],
    }
    run_together(train(data, final, SIDES, None, **last))

    rows = []
    for name in ("forth", "final"):
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


if __name__ == "__main__":
    main()
