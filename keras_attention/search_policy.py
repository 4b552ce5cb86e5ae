"""Every setting of a search, declared once.

It stands outside of `keras_attention.search`, whose import loads Keras: the command line reads it for its help.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_attention.errors import UserError, unknown_names
from keras_attention.options import check_options, option

METHODS = ("beam", "sample", "contrastive", "agreement")
LENGTH_PENALTIES = ("gnmt", "average")
STOPS = ("all", "best")
SEARCH, SAMPLING, CONSTRAINTS = "Search", "Sampling", "Constraints"
OWN = {
    "coverage_penalty": "beam",
    "finished_first": "beam",
    "stop": "beam",
    "groups": "beam",
    "phrases": "beam",
    "temperature": "sample",
    "top_k": "sample",
    "top_p": "sample",
    "seed": "sample",
    "alpha": "contrastive",
    "backward_weight": "agreement",
}
"""Settings that apply to one method only."""


@dataclasses.dataclass(frozen=True)
class SearchPolicy:
    """Settings of a search.

    An export fixes what changes shapes or the graph: `method`, `beam_size`, `max_length`, `max_length_factor`,
    `max_length_offset`, `length_penalty_kind`, `finished_first`, `stop`, `groups`, `top_k`, `no_repeat_ngram`,
    `phrases`. The others become inputs of the artefact, and their values the defaults.

    Args:
        method: `"beam"`; `"sample"`, which draws outputs; `"contrastive"` search; `"agreement"`, a beam in each
            direction, ranked by both.
        beam_size: hypotheses of a beam; 1 is greedy search. Candidates of contrastive search.
        max_length: most tokens of an output, EOS counted.
        max_length_factor, max_length_offset: an output is also cut at `factor * source tokens + offset` tokens;
        `None`: only at `max_length`.
        length_penalty: exponent alpha of the length penalty; 0: none.
        length_penalty_kind: `"gnmt"` (Wu et al. 2016, equation 14), or `"average"`, the length to the power of alpha.
        coverage_penalty: beta of the coverage penalty (Wu et al. 2016, equation 15); 0: none.
        finished_first: rank outputs that ended before those that the maximum length cut.
        stop: `"all"` searches until no hypothesis can improve the beam, `"best"` until none can improve its best.
        groups: groups of a diverse beam (Vijayakumar et al. 2018); they divide `beam_size`.
        diversity: weight against tokens of other groups.
        alpha: weight of degeneration in contrastive search (Su et al. 2022), 0 to 1.
        backward_weight: weight of the backward direction in agreement search, 0 to 1.
        temperature: of samples; below 1, likely tokens are drawn more often.
        top_k: samples are drawn from so many tokens; `None`: from all.
        top_p: samples are drawn from the likeliest tokens that hold this probability (Holtzman et al. 2020).
        seed: of samples; `None`: another one each time.
        min_length: fewest tokens of an output, EOS counted.
        no_repeat_ngram: block repeated n-grams of this size; 0: none.
        repetition_penalty: above 1, tokens generated before are less likely (Keskar et al. 2019). `None`: none, and
            no such input of an artefact.
        phrases: of an artefact, room for required phrases of each row: how many, and tokens of each.

    Raises:
        UserError: for a value out of range, an unknown choice, or a setting of another method.
    """

    method: str = option("beam", "beam, sample, contrastive, or agreement.", choices=METHODS, panel=SEARCH)
    beam_size: int = option(5, "Hypotheses of a beam; 1 is greedy.", flag="--beam", panel=SEARCH)
    length_penalty: float = option(1.0, "Exponent of the length penalty; 0: none.", panel=SEARCH)
    length_penalty_kind: str = option("gnmt", "gnmt or average.", choices=LENGTH_PENALTIES, panel=SEARCH)
    coverage_penalty: float = option(0.0, "GNMT beta, against source tokens left untranslated; 0: none.", panel=SEARCH)
    finished_first: bool = option(
        False, "Rank outputs that ended before those cut at the maximum length.", panel=SEARCH
    )
    stop: str = option("all", "all; or best: as soon as the best output is known.", choices=STOPS, panel=SEARCH)
    groups: int = option(1, "Groups of a diverse beam, which divide it.", panel=SEARCH)
    diversity: float = option(0.5, "Weight against tokens of other groups.", panel=SEARCH)
    alpha: float = option(0.6, "Contrastive search: weight of degeneration.", panel=SEARCH)
    backward_weight: float = option(
        0.5, "Agreement: weight of the backward direction (of a run trained with --backward).", panel=SEARCH
    )
    temperature: float = option(1.0, "Below 1, likely tokens are drawn more often.", panel=SAMPLING)
    top_k: int | None = option(None, "Draw from so many tokens.", shown="all", panel=SAMPLING)
    top_p: float = option(1.0, "Draw from the tokens that hold this probability.", panel=SAMPLING)
    seed: int | None = option(None, "Seed of the draws.", shown="another each time", panel=SAMPLING)
    min_length: int = option(0, "Fewest tokens of an output, EOS counted.", panel=CONSTRAINTS)
    max_length: int = option(200, "Most tokens of an output, EOS counted.", panel=CONSTRAINTS)
    max_length_factor: float | None = option(
        2.0, "Most tokens of an output for each source token, beside the offset.", panel=CONSTRAINTS
    )
    max_length_offset: int = option(10, "Tokens of an output beside those of the factor.", panel=CONSTRAINTS)
    no_repeat_ngram: int = option(0, "Block repeated n-grams of this size; 0: none.", panel=CONSTRAINTS)
    repetition_penalty: float | None = option(
        None, "Above 1, tokens generated before are less likely.", panel=CONSTRAINTS
    )
    phrases: tuple[int, int] | None = option(
        None, "Room for so many required phrases of so many tokens.", metavar="COUNT TOKENS", panel=CONSTRAINTS
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name, good, expected in (
            ("min_length", self.min_length <= self.max_length, f"0 to max_length={self.max_length}"),
            ("phrases", self.phrases is None or min(self.phrases) >= 1, "two numbers, each at least 1"),
            ("groups", self.beam_size % self.groups == 0, f"a divisor of the beam of {self.beam_size}"),
            ("top_p", self.top_p > 0, "above 0, at most 1"),
        ):
            if not good:
                raise UserError(f"{name} is out of range. Expected {expected}. Received: {getattr(self, name)}")
        for field in dataclasses.fields(self):
            method = OWN.get(field.name, self.method)
            if method != self.method and getattr(self, field.name) != field.default:
                raise UserError(
                    f"{field.name} is a setting of method {method!r}. Expected that method, or no {field.name}. "
                    f"Received: method {self.method!r}"
                )

    @classmethod
    def of(cls, policy: SearchPolicy | None = None, **settings: Any) -> SearchPolicy:
        """Return a policy, the default one if `None`, with the given settings replaced.

        Raises:
            TypeError: for an unknown setting.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(settings) - known):
            raise TypeError(unknown_names("search setting", unknown, known))
        return dataclasses.replace(policy or cls(), **settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, and `beam_size`."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        changed = {
            field.name: values[field.name] for field in dataclasses.fields(self) if values[field.name] != field.default
        }
        return {"beam_size": self.beam_size, **changed}

    @property
    def hypotheses(self) -> int:
        """Hypotheses of each row's result."""
        return 1 if self.method == "contrastive" else self.beam_size

    def limit(self, source_tokens: int) -> int:
        """Return the maximum output length for a source of `source_tokens` tokens, EOS counted in both."""
        if self.max_length_factor is None:
            return self.max_length
        return max(min(self.max_length, int(self.max_length_factor * source_tokens) + self.max_length_offset), 1)
