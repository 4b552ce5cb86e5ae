"""Does a pointer-generator copy what its vocabulary lacks? A generated task that cannot be solved without it.

    python benchmarks/copying.py --output runs/copying

Notes such as "tell xelo that banmi comes at 7 pm" become "7 pm : visit of banmi for xelo". Names are made up:
training has 4,000 of them, too rare for the vocabulary of 48 words, and the test has names that training never saw. The
same model is trained with `copy_words` and without, and both read the same 1,000 test notes.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import random
from collections.abc import Sequence
from typing import Any

from keras_attention.training import evaluate, train

FORMS = (
    ("tell {a} that {b} comes at {t} pm", "{t} pm : visit of {b} for {a}"),
    ("{b} comes to see {a} at {t} pm", "{t} pm : visit of {b} for {a}"),
    ("at {t} pm {a} is going to meet {b}", "{t} pm : {a} meets {b}"),
    ("{a} has to call {b} before {t} pm", "until {t} pm : {a} calls {b}"),
    ("{b} waits for a call of {a} , not after {t} pm", "until {t} pm : {a} calls {b}"),
    ("please give the keys of {a} to {b}", "{b} : keys of {a}"),
    ("{a} and {b} are not here", "absent : {a} {b}"),
)
ONSETS = ("b", "d", "f", "gr", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w", "z")
MODEL = {"embedding_size": 48, "encoder_units": 48, "decoder_units": 96, "dropout": 0.1}
WITH = {**MODEL, "copy_words": 4}
SETTINGS: dict[str, Any] = {
    "task": "exact",
    "source_tokenizer": "word",
    "target_tokenizer": "word",
    "joint": True,
    "vocabulary": 48,
    "epochs": 6,
    "learning_rate": 3e-3,
    "schedule": "cosine",
    "ema_momentum": 0.99,
}


def make_names(count: int, generator: random.Random) -> list[str]:
    """Different names of two to four syllables."""
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = generator.randrange(2, 5)
        names["".join(generator.choice(ONSETS) + generator.choice("aeiou") for _ in range(syllables))] = None
    return list(names)


def make_notes(count: int, names: Sequence[str], generator: random.Random) -> list[tuple[str, str]]:
    """Notes and what is to be made of them."""
    notes = []
    for _ in range(count):
        a, b = generator.sample(names, 2)
        note, wanted = generator.choice(FORMS)
        words = {"a": a, "b": b, "t": generator.randrange(1, 12)}
        notes.append((note.format(**words), wanted.format(**words)))
    return notes


def write_task(folder: pathlib.Path, seed: int = 0, training: int = 8000, held_out: int = 1000) -> None:
    """Writes train.tsv, val.tsv and test.tsv; the three share no name."""
    generator = random.Random(seed)
    names = make_names(5000, generator)
    folder.mkdir(parents=True, exist_ok=True)
    parts = (("train", names[:4000], training), ("val", names[4000:4500], 300), ("test", names[4500:], held_out))
    for name, own, count in parts:
        lines = [f"{note}\t{wanted}\n" for note, wanted in make_notes(count, own, generator)]
        (folder / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/copying"))
    parser.add_argument("--epochs", type=int, default=SETTINGS["epochs"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    write_task(options.output)
    for name, model in (("with copying", WITH), ("without", MODEL)):
        run = train(
            options.output / name.replace(" ", "-"),
            tsv=options.output / "train.tsv",
            val_tsv=options.output / "val.tsv",
            model=model,
            **{**SETTINGS, "epochs": options.epochs, "seed": options.seed},
        )
        scores = evaluate(run.path, tsv=options.output / "test.tsv")
        print(json.dumps({"model": name, "exact_match": scores["exact_match"], "sentences": 1000}))


if __name__ == "__main__":
    main()
