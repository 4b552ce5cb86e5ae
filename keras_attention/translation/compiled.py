"""Compiled search of a translator, and batching of ids by length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.models.searching import run_search
from keras_attention.search import allow_words
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.types import BOS_ID, Tensor


def check_process(process: int) -> None:
    """Raise RuntimeError in a fork of `process`: the backend's threads do not survive it, and a search would hang."""
    if process != os.getpid():
        raise RuntimeError(
            "A Translator does not work in a forked process. Expected: one that is loaded in the process that uses it, "
            f"as with multiprocessing's 'spawn'. Received: one of process {process}"
        )


def why_empty(text: str, tokenizer: Tokenizer) -> str | None:
    """Return why a text is empty, and the expected input; None for a text with tokens."""
    if not text.strip():
        return "empty line. Expected a sentence"
    if not tokenizer.encode(text):  # characters that the tokenizer drops, such as a lone U+200B
        return "nothing that is seen: no token is left of it. Expected a sentence"
    return None


class SearchModel(keras.Model):
    """Search from ids to result arrays, compiled by Keras on every backend.

    Called with a dict of `source` `(B, S)` and, optionally, `prefix` `(B, P)`, `phrases` `(B, C, N)` and `uniforms`.

    Args:
        models: one or several of `build_seq2seq`, several as an ensemble; their weights may change between calls.
        combination: of an ensemble, see `ensemble_step`.
        policy: settings of the search.
        banned: ids that are never generated.
        phrase_shape: static C and N of the phrases; `None` for no phrases.
        samples: number of samples per row, for method `"sample"`.
        bos_id: first token: the direction of generation.
    """

    def __init__(
        self,
        models: keras.Model | Sequence[keras.Model],
        combination: str = "probabilities",
        policy: SearchPolicy | None = None,
        banned: Sequence[int] = (),
        phrase_shape: tuple[int, int] | None = None,
        samples: int | None = None,
        bos_id: int | None = None,
    ) -> None:
        super().__init__()
        self.inner = [models] if isinstance(models, keras.Model) else list(models)
        self.net = as_one(self.inner, combination)
        self.policy = policy or SearchPolicy()
        self.banned = list(banned)
        self.phrase_shape = phrase_shape
        self.samples = samples
        self.options: dict[str, Any] = {} if bos_id is None else {"bos_id": bos_id}
        # XLA would recompile for each shape; TensorFlow's graphs take any shape, and JAX requires XLA.
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        values: dict[str, Any] = {name: inputs[name] for name in ("prefix", "uniforms") if name in inputs}
        if self.banned:
            values["allowed"] = allow_words(self.net.config.output_vocabulary, banned=self.banned)
        if self.phrase_shape is not None:
            values["phrases"] = ops.reshape(inputs["phrases"], (-1, *self.phrase_shape))
        return dict(run_search(self.policy, self.net, inputs["source"], values, samples=self.samples, **self.options))


class ScoreModel(keras.Model):
    """Scores from a dict of `source`, `target` and `labels`, as `Searching.score` returns them, compiled by Keras."""

    def __init__(self, models: Sequence[keras.Model], combination: str = "probabilities") -> None:
        super().__init__()
        self.inner = list(models)
        self.net = as_one(self.inner, combination)
        self.compile(jit_compile=keras.backend.backend() == "jax")

    def call(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.net.score(inputs["source"], inputs["target"], inputs["labels"])  # type: ignore[no-any-return]


def as_one(models: Sequence[keras.Model], combination: str = "probabilities") -> Any:
    """Return the searches of one model, or of an ensemble of several."""
    members = [EncoderDecoder(model) for model in models]
    return members[0] if len(members) == 1 else Ensemble(members, combination)


def why_nothing(search: SearchModel, source: npt.NDArray[np.int32], text: str) -> str:
    """Return the message for a text without an output."""
    state, memory = search.net.encode(source)
    log_probs, _, _ = search.net.step(np.full(len(source), BOS_ID, np.int32), state, memory)
    if np.isnan(ops.convert_to_numpy(log_probs)).any():
        return "The model's probabilities are no numbers (NaN): its weights are damaged. Expected a trained model"
    return f"{text!r}: no output is as asked for. Expected fewer constraints, a wider beam or a greater length"
