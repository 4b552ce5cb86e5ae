"""Translator from text to ranked hypotheses, loaded from a run directory."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.pointer_generator import CopiedWords, TextIds, of_text
from keras_attention.ranges import check_ranges
from keras_attention.run_directory import RunDirectory, require_same_words
from keras_attention.search.ensemble_step import COMBINATIONS
from keras_attention.search.penalties import length_penalty_factor
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.padding import length_batches, pad_phrases, pad_rows
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.translation.compiled import (
    ScoreModel,
    SearchModel,
    check_process,
    why_empty,
    why_nothing,
)
from keras_attention.translation.hypothesis import Hypothesis, Score, read_hypotheses, turn
from keras_attention.translation.text_constraints import TextConstraints, check_room
from keras_attention.types import BACKWARD_ID, BOS_ID, EOS_ID

PADDING_MULTIPLE = 8
KEPT_SEARCHES = 8
"""Number of compiled searches that a translator caches, least recently used first out."""


class Translator:
    """Translate texts with a model, or an ensemble, and their tokenizers.

    Example: `Translator.load("runs/dates").translate(["Sunday, 22 Nov. 2026"])[0][0].text`.

    Args:
        model: of `build_seq2seq`, or loaded from a file; or a list of such models with the same vocabularies.
        source_tokenizer, target_tokenizer: see `keras_attention.text`.
        max_source_length: maximum number of source tokens (EOS excluded); the limit of training.
        combination: how an ensemble's predictions are averaged, as `"probabilities"` or `"logits"`.
    """

    def __init__(
        self,
        model: keras.Model | Sequence[keras.Model],
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        max_source_length: int | None = None,
        combination: str = "probabilities",
    ) -> None:
        if combination not in COMBINATIONS:
            raise UserError(f"Unknown combination. Expected one of {', '.join(COMBINATIONS)}. Received: {combination}")
        self.models = [model] if isinstance(model, keras.Model) else list(model)
        self.model = self.models[0]
        self.source_tokenizer = source_tokenizer
        self.target_tokenizer = target_tokenizer
        self.max_source_length = max_source_length
        self.combination = combination
        self.copy_words: int | None = EncoderDecoder(self.model).config.copy_words
        self.writes_backward: bool | None = None
        self._searches: dict[tuple[Any, ...], SearchModel] = {}
        self._process = os.getpid()
        self._scores: ScoreModel | None = None

    @classmethod
    def load(
        cls,
        path: str | pathlib.Path | RunDirectory,
        *more: str | pathlib.Path | RunDirectory,
        combination: str = "probabilities",
    ) -> Translator:
        """Load the translator of a run directory, or of several as an ensemble.

        Raises UserError for one that is missing or damaged, and for runs whose vocabularies differ.
        """
        runs = [one if isinstance(one, RunDirectory) else RunDirectory.open(one) for one in (path, *more)]
        first = runs[0]
        require_same_words(runs)
        limits = [run.max_source_length for run in runs if run.max_source_length is not None]
        models, limit = [run.load_model() for run in runs], min(limits, default=None)
        translator = cls(models, first.source_tokenizer, first.target_tokenizer, limit, combination)
        translator.writes_backward = all(run.writes_backward for run in runs)
        return translator

    @property
    def has_attention(self) -> bool:
        """Whether all models have attention; a plain encoder-decoder's alignments are zero."""
        return all(EncoderDecoder(model).config.attention != "none" for model in self.models)

    def is_empty(self, text: str) -> bool:
        """Return whether a text has no tokens: blanks, or characters that the tokenizer drops, as a lone U+200B."""
        return why_empty(text, self.source_tokenizer) is not None

    def problem(self, text: str, unknown_is_one: bool = True) -> str | None:
        """Return why `text` cannot be translated faithfully, and the remedy; None if it can."""
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "a lone surrogate, which is no text. Expected UTF-8"
        if empty := why_empty(text, self.source_tokenizer):
            return empty
        if self.copy_words is not None and len(words := CopiedWords(self.source_tokenizer, text, 0).found) > (
            self.copy_words
        ):
            return (
                f"{len(words)} words are outside the vocabulary. Expected at most {self.copy_words}, as many as this "
                "model can copy"
            )
        unknown = self.source_tokenizer.unknown(text) if unknown_is_one and self.copy_words is None else []
        if unknown:
            part = unknown[0]
            name = f"character {part!r} (U+{ord(part):04X})" if len(part) == 1 else f"word {part!r}"
            return f"{name} was never seen in training. Expected only what the training text holds"
        length = len(self.source_tokenizer.encode(text))
        if self.max_source_length is not None and length > self.max_source_length:
            return (
                f"{length} tokens. Expected at most {self.max_source_length}, the limit of training. Split the sentence"
            )
        return None

    def translate(
        self,
        texts: Sequence[str],
        *,
        n_best: int = 1,
        policy: SearchPolicy | None = None,
        constraints: TextConstraints | None = None,
        backward: bool = False,
        replace_unknown: bool | Mapping[str, str] = False,
        batch_size: int = 32,
        on_batch: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> list[list[Hypothesis]]:
        """Return the `n_best` hypotheses of each text, best first; batches are made of texts of similar length.

        Args:
            texts: non-empty strings; one longer than `max_source_length` is truncated, unknown characters become
                `<unk>`.
            n_best: at most the beam; of method `"sample"` the number of outputs drawn, in the order of the draws.
            policy: settings of the search; the default ones if `None`.
            constraints: prefixes, required phrases and banned tokens.
            backward: generate right-to-left, for a model trained with a share of reversed targets.
            replace_unknown: whether to replace a `<unk>` in the output by its most attended source word; a dictionary
                translates that word.
            batch_size: texts per batch.
            on_batch: called with the number of texts just finished, for a progress bar.
            **settings: fields of `SearchPolicy` that replace those of `policy`: `beam_size=1`.

        Raises:
            TypeError: for an unknown setting of `SearchPolicy`.
            UserError: for an empty text, numbers out of range, constraints that cannot be met, and a model whose
                probabilities are NaN.
        """
        check_process(self._process)
        policy = SearchPolicy.of(policy, **settings)
        constraints = constraints or TextConstraints()
        check_ranges(n_best=n_best, batch_size=batch_size)
        self._check(policy, constraints, n_best, backward, replace_unknown is not False)
        readers, rows = self._encode(texts)
        writers = [writer for _, writer in readers]
        prefixes, phrases = constraints.prefix_ids(writers), constraints.phrase_ids(writers)
        banned = constraints.banned_ids(self.target_tokenizer)
        if both := {*banned} & {index for row in phrases for phrase in row for index in phrase}:
            [token] = self.target_tokenizer.tokens([min(both)])
            raise UserError(f"{token!r} is banned, and part of a phrase that must be there. Expected one or the other")
        check_room(texts, rows, prefixes, phrases, policy)
        wanted = pad_phrases(phrases) if any(phrases) else None
        drawn = policy.method == "sample"
        search = self._search(
            policy=dataclasses.replace(policy, seed=None),
            banned=banned,
            phrase_shape=None if wanted is None else wanted.shape[1:],
            samples=n_best if drawn else None,
            bos_id=BACKWARD_ID if backward else None,
        )
        uniforms = None
        if drawn:
            uniforms = np.random.default_rng(policy.seed).random((len(rows), n_best, policy.max_length), np.float32)
        results: list[list[Hypothesis]] = [[] for _ in rows]
        for indices in length_batches(rows, batch_size):
            inputs: dict[str, Any] = {"source": pad_rows([rows[i] for i in indices], PADDING_MULTIPLE)}
            if any(prefixes[i] for i in indices):
                inputs["prefix"] = pad_rows([prefixes[i] for i in indices])
            if wanted is not None:
                inputs["phrases"] = wanted[indices]
            if uniforms is not None:
                inputs["uniforms"] = uniforms[indices]
            found = search.predict_on_batch(inputs)
            for position, index in enumerate(indices):
                results[index] = read_hypotheses(
                    found,
                    position,
                    n_best,
                    readers[index],
                    texts[index],
                    rows[index],
                    replace_unknown,
                    backward,
                )
                if not results[index]:
                    raise UserError(why_nothing(search, inputs["source"], texts[index]))
            if on_batch is not None:
                on_batch(len(indices))
        return results

    def score(
        self,
        texts: Sequence[str],
        outputs: Sequence[str],
        length_penalty: float = 0.0,
        batch_size: int = 32,
        *,
        length_penalty_kind: str = "gnmt",
        backward: bool = False,
    ) -> list[Score]:
        """Score given outputs of texts, as a search that found them would, without a search.

        Args:
            texts: non-empty strings.
            outputs: one for each text; an empty one is only EOS.
            length_penalty, length_penalty_kind: alpha of the length penalty, `"gnmt"` or `"average"`.
            batch_size: texts per batch.
            backward: score the output right-to-left.

        Raises:
            UserError: for an empty text, and a wrong number of outputs.
        """
        check_process(self._process)
        check_ranges(length_penalty=length_penalty, batch_size=batch_size)
        if len(texts) != len(outputs):
            raise UserError(f"Expected an output for each of {len(texts)} texts. Received: {len(outputs)}")
        readers, rows = self._encode(texts)
        targets = [writer.encode(output) for (_, writer), output in zip(readers, outputs, strict=True)]
        if backward:
            self._check_backward()
            targets = [row[::-1] for row in targets]
        first = BACKWARD_ID if backward else BOS_ID
        if self._scores is None:
            self._scores = ScoreModel(self.models, self.combination)
        results: list[Any] = [None] * len(rows)
        for indices in length_batches(targets, batch_size):
            inputs = {
                "source": pad_rows([rows[i] for i in indices], PADDING_MULTIPLE),
                "target": pad_rows([[first, *targets[i]] for i in indices], PADDING_MULTIPLE),
                "labels": pad_rows([[*targets[i], EOS_ID] for i in indices], PADDING_MULTIPLE),
            }
            found, alignments = self._scores.predict_on_batch(inputs)
            for position, index in enumerate(indices):
                ids = [*targets[index], EOS_ID]
                log_probs = np.asarray(found[position, : len(ids)], np.float32)
                alignment = np.asarray(alignments[position, : len(ids), : len(rows[index])], np.float32)
                if backward:
                    ids, log_probs, alignment = turn(ids), turn(log_probs), turn(alignment)
                total = float(log_probs.sum(dtype=np.float64))
                penalty = float(length_penalty_factor(len(ids), length_penalty, length_penalty_kind))
                results[index] = Score(total / penalty, total, readers[index][1].tokens(ids), log_probs, alignment)
        return results

    def _check(
        self, policy: SearchPolicy, constraints: TextConstraints, n_best: int, backward: bool, replacing: bool
    ) -> None:
        """Raise UserError for a policy, or options, that this model does not support."""
        most = n_best if policy.method == "sample" else policy.hypotheses
        if n_best > most:
            raise UserError(f"n_best is out of range. Expected at most {most}, the beam. Received: {n_best}")
        if not self.has_attention and (policy.coverage_penalty or replacing):
            raise UserError(
                "This model has no attention, so that nothing tells which words of the source are translated. Expected "
                "no coverage penalty, and unknown words left as they are"
            )
        agreement = policy.method == "agreement"
        if backward or agreement:
            self._check_backward()
            if constraints.phrases or any(constraints.prefixes):
                raise UserError(
                    "What an output begins with, or must hold, is for the forward direction alone. Expected neither a "
                    "prefix nor phrases with another one"
                )
        if backward and agreement:
            raise UserError("Agreement generates in both directions. Expected no single direction with it")
        if constraints.phrases and policy.method != "beam":
            raise UserError(f"Phrases that must be in the output need a beam. Received: method {policy.method!r}")

    def _check_backward(self) -> None:
        """Raise UserError if this model was not trained right-to-left."""
        if self.writes_backward is False:
            raise UserError(
                "This model was trained to write in one direction. Expected one that learnt some targets backwards: "
                "train --backward 0.5"
            )

    def _encode(self, texts: Sequence[str]) -> tuple[list[tuple[TextIds, TextIds]], list[list[int]]]:
        """Return the tokenizers of each text and its ids with EOS. Raises UserError for an empty text."""
        tokenizers = self.source_tokenizer, self.target_tokenizer
        readers = [of_text(tokenizers, text, self.copy_words) for text in texts]
        rows = [
            [*words.encode(text)[: self.max_source_length], EOS_ID]
            for (words, _), text in zip(readers, texts, strict=True)
        ]
        for number, row in enumerate(rows, 1):
            if len(row) == 1:
                raise UserError(f"Text {number} is empty. Expected a sentence. Received: {texts[number - 1]!r}")
        return readers, rows

    def _search(self, **options: Any) -> SearchModel:
        key = tuple(sorted(options.items()))
        search = self._searches.pop(key, None) or SearchModel(self.models, self.combination, **options)
        self._searches[key] = search  # moved to the end: most recently used
        for oldest in list(self._searches)[:-KEPT_SEARCHES]:  # a copy: other threads may add theirs
            self._searches.pop(oldest, None)
        return search
