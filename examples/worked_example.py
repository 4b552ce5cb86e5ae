"""The worked example of docs/worked-example.md: its numbers, then a model small enough to learn its two phrases.

    python examples/worked_example.py --output docs/images/worked-example.png

Luong attention by hand on two encoder states; then `build_seq2seq` trained on "Let's go" -> "Vamos", "to go" -> "ir",
translated by the beam search, and drawn.
"""

import argparse
import pathlib
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np

from keras_attention import EncoderDecoder, LuongAttention, Seq2SeqConfig, build_seq2seq

ENCODER_OUTPUTS = np.array([[-0.76, 0.75], [0.01, -0.01]], "float32")  # "Let's", "go"
DECODER_OUTPUT = np.array([0.91, 0.38], "float32")  # the decoder's output for the token that starts the translation

PHRASES = {"Let's go": "Vamos", "to go": "ir"}
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
SOURCE_WORDS = [*SPECIAL, "Let's", "to", "go"]
TARGET_WORDS = [*SPECIAL, "ir", "Vamos", "y"]


def by_hand(score: str) -> tuple[np.ndarray, np.ndarray]:
    """The weights `(2,)` that the decoder's first step gives to "Let's" and "go", and the context `(2,)`."""
    attention = LuongAttention(score=score)
    context, weights = attention(DECODER_OUTPUT[None, None], ENCODER_OUTPUTS[None], return_attention_scores=True)
    return keras.ops.convert_to_numpy(weights)[0, 0], keras.ops.convert_to_numpy(context)[0, 0]


def encode(text: str, words: list[str]) -> list[int]:
    return [words.index(word) for word in text.split()]


def train(epochs: int = 80) -> EncoderDecoder:
    """A model of a few thousand weights that knows the two phrases by heart."""
    source = np.array([[*encode(text, SOURCE_WORDS), 2] for text in PHRASES], "int32")
    words = [encode(text, TARGET_WORDS) for text in PHRASES.values()]
    target = np.array([[1, *ids] for ids in words], "int32")
    labels = np.array([[*ids, 2] for ids in words], "int32")
    config = Seq2SeqConfig(
        source_vocabulary=len(SOURCE_WORDS),
        target_vocabulary=len(TARGET_WORDS),
        embedding_size=8,
        encoder_units=16,
        decoder_units=16,
        bidirectional=False,  # so that a state knows its own word and those before it, no later one
        attention="general",
        bridge_input="final",
    )
    keras.utils.set_random_seed(3)
    model = build_seq2seq(config)
    model.compile(
        optimizer=keras.optimizers.Adam(0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    )
    model.fit({"source": source, "target": target}, labels, epochs=epochs, verbose=0)
    return EncoderDecoder(model)


def translate(net: EncoderDecoder, text: str) -> tuple[list[str], np.ndarray]:
    """The words of the best hypothesis, EOS included, and their attention weights `(words, source words + EOS)`."""
    source = np.array([[*encode(text, SOURCE_WORDS), 2]], "int32")
    found: dict[str, Any] = {
        name: keras.ops.convert_to_numpy(value) for name, value in net.search(source, beam_size=3, max_length=5).items()
    }
    length = found["lengths"][0, 0]
    return [TARGET_WORDS[i] for i in found["ids"][0, 0, :length]], found["alignments"][0, 0, :length]


def draw(net: EncoderDecoder, path: pathlib.Path) -> None:
    """One heat map a phrase: rows are the words written, columns the words read."""
    figure, axes = plt.subplots(1, len(PHRASES), figsize=(7.5, 2.8), layout="constrained")
    for axis, phrase in zip(axes, PHRASES, strict=True):
        words, weights = translate(net, phrase)
        image = axis.imshow(weights, vmin=0, vmax=1, cmap="Blues")
        axis.set_xticks(range(weights.shape[1]), [*phrase.split(), "</s>"])
        axis.set_yticks(range(len(words)), words)
        axis.xaxis.tick_top()
        for (row, column), weight in np.ndenumerate(weights):
            axis.text(
                column, row, f"{weight:.2f}", ha="center", va="center", color="white" if weight > 0.5 else "black"
            )
    figure.colorbar(image, ax=axes, label="attention weight", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="The worked example of docs/worked-example.md.")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/worked-example.png"))
    path = parser.parse_args().output
    weights, context = by_hand("dot")
    print(
        f"""attention of the first step: "Let's" {weights[0]:.2f}, "go" {weights[1]:.2f}; context {context.round(3)}"""
    )
    net = train()
    for phrase in PHRASES:
        words, _ = translate(net, phrase)
        print(f"{phrase} -> {' '.join(words)}")
    draw(net, path)
    print(f"heat map: {path}")


if __name__ == "__main__":
    main()
