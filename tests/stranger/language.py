"""An invented pair of languages with accents, quotes, emoji and numbers, whose right translations are known.

A sentence is a determiner, an adjective, a noun, a verb and an object, with a mark at its end. Its translation puts the
verb last and the adjective behind the noun; each word has one word of the other language, and marks are its own.
"""

import pathlib
import random

WORDS = {
    "determiner": {"the": "la", "no": "neniu", "each": "ĉiu"},
    "adjective": {"blue": "azúr", "naïve": "naïf", "old": "öld", "tiny": "ťin", "“odd”": "«stran»"},
    "noun": {"cat": "kåt", "façade": "fasád", "señor": "sjor", "dog's": "hunds", "café": "kafé", "robot": "рóбот"},
    "verb": {"sees": "vidas", "wants": "volas", "can't find": "ne trovas", "re-reads": "re-legas"},
    "object": {
        "7 seas": "7 marojn",
        "a 😀": "😀 n",
        "déjà vu": "jam viditn",
        "it": "ĝin",
        "漢字": "kanĝin",
        "42 & more": "42 & plin",
    },
}
MARKS = {".": ".", "!": " !", "?": " ?", " …": "…", " 🎉": " 🎉🎉"}


def sentence(generator: random.Random) -> tuple[str, str]:
    """One sentence and its translation."""
    chosen = {kind: generator.choice(list(words.items())) for kind, words in WORDS.items()}
    mark, its = generator.choice(list(MARKS.items()))
    source = " ".join(chosen[kind][0] for kind in ("determiner", "adjective", "noun", "verb", "object"))
    target = " ".join(chosen[kind][1] for kind in ("determiner", "noun", "adjective", "object", "verb"))
    return source + mark, target + its


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Different sentences with their translations."""
    generator, found = random.Random(seed), {}
    while len(found) < count:
        source, target = sentence(generator)
        found[source] = target
    return list(found.items())


def write(folder: pathlib.Path, count: int, test_count: int = 40) -> list[tuple[str, str]]:
    """Write `my.en` and `my.xx` to train on; returns pairs that are not among them."""
    every = pairs(count + test_count, seed=11)
    for number, name in enumerate(("my.en", "my.xx")):
        (folder / name).write_text("".join(f"{pair[number]}\n" for pair in every[:count]), encoding="utf-8")
    return every[count:]
