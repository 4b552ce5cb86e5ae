"""Words that could be: spellings drawn from a letter model of real words, for a teacher to pronounce.

    python benchmarks/pseudo_words.py --tsv DATA/train.tsv --count 150000 --output words.txt

Each letter is drawn from what follows the last `--order` - 1 letters in the words of the TSV file's first column (their
start and end included), with fewer letters where those were seen in fewer than `--support` places. Real words and
repetitions are left out. With `synthesize --with` an ensemble labels them, and with `train --synthetic` one model
learns from its answers (Sun et al. 2019, "Token-level ensemble distillation for grapheme-to-phoneme conversion", arXiv
1904.03446, with text in place of invented words); with `train --teacher` it learns from its doubts, too.
"""

from __future__ import annotations

import argparse
import collections
import pathlib

import numpy as np

from keras_attention.errors import UserError
from keras_attention.files import write_text
from keras_attention.training.data.pairs import read_tsv

Counts = dict[str, collections.Counter[str]]
START, END = "\t", "\n"
"""No spelling in a TSV file holds them."""


def count_letters(words: list[str], order: int) -> Counts:
    """What follows each context of 0 .. order - 1 letters, and in how many places."""
    counts: Counts = collections.defaultdict(collections.Counter)
    for word in words:
        marked = START * (order - 1) + word + END
        for place in range(order - 1, len(marked)):
            for length in range(order):
                counts[marked[place - length : place]][marked[place]] += 1
    return counts


def draw_words(words: list[str], count: int, order: int, support: int, seed: int, longest: int = 24) -> list[str]:
    """`count` different spellings that are none of the words: a pure function of the arguments."""
    for name, number in (("order", order), ("support", support), ("count", count)):
        if number < 1:
            raise UserError(f"{name} is out of range. Expected 1 or more. Received: {number}")
    counts = count_letters(words, order)
    choices: dict[str, tuple[list[str], np.ndarray]] = {}
    for context, following in counts.items():
        if sum(following.values()) >= support or not context:
            numbers = np.cumsum(list(following.values()))
            choices[context] = list(following), numbers / numbers[-1]
    generator = np.random.default_rng(seed)
    known = set(words)
    found: dict[str, None] = {}
    for _ in range(100 * count):
        if len(found) == count:
            return list(found)
        text = START * (order - 1)
        while not text.endswith(END) and len(text) < longest + order:
            context = text[1 - order :] if order > 1 else ""
            while context not in choices:
                context = context[1:]
            letters, shares = choices[context]
            text += letters[int(np.searchsorted(shares, generator.random(), side="right"))]
        word = text[order - 1 :].removesuffix(END)
        if text.endswith(END) and len(word) > 1 and word not in known:
            found[word] = None
    raise UserError(
        f"Too few new words. Expected {count}. Received: {len(found)}. Lower --order or --count, or raise --support"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Invented spellings like those of real words.")
    parser.add_argument("--tsv", required=True, type=pathlib.Path, help="WORD<TAB>... lines")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="file to write, a word on each line")
    parser.add_argument("--count", type=int, default=150_000)
    parser.add_argument("--order", type=int, default=6, help="letters that are looked at, the drawn one included")
    parser.add_argument("--support", type=int, default=3, help="places that a context must have been seen in")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        words = read_tsv(options.tsv).sources
        drawn = draw_words(words, options.count, options.order, options.support, options.seed)
        write_text(options.output, "".join(f"{word}\n" for word in drawn))
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"wrote {len(drawn)} words to {options.output}")


if __name__ == "__main__":
    main()
