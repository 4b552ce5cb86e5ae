"""Initial weights of a training: the weights of another run, or word vectors in a text file."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.text.lines import read_lines
from keras_attention.text.tokenizers import Tokenizer

NOT_OF_THE_FORM = (
    *("dropout", "word_dropout", "weight_dropout", "attention_dropout", "variational_dropout"),
    *("sigmoid_noise", "score_bias_init"),
)
"""Fields of a config in which models may differ and yet mean the same by their weights."""
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
            copy_weights(model, run, self.parent)
        layers = {layer.name: layer for layer in model.layers}
        size = run.config.embedding_size**-0.5 if run.config.scale_embeddings else None
        sides: tuple[tuple[str, Any, Tokenizer], ...] = (
            ("source", self.source_vectors, run.source_tokenizer),
            ("target", self.target_vectors, run.target_tokenizer),
        )
        for side, path, tokenizer in sides:
            if path is not None:
                layer = layers.get("embedding") or layers[f"{side}_embedding"]
                found = set_vectors(layer.embeddings, tokenizer, path, size)
                say(f"{side} vectors: {found} of {tokenizer.vocabulary_size} tokens are in {path}")


def form_of(run: RunDirectory) -> dict[str, object]:
    """The fields of a run's config that say what its weights mean."""
    return {name: value for name, value in run.config.to_dict().items() if name not in NOT_OF_THE_FORM}


def copy_weights(model: keras.Model, run: RunDirectory, parent: RunDirectory) -> None:
    """Give `model`, that of `run`, the weights of a trained run. Raises UserError where these mean something else."""
    own, other = form_of(run), form_of(parent)
    differing = {name: value for name, value in other.items() if own[name] != value and name != "shortlist"}
    weights = [keras.ops.convert_to_numpy(variable) for variable in parent.load_model().trainable_variables]
    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    if differing or shapes != [array.shape for array in weights]:
        raise UserError(
            f"{parent.path}: its model has another form, so no training can start from it. "
            f"Expected the fields {differing or parent.metadata['model']}. "
            f"Received: { {name: own[name] for name in differing} }"
        )
    for variable, array in zip(model.trainable_variables, weights, strict=True):
        variable.assign(array)


def set_vectors(table: Any, tokenizer: Tokenizer, path: str | pathlib.Path, size: float | None = None) -> int:
    """Put the vectors of a file into the rows of an embedding `(V, E)`; returns how many rows were set.

    A subword that begins a word takes the vector of its letters; a token that the file does not hold stays as it was.
    With a `size` one factor brings the root mean square of all that are put in to it: a model that adds positions to
    words wants these of a size that it knows, and files differ by a factor of ten.
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
    if size is not None and vectors:
        mean_square = np.mean([np.mean(vector.astype("float64") ** 2) for vector in vectors.values()])
        factor = np.float32(size / np.sqrt(mean_square)) if mean_square else np.float32(1.0)
        vectors = {word: factor * vector for word, vector in vectors.items()}
    for word, vector in vectors.items():
        values[rows[word]] = vector
    table.assign(values)
    return len(vectors)


def read_vectors(path: str | pathlib.Path, wanted: Mapping[str, int], size: int) -> dict[str, npt.NDArray[np.float32]]:
    """Read the vectors of the wanted words in a text file of word2vec, GloVe or fastText.

    The first line of word2vec is count and size. Raises UserError with file and line where a line
    does not hold `size` numbers.
    """
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
