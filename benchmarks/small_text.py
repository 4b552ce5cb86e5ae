"""Averaged weights against plain ones on little text, with default settings: BLEU on held-out text.

    python benchmarks/small_text.py --runs runs/small-text --output docs/images/small-text

The text is of two invented languages: a lexicon of made-up words, of which some are frequent and most are not; in the
target adjectives follow their nouns, the verb comes last, and noun and verb agree in an ending. Each size is
trained with the defaults and with `--ema-momentum 0`, by several seeds, and scored on 500 other sentences. Started
again, it goes on where it was. `--core N` pins each training to one processor core (Linux).
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tables import add_outputs, report

SEEDS = {300: 3, 3_000: 3, 30_000: 1}
"""Pairs, and trainings of each kind with that many."""
TEST_SENTENCES = 500
NOUNS, VERBS, ADJECTIVES, ADVERBS = 40, 20, 16, 8
SYLLABLES = {
    "source": [f"{a}{b}" for a in "ptkbdgmnls" for b in "aeiou"],
    "target": [f"{a}{b}{c}" for a in ("v", "z", "r", "sh", "f", "h") for b in "aoi" for c in ("", "n", "r")],
}


class Language:
    """The lexicon of both languages, and sentences of them: a pure function of the seed."""

    def __init__(self, seed: int = 0) -> None:
        generator = random.Random(seed)
        count = NOUNS + VERBS + ADJECTIVES + ADVERBS
        words = {side: self._words(generator, syllables, count) for side, syllables in SYLLABLES.items()}
        pairs = list(zip(words["source"], words["target"], strict=True))
        self.nouns, self.verbs = pairs[:NOUNS], pairs[NOUNS : NOUNS + VERBS]
        self.adjectives, self.adverbs = pairs[NOUNS + VERBS : -ADVERBS], pairs[-ADVERBS:]

    @staticmethod
    def _words(generator: random.Random, syllables: Sequence[str], count: int) -> list[str]:
        found: dict[str, None] = {}
        while len(found) < count:
            found["".join(generator.choices(syllables, k=generator.choice((1, 2, 2, 3))))] = None
        return list(found)

    def sentence(self, generator: random.Random) -> tuple[str, str]:
        """A sentence and its translation."""

        def choose(words: Sequence[tuple[str, str]]) -> tuple[str, str]:
            return generator.choices(words, [1.0 / rank for rank in range(1, len(words) + 1)])[0]

        def phrase() -> tuple[list[str], list[str], bool]:
            noun, many = choose(self.nouns), generator.random() < 0.4
            adjectives = [choose(self.adjectives) for _ in range(generator.choice((0, 0, 1, 1, 2)))]
            source = ["ta", *(one for one, _ in adjectives), noun[0] + ("s" if many else "")]
            target = [noun[1] + ("eth" if many else ""), *(other for _, other in adjectives)]
            return source, target, many

        subject, verb, thing = phrase(), choose(self.verbs), phrase()
        source = [*subject[0], verb[0], *thing[0]]
        target = [*subject[1], *thing[1], verb[1] + ("un" if subject[2] else "ak")]
        if generator.random() < 0.4:
            adverb = choose(self.adverbs)
            source, target = [*source, adverb[0]], [adverb[1], *target]
        return " ".join(source), " ".join(target)


def write_text(folder: pathlib.Path, pairs: int) -> tuple[pathlib.Path, pathlib.Path]:
    """Files of training and test pairs; no sentence of the test is among those trained on."""
    language, generator = Language(), random.Random(pairs)
    train = [language.sentence(generator) for _ in range(pairs)]
    known, test = {source for source, _ in train}, []
    while len(test) < TEST_SENTENCES:
        if (pair := language.sentence(generator))[0] not in known:
            test.append(pair)
    paths = folder / f"train-{pairs}.tsv", folder / f"test-{pairs}.tsv"
    folder.mkdir(parents=True, exist_ok=True)
    for path, part in zip(paths, (train, test), strict=True):
        path.write_text("".join(f"{source}\t{target}\n" for source, target in part), encoding="utf-8")
    return paths


def command(name: str, *arguments: object, core: int | None = None) -> str:
    """Output of `keras-attention NAME ...`, run in a process of its own."""
    line = [sys.executable, "-m", "keras_attention.cli", name, *map(str, arguments)]
    if core is not None:
        line = ["taskset", "-c", str(core), *line]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout


def train_and_score(
    runs: pathlib.Path, pairs: int, seed: int, averaging: bool, options: Sequence[str], core: int | None
) -> dict[str, Any]:
    run = runs / f"{pairs}-{'averaged' if averaging else 'plain'}-{seed}"
    kept = run / "score.json"
    if not kept.exists():
        train, test = write_text(runs / "text", pairs)
        choices = [*options, *([] if averaging else ["--ema-momentum=0"])]
        command("train", "--tsv", train, "--output", run, "--seed", seed, *choices, core=core)
        scores = json.loads(command("evaluate", run, "--tsv", test, core=core).splitlines()[-1])
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        row = {"pairs": pairs, "seed": seed, "averaging": averaging, "bleu": round(scores["bleu"], 2)}
        row.update({"epochs": metrics["epochs"], "minutes": metrics["minutes"]})
        kept.write_text(json.dumps(row), encoding="utf-8")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Averaged weights on little text.")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/small-text"))
    parser.add_argument("--pairs", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--seeds", type=int, help="trainings of each kind, in place of three (of 30,000 pairs: one)")
    parser.add_argument("--options", nargs="*", default=[], metavar="OPTION", help="more options of train")
    parser.add_argument("--core", type=int, help="processor core to pin each training to")
    add_outputs(parser)
    options = parser.parse_args(arguments)
    rows = [
        train_and_score(options.runs, pairs, seed, averaging, options.options, options.core)
        for pairs in options.pairs
        for seed in range(1, (options.seeds or SEEDS.get(pairs, 3)) + 1)
        for averaging in (True, False)
    ]
    lines = [
        "| pairs | trainings | averaged | not averaged | difference | epochs | minutes each |",
        "|---|---|---|---|---|---|---|",
    ]
    for pairs in options.pairs:
        kinds = [[row for row in rows if row["pairs"] == pairs and row["averaging"] == kind] for kind in (True, False)]
        means = [statistics.mean(row["bleu"] for row in kind) for kind in kinds]
        epochs, minutes = (round(statistics.mean(row[name] for row in kinds[0]), 1) for name in ("epochs", "minutes"))
        lines.append(
            f"| {pairs:,} | {len(kinds[0])} | {means[0]:.2f} | {means[1]:.2f} | {means[0] - means[1]:+.2f} "
            f"| {epochs:g} | {minutes:g} |"
        )
    report(options, "small text", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
