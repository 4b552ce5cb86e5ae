"""Searches over a model or an ensemble."""

from collections.abc import Mapping
from typing import Any

from keras import ops

from keras_attention.models.id_checks import check_features, check_ids
from keras_attention.search import (
    Constraints,
    SearchResult,
    agreement_search,
    beam_search,
    contrastive_search,
    greedy_search,
    length_limits,
    sample_search,
)
from keras_attention.search.penalties import penalises_coverage
from keras_attention.search_policy import SearchPolicy
from keras_attention.types import PAD_ID, Tensor


class Searching:
    """Searches as a mixin.

    The class has `encode`, `stepper`, `log_probs`, `source_mask`, `representation`, `covers_source`, `source_dtype`,
    `source_features` and `config`.

    All raise `ValueError` for a source that `check_ids` or `check_features` rejects, if its values are known.

    Length limits, the same in all: `max_length`, the maximum number of tokens of a hypothesis, EOS counted; with
    `max_length_factor` also at most that many tokens per source token plus `max_length_offset`. `capacity` is the
    static length L of the buffers; `max_length` if that is an int.
    """

    encode: Any
    stepper: Any
    log_probs: Any
    source_mask: Any
    representation: Any
    covers_source: Any
    source_dtype: Any
    source_features: Any
    config: Any

    def search(
        self,
        source: Tensor,
        beam_size: int = 5,
        max_length: Tensor | int = 100,
        max_length_factor: Tensor | float | None = None,
        max_length_offset: Tensor | int = 10,
        length_penalty: Tensor | float = 1.0,
        coverage_penalty: Tensor | float = 0.0,
        capacity: int | None = None,
        recurrence: str = "layer",
        constraints: Constraints | None = None,
        **options: Any,
    ) -> SearchResult:
        """Translate source ids `(B, S)`: `encode`, then greedy search for a beam of 1, beam search for a wider one.

        Args:
            source: int32, tokens and EOS, right-padded with 0; or features, float32 `(B, S, F)`.
            beam_size: K, the number of hypotheses kept for each row.
            max_length, max_length_factor, max_length_offset, capacity: limits, see above.
            length_penalty: alpha of the length penalty; 0 for plain log-probabilities.
            coverage_penalty: beta of the GNMT coverage penalty, against untranslated source tokens; 0 for none. It
                requires attention.
            recurrence: recurrence of the encoder, `"layer"` or `"loop"`.
            constraints: see `Constraints`.
            **options: further arguments of `beam_search`: `length_penalty_kind`, `groups`, `diversity`, `stop`,
                `finished_first`, `bos_id`.

        Returns:
            The result of `beam_search`.
        """
        if not self.covers_source and penalises_coverage(coverage_penalty):
            raise ValueError(
                "The plain encoder-decoder covers no source. Expected: coverage_penalty=0 with attention='none'. "
                f"Received: {coverage_penalty=}"
            )
        if constraints is not None:
            self._check_constraints(constraints, max_length, capacity)
        source, state, memory, limits = self._begin(
            source, recurrence, max_length, max_length_factor, max_length_offset, capacity
        )
        arguments: dict[str, Any] = {
            **limits,
            "source_length": ops.shape(source)[1],
            "length_penalty": length_penalty,
            "coverage_penalty": coverage_penalty,
            "source_mask": self.source_mask(memory),
            "constraints": constraints,
        }
        if beam_size == 1 and (constraints is None or constraints.phrases is None):
            kind = {name: options[name] for name in ("length_penalty_kind", "bos_id") if name in options}
            return greedy_search(self.stepper(memory), state, memory, **arguments, **kind)
        return beam_search(self.stepper(memory), state, memory, beam_size=beam_size, **arguments, **options)

    def sample(self, source: Tensor, recurrence: str = "layer", **options: Any) -> SearchResult:
        """Sample outputs for source ids `(B, S)`: `sample_search` with its `options`, and the limits above."""
        source, state, memory, options = self._begin_with(source, recurrence, options)
        return sample_search(self.stepper(memory), state, memory, source_length=ops.shape(source)[1], **options)

    def contrast(self, source: Tensor, recurrence: str = "layer", **options: Any) -> SearchResult:
        """Contrastive search for source ids `(B, S)`: `contrastive_search` with its `options`, and the limits above.

        The compared representations are the decoder's states.
        """
        _, state, memory, options = self._begin_with(source, recurrence, options)
        return contrastive_search(self.stepper(memory), state, memory, self.representation, **options)

    def agree(self, source: Tensor, recurrence: str = "layer", **options: Any) -> SearchResult:
        """Agreement search for source ids `(B, S)`: `agreement_search` with its `options`, and the limits above.

        The model must be trained in both directions (`train --backward`).
        """
        source, state, memory, options = self._begin_with(source, recurrence, options)
        return agreement_search(self.stepper(memory), state, memory, source_length=ops.shape(source)[1], **options)

    def score(self, source: Tensor, target: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of given outputs.

        Args:
            source: int32 `(B, S)`, tokens and EOS, right-padded with 0.
            target: int32 `(B, T)`, BOS and tokens.
            labels: int32 `(B, T)`, the tokens and EOS.

        Returns:
            The log-probability of each label, float32 `(B, T)`, 0 at padding, and the alignments `(B, T, S)`.
        """
        self.check_source(source)
        check_ids("target", target, self.config.output_vocabulary)
        check_ids("labels", labels, self.config.output_vocabulary, ends=True)
        log_probs, alignments = self.log_probs(source, target)
        labels = ops.convert_to_tensor(labels, dtype="int32")
        picked = ops.take_along_axis(log_probs, ops.expand_dims(labels, 2), axis=2)[:, :, 0]
        return ops.where(ops.not_equal(labels, PAD_ID), picked, 0.0), alignments

    def check_source(self, source: Tensor) -> None:
        """Raise `ValueError` for a source that this model would misread, see `check_ids`, `check_features`."""
        if self.source_features is not None:
            check_features("source", source, self.source_features)
        else:
            known = self.config.source_vocabulary + (self.config.copy_words or 0)
            check_ids("source", source, known, ends=True)

    def _check_constraints(self, constraints: Constraints, max_length: Any, capacity: int | None) -> None:
        """Raise `ValueError` for ids outside the target vocabulary; each search checks the rest."""
        length = max_length if capacity is None else capacity
        if isinstance(length, int):
            constraints.check(max_length, length, self.config.output_vocabulary)

    def _begin_with(self, source: Tensor, recurrence: str, options: dict[str, Any]) -> Any:
        """Call `_begin` with the limits among the options; the remaining options are merged into its arguments."""
        names = ("max_length", "max_length_factor", "max_length_offset", "capacity")
        given = {name: options[name] for name in names if name in options}
        if options.get("constraints") is not None:
            self._check_constraints(options["constraints"], given.get("max_length", 100), given.get("capacity"))
        source, state, memory, limits = self._begin(source, recurrence, **given)
        return source, state, memory, {**{n: v for n, v in options.items() if n not in names}, **limits}

    def _begin(
        self,
        source: Tensor,
        recurrence: str,
        max_length: Any = 100,
        max_length_factor: Any = None,
        max_length_offset: Any = 10,
        capacity: int | None = None,
    ) -> tuple[Tensor, Any, Any, dict[str, Any]]:
        """Return the source as a tensor, the initial state, the memory, and the limits as arguments of a search."""
        self.check_source(source)
        source = ops.convert_to_tensor(source, dtype=self.source_dtype)
        if capacity is None:
            if not isinstance(max_length, int):
                raise ValueError(f"Expected: capacity, an int, where max_length is a tensor. Received: {capacity=}")
            capacity = max_length
        state, memory = self.encode(source, recurrence, capacity)
        limits: Any = max_length
        if max_length_factor is not None:
            lengths = ops.sum(ops.cast(self.source_mask(memory), "int32"), axis=1)
            limits = length_limits(lengths, max_length, max_length_factor, max_length_offset)
        return source, state, memory, {"max_length": limits, "capacity": capacity}


CONSTRAINTS = ("min_length", "allowed", "prefix", "phrases", "repetition_penalty")
"""Settings of a search that are fields of `Constraints`."""
NUMBERS: dict[str, tuple[str, ...]] = {
    "beam": ("coverage_penalty", "diversity"),
    "sample": ("temperature", "top_p"),
    "contrastive": ("alpha",),
    "agreement": ("backward_weight",),
}
"""Settings of each method that may be tensors, besides those of all methods."""


def run_search(
    policy: SearchPolicy,
    net: Searching,
    source: Tensor,
    values: Mapping[str, Any] | None = None,
    *,
    recurrence: str = "layer",
    samples: int | None = None,
    **more: Any,
) -> SearchResult:
    """Search source ids `(B, S)` by a policy.

    Args:
        policy: settings of the search.
        net: one model or an ensemble.
        source: int32, tokens and EOS, right-padded with 0; or features.
        values: tensors that replace the policy's numbers, by name; `allowed`, `prefix`, `phrases` and `uniforms`.
        recurrence: recurrence of the encoder, `"layer"` or `"loop"`.
        samples: outputs drawn for each row; `policy.beam_size` if `None`.
        **more: `bos_id`.
    """
    names = ("max_length", "length_penalty", "min_length", "repetition_penalty", *NUMBERS[policy.method])
    numbers = {name: getattr(policy, name) for name in names} | dict(values or {})
    if numbers["repetition_penalty"] is None:
        numbers["repetition_penalty"] = 1.0
    rules = {name: numbers.pop(name) for name in CONSTRAINTS if name in numbers}
    options: dict[str, Any] = {
        "capacity": policy.max_length,
        "max_length_factor": policy.max_length_factor,
        "max_length_offset": policy.max_length_offset,
        "length_penalty_kind": policy.length_penalty_kind,
        "constraints": Constraints(no_repeat_ngram=policy.no_repeat_ngram, **rules),
        **numbers,
        **more,
    }
    if policy.method == "sample":
        drawn = {"num_samples": samples or policy.beam_size, "top_k_words": policy.top_k}
        return net.sample(source, recurrence, **drawn, **options)
    if policy.method == "contrastive":
        return net.contrast(source, recurrence, candidates=policy.beam_size, **options)
    if policy.method == "agreement":
        return net.agree(source, recurrence, beam_size=policy.beam_size, **options)
    beam: dict[str, Any] = {"groups": policy.groups, "stop": policy.stop, "finished_first": policy.finished_first}
    return net.search(source, policy.beam_size, recurrence=recurrence, **beam, **options)
