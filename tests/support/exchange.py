"""Two small saved models, and what they give for fixed inputs on whatever backend Keras runs.

    python -m tests.support.exchange FOLDER FILE.npz

loads the models in FOLDER and writes their outputs; `test_backends.py` starts it on each backend.
"""

from __future__ import annotations

import pathlib
import sys

import keras
import numpy as np
from keras import ops

from keras_attention import AttentionCell, AttentionRNN, BahdanauAttention, EncoderDecoder, Seq2SeqConfig, build_seq2seq

SOURCE = np.array([[4, 9, 7, 5, 2], [8, 4, 2, 0, 0], [2, 0, 0, 0, 0]])
TARGET = np.array([[1, 5, 6, 11], [1, 7, 0, 0], [1, 12, 4, 0]])


def save_models(folder: pathlib.Path) -> None:
    """An encoder-decoder with attention and input feeding, and a functional model around an `AttentionRNN`."""
    config = Seq2SeqConfig(
        11, 13, embedding_size=3, encoder_units=4, decoder_units=5, attention="general", input_feeding=True
    )
    draw_weights(build_seq2seq(config)).save(folder / "seq2seq.keras")
    inputs, memory = keras.Input((None, 3)), keras.Input((None, 7))
    mask = keras.Input((None,), dtype="bool")
    cell = AttentionCell(
        keras.layers.StackedRNNCells([keras.layers.GRUCell(5), keras.layers.LSTMCell(2)]), BahdanauAttention(units=11)
    )
    outputs = AttentionRNN(cell, return_sequences=True)(inputs, memory, mask, return_attention_scores=True)
    draw_weights(keras.Model([inputs, memory, mask], outputs)).save(folder / "rnn.keras")


def draw_weights(model: keras.Model) -> keras.Model:
    """The same on every backend, and large: an untrained model's words are nearly tied."""
    generator = np.random.default_rng(7)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.weights])
    return model


def outputs(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """By name: logits, the hypotheses of a beam search, outputs and weights of the `AttentionRNN`."""
    seq2seq = keras.models.load_model(folder / "seq2seq.keras")
    found = {"logits": seq2seq({"source": SOURCE, "target": TARGET})}
    search = EncoderDecoder(seq2seq).search(SOURCE, beam_size=3, max_length=6)
    found |= {f"search {name}": tensor for name, tensor in search.items()}
    generator = np.random.default_rng(7)
    inputs, memory = (generator.normal(size=(2, *shape)).astype("float32") for shape in ((5, 3), (11, 7)))
    mask = np.arange(11) < np.array([[11], [4]])
    rnn = keras.models.load_model(folder / "rnn.keras")
    found["rnn outputs"], found["rnn weights"] = rnn([inputs, memory, mask])
    return {name: ops.convert_to_numpy(tensor) for name, tensor in found.items()}


if __name__ == "__main__":
    np.savez(sys.argv[2], **outputs(pathlib.Path(sys.argv[1])))
