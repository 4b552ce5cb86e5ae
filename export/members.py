"""Ensemble members as one model, and the runs or models that they come from."""

import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.run_directory import RunDirectory
from keras_attention.translation.translator import Translator


class Members(keras.Model):
    """Several encoder-decoders as one model, for its layers and weights.

    Args:
        models: of `build_seq2seq`, with the same vocabularies.
        combination: see `Ensemble`.

    Raises:
        UserError: if they cannot form an ensemble.
    """

    def __init__(self, models: Sequence[keras.Model], combination: str = "probabilities"):
        super().__init__()
        self.models = list(models)
        try:
            self.ensemble = Ensemble([EncoderDecoder(model) for model in self.models], combination)
        except ValueError as error:
            raise UserError(f"These models make no ensemble. {error}") from None


def open_members(models: Sequence[Any], combination: str) -> tuple[list[Any], Members]:
    """Open several runs or models, and combine them.

    Raises:
        UserError: for a mixture of runs and models, and vocabularies that differ.
    """
    if all(isinstance(one, keras.Model) for one in models):
        return list(models), Members(models, combination)
    if any(isinstance(one, keras.Model) for one in models):
        raise UserError("Expected: run directories, or models. Received: both in one list")
    runs = [one if isinstance(one, RunDirectory) else RunDirectory.open(os.fspath(one)) for one in models]
    return runs, Members(Translator.load(*runs, combination=combination).models, combination)
