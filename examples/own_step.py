"""The searches on a step of your own: a language model of a dozen lines, which is not made of anything of this package.

    python examples/own_step.py

A stock Keras GRU learns which letters follow which in a list of words; `beam_search`, `sample_search` and
`contrastive_search` then write words with it: freely, with a given beginning, and with letters that must be there.
"""

import argparse
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_attention import Constraints, allow_words, beam_search, contrastive_search, sample_search

TEXT = """anchor anemone barnacle beach breaker breeze buoy cape cliff cloud cockle compass coral cove crab crest
current deck dolphin drift dune eel estuary ferry fin foam fog gale gull gust harbour heron hull island jetty
keel kelp knot lagoon lighthouse limpet mast mollusc mooring mussel oar ocean otter oyster pebble pelican pier
plankton porpoise prow reef rudder sail salmon sand scallop seal shallow shell shoal shore shrimp spray squid
starfish storm surf tern tide trawler urchin voyage walrus water wave whale wharf wind yacht"""
WORDS = TEXT.split()
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
LONGEST = 12


def encode(text: str) -> list[int]:
    return [LETTERS.index(letter) for letter in text]


def spell(ids: Any) -> str:
    return "".join(LETTERS[int(index)] for index in ids if index > 3)


class LanguageModel(keras.Model):
    """The next letter from those before: an embedding, a GRU, a projection."""

    def __init__(self, units: int = 64) -> None:
        super().__init__()
        self.embedding = keras.layers.Embedding(len(LETTERS), 16)
        self.cell = keras.layers.GRUCell(units)
        self.gru = keras.layers.RNN(self.cell, return_sequences=True)
        self.output_layer = keras.layers.Dense(len(LETTERS))

    def call(self, letters: Any) -> Any:
        return self.output_layer(self.gru(self.embedding(letters)))

    def step(self, token: Any, state: Any, memory: Any) -> tuple[Any, Any, Any]:
        """What a search wants: log-probabilities `(N, V)`, the new state, an alignment (which means nothing here)."""
        hidden, _ = self.cell(self.embedding(token), [state["h"]])
        return ops.log_softmax(self.output_layer(hidden)), {"h": hidden}, ops.zeros_like(hidden[:, :1])

    def start(self, rows: int) -> dict[str, Any]:
        return {"h": ops.zeros((rows, self.cell.units))}


def train(epochs: int = 60) -> LanguageModel:
    keras.utils.set_random_seed(1)
    rows = np.zeros((len(WORDS), LONGEST + 1), "int32")
    for row, word in zip(rows, WORDS, strict=True):
        row[: len(word) + 2] = [1, *encode(word), 2]
    model = LanguageModel()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(rows[:, :-1], rows[:, 1:], epochs=epochs, batch_size=16, verbose=0)
    return model


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    model = train()
    options: dict[str, Any] = {"max_length": LONGEST, "source_length": 1}

    def show(title: str, found: Any) -> None:
        words = [spell(ids) for ids in ops.convert_to_numpy(found["ids"])[0]]
        print(f"{title:28}{'  '.join(word for word in words if word)}")

    show("likeliest", beam_search(model.step, model.start(1), (), **options))
    beginning = Constraints(prefix=np.array([encode("wh")], "int32"))
    show(
        "beginning with wh", beam_search(model.step, model.start(1), (), beam_size=5, constraints=beginning, **options)
    )
    phrases = Constraints(phrases=np.array([[encode("ll")]], "int32"), min_length=6)
    show("with ll, 5 letters or more", beam_search(model.step, model.start(1), (), constraints=phrases, **options))
    rules = Constraints(allowed=allow_words(len(LETTERS), banned=encode("aeio")))
    show("without a, e, i, o", beam_search(model.step, model.start(1), (), constraints=rules, **options))
    show("far from each other", beam_search(model.step, model.start(1), (), groups=5, diversity=5.0, **options))
    show("drawn", sample_search(model.step, model.start(1), (), num_samples=6, seed=2, top_p=0.9, **options))
    greedy = contrastive_search(model.step, model.start(1), (), lambda state: state["h"], max_length=LONGEST)
    show("contrastive", greedy)


if __name__ == "__main__":
    main()
