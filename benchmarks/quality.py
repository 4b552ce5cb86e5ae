"""Scores of finished runs on a test set, with what they took and with published figures: the tables of docs/results/.

    python benchmarks/quality.py --task translation --source test.en --target test.de --into docs/results/multi30k.md \
        "recipe multi30k=runs/multi30k" "no attention=runs/multi30k-none"
    python benchmarks/quality.py --task g2p --tsv dev.tsv --into docs/results/g2p.md "recipe g2p=runs/g2p"

Several runs with the same label are seeds of one recipe: their scores become a mean and a spread.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

from tables import add_outputs, report

PUBLISHED = {
    "translation": [
        ("recurrent, attention, one model (LIUM-CVC, Caglayan et al. 2017)", "4.6 M", "39.00"),
        ("the same, ensemble of five", "", "40.7"),
        ("Transformer-Tiny (Wu et al. 2021)", "", "41.02"),
    ],
    "g2p": [
        ("recurrent, attention, one model (Toshniwal and Livescu 2016), its own test set", "", "21.69"),
        ("the same, ensemble of five, its own test set", "", "20.24"),
    ],
}
SCORES = {"translation": "bleu", "g2p": "wer"}


def describe(run: pathlib.Path) -> dict[str, Any]:
    """Weights, minutes, epochs and the best validation score of a run."""
    from keras_attention.run_directory import RunDirectory

    opened = RunDirectory.open(run)
    # A mean of runs was not trained itself: what the first of them took stands for it.
    trained = [run, *map(pathlib.Path, opened.metadata["training"].get("mean_of", []))]
    path = next(one / "metrics.json" for one in trained if (one / "metrics.json").exists())
    metrics = json.loads(path.read_text(encoding="utf-8"))
    return {
        "weights": opened.load_model().count_params(),
        "minutes": metrics["minutes"],
        "epochs": metrics["epochs"],
        "seed": opened.metadata["training"]["settings"]["seed"],
    }


def main(arguments: list[str] | None = None, evaluate: Callable[..., dict[str, Any]] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scores of runs, beside published ones.")
    parser.add_argument("runs", nargs="+", metavar="LABEL=RUN")
    parser.add_argument("--task", choices=sorted(SCORES), default="translation")
    parser.add_argument("--source")
    parser.add_argument("--target")
    parser.add_argument("--tsv")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--coverage-penalty", type=float, default=0.0)
    parser.add_argument("--agreement", type=float, help="weight of the backward direction, of runs that have one")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    if evaluate is None:
        from keras_attention.training import evaluate as score_run

        evaluate = score_run
    name, rows = SCORES[options.task], []
    for argument in options.runs:
        label, _, folder = argument.rpartition("=")
        scores = evaluate(
            folder,
            task=options.task,
            source=options.source,
            target=options.target,
            tsv=options.tsv,
            beam_size=options.beam,
            length_penalty=options.length_penalty,
            coverage_penalty=options.coverage_penalty,
            **({} if options.agreement is None else {"method": "agreement", "backward_weight": options.agreement}),
        )
        rows.append({"label": label or folder, **describe(pathlib.Path(folder)), name: scores[name]})
    both = "" if options.agreement is None else ", both directions"
    lines = [f"| | weights | training | {name.upper()}, beam {options.beam}{both} |", "|---|---|---|---|"]
    lines += [f"| {label} | {weights} | | {score} |" for label, weights, score in PUBLISHED[options.task]]
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        values = [row[name] for row in own]
        spread = f" ± {statistics.stdev(values):.2f} ({len(values)} seeds)" if len(values) > 1 else ""
        training = f"{own[0]['minutes']:.0f} minutes, {own[0]['epochs']} epochs"
        weights = f"{own[0]['weights'] / 1e6:.2f} M"
        lines.append(f"| {label} | {weights} | {training} | **{statistics.mean(values):.2f}**{spread} |")
    report(options, f"quality {options.task}", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
