"""What a new training may begin with: the weights of another run, or word vectors in a text file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.lines import read_lines
from keras_attention.run_directory import RunDirectory
from keras_attention.text import Tokenizer

WORD_START = "\u2581"
"""Sentencepiece's mark of a subword that begins a word."""


@dataclasses.dataclass(frozen=True)
class Start:
    """Where first weights come from; everything else is drawn at random.

    Attributes:
        parent: a trained run whose model has the same form, with the same vocabularies.
        source_vectors, target_vectors: text files of one "word number number ..." a line.
    """

    parent: RunDirectory | None = None
    source_vectors: str | pathlib.Path | None = None
    target_vectors: str | pathlib.Path | None = None

    def apply(self, model: keras.Model, run: RunDirectory, say: Callable[[str], None]) -> None:
        """Give `model` these weights. Raises UserError where they do not fit."""
        if self.parent is not None:
            copy_weights(model, self.parent)
        layers = {layer.name: layer for layer in model.layers}
        sides: tuple[tuple[str, Any, Tokenizer], ...] = (
            ("source", self.source_vectors, run.source_tokenizer),
            ("target", self.target_vectors, run.target_tokenizer),
        )
        for side, path, tokenizer in sides:
            if path is not None:
                layer = layers.get("embedding") or layers[f"{side}_embedding"]
                found = set_vectors(layer.embeddings, tokenizer, path)
                say(f"{side} vectors: {found} of {tokenizer.vocabulary_size} tokens are in {path}")


def copy_weights(model: keras.Model, parent: RunDirectory) -> None:
    """Give `model` the weights of a trained run. Raises UserError where their shapes differ."""
    weights = [keras.ops.convert_to_numpy(variable) for variable in parent.load_model().trainable_variables]
    if [tuple(variable.shape) for variable in model.trainable_variables] != [array.shape for array in weights]:
        raise UserError(
            f"{parent.path}: its model has another form, so no training can start from it. "
            f"Expected the fields {parent.metadata['model']}"
        )
    for variable, array in zip(model.trainable_variables, weights, strict=True):
        variable.assign(array)


def set_vectors(table: Any, tokenizer: Tokenizer, path: str | pathlib.Path) -> int:
    """Put the vectors of a file into the rows of an embedding `(V, E)`; returns how many rows were set.

    A subword that begins a word takes the vector of its letters; a token that the file does not hold stays as it was.
    """
    rows: dict[str, int] = {}
    tokens = tokenizer.tokens(range(4, tokenizer.vocabulary_size))
    subwords = any(token.startswith(WORD_START) for token in tokens)
    for index, token in enumerate(tokens, 4):
        if not subwords:
            rows[token] = index
        elif token.startswith(WORD_START) and token != WORD_START:
            rows[token.removeprefix(WORD_START)] = index
    vectors = read_vectors(path, rows, int(table.shape[1]))
    values = np.array(keras.ops.convert_to_numpy(table))
    for word, vector in vectors.items():
        values[rows[word]] = vector
    table.assign(values)
    return len(vectors)


def read_vectors(path: str | pathlib.Path, wanted: Mapping[str, int], size: int) -> dict[str, npt.NDArray[np.float32]]:
    """The vectors of the words wanted, from a text file as word2vec (first line: count and size), GloVe and fastText
    write it. Raises UserError with file and line for a line that does not hold `size` numbers."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for number, line in enumerate(read_lines(path), 1):
        word, *numbers = line.rstrip().split(" ")
        if number == 1 and len(numbers) == 1 and word.isdigit() and numbers[0].isdigit():
            continue
        if word not in wanted:
            continue
        try:
            vector = np.array([float(value) for value in numbers], np.float32)
        except ValueError:
            vector = np.zeros(0, np.float32)
        if vector.shape != (size,) or not np.isfinite(vector).all():
            raise UserError(
                f"{path}:{number}: the vector of {word!r} does not fit. Expected {size} numbers, which is the model's "
                f"embedding_size (--set embedding_size=…). Received: {len(numbers)} fields"
            )
        found.setdefault(word, vector)
    return found
