"""The search that `translate` holds: what is fixed at export, and what stays an input, with its default and its range.

An input of `translate` beside the source is a knob. What changes shapes or the graph itself is fixed: the method, the
number of hypotheses, the length of the buffers, groups, n of the n-grams, the cut to the likeliest words, room for
phrases.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.ranges import RANGES, described, is_within
from keras_attention.search import Constraints
from keras_attention.search.beam import STOPS
from keras_attention.search.contract import LENGTH_PENALTIES
from keras_attention.types import PAD_ID, Tensor

from .. import runtime
from .port import Axis, Port

Net = EncoderDecoder | Ensemble
METHODS = ("beam", "sample", "contrastive", "agreement")
CONSTRAINTS = ("min_length", "allowed", "prefix", "phrases", "repetition_penalty")


@dataclasses.dataclass(frozen=True)
class Knob:
    """An input of `translate` beside the source: its port, the value that fills it by default, its range.

    A `random` one has no such value: a runtime draws every number of it anew, evenly between its bounds.
    """

    port: Port
    default: float | bool
    minimum: float | None = None
    maximum: float | None = None
    random: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Of the manifest."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        known = {name: value for name, value in bounds.items() if value is not None}
        return {"random": True, **known} if self.random else {"default": self.default, **known}

    def filled(self, batch: int) -> np.ndarray:
        """Its default for a batch; numbers of a fixed seed where it is random."""
        generator = np.random.default_rng(batch)
        return runtime.filled(self.port.to_dict(), self.to_dict(), batch, generator)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What is fixed at export, and the defaults of what stays an input.

    Args:
        beam_size: K: hypotheses of a beam, samples, or candidates of contrastive search; fixed.
        max_length: capacity of the buffers, fixed; greatest value and default of the input of that name.
        max_length_factor: where given, a translation is also cut at this many tokens per source token ..., fixed.
        max_length_offset: ... plus this many, fixed.
        length_penalty: default of the exponent of the length penalty.
        min_length: default of the fewest tokens of a translation, EOS counted.
        coverage_penalty: default of GNMT's beta, against words left untranslated; beam search alone has this input.
        length_penalty_kind: `"gnmt"` or `"average"`, fixed.
        no_repeat_ngram: no so many tokens in a row come twice; 0 for no such rule; fixed.
        repetition_penalty: default of the input of that name; `None`: there is no such input.
        phrases: most phrases of a row, and most tokens of each: sizes of the input `phrases`; `None`: there is none.
        groups: of a diverse beam, fixed.
        stop: `"all"`, or `"best"` to stop as soon as the best translation of each row is known, fixed.
        finished_first: whether translations that ended are ranked before those that the maximum length cut, fixed.
        diversity: default of how much groups avoid each other's words.
        method: `"beam"`, `"sample"`, `"contrastive"`, or `"agreement"` of a beam in each direction; fixed.
        temperature, top_p: defaults, of samples.
        top_k: draws are cut to so many words; all if `None`; fixed.
        alpha: default, of contrastive search.
        backward_weight: default, of agreement: how much the backward direction counts.

    Raises:
        UserError: where a value is out of range, or belongs to another method.
    """

    beam_size: int = 5
    max_length: int = 100
    max_length_factor: float | None = None
    max_length_offset: int = 10
    length_penalty: float = 1.0
    min_length: int = 0
    coverage_penalty: float = 0.0
    length_penalty_kind: str = "gnmt"
    no_repeat_ngram: int = 0
    repetition_penalty: float | None = None
    phrases: tuple[int, int] | None = None
    groups: int = 1
    stop: str = "all"
    finished_first: bool = False
    diversity: float = 0.5
    method: str = "beam"
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    alpha: float = 0.6
    backward_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in sorted(RANGES.keys() & {field.name for field in dataclasses.fields(self)}):
            value, (kind, low, high) = getattr(self, name), RANGES[name]
            if value is not None and not is_within(value, kind, low, high):
                expected = described(kind, low, high)
                raise UserError(f"The {name} is out of range. Expected: {expected}. Received: {value}")
        for name, good, expected in (
            ("min_length", 0 <= self.min_length <= self.max_length, f"0 to max_length={self.max_length}"),
            ("length_penalty_kind", self.length_penalty_kind in LENGTH_PENALTIES, " or ".join(LENGTH_PENALTIES)),
            ("phrases", self.phrases is None or min(self.phrases) >= 1, "two numbers, each at least 1"),
            ("groups", self.beam_size % self.groups == 0, f"a divisor of {self.beam_size}"),
            ("stop", self.stop in STOPS, " or ".join(STOPS)),
            ("method", self.method in METHODS, f"one of {', '.join(METHODS)}"),
            ("top_p", 0 < self.top_p <= 1, "above 0, at most 1"),
            ("alpha", 0 <= self.alpha <= 1, "0 to 1"),
            ("backward_weight", 0 <= self.backward_weight <= 1, "0 to 1"),
        ):
            if not good:
                raise UserError(f"The {name} is out of range. Expected: {expected}. Received: {getattr(self, name)}")
        if self.method != "beam":
            own = {"groups": self.groups != 1, "phrases": self.phrases is not None}
            own |= {"coverage_penalty": self.coverage_penalty != 0, "stop": self.stop != "all"}
            own |= {"finished_first": self.finished_first}
            for name in (name for name, given in own.items() if given):
                raise UserError(f"The {name} is of beam search. Expected: method='beam'. Received: {self.method!r}")

    @property
    def hypotheses(self) -> int:
        """Of each row's result."""
        return 1 if self.method == "contrastive" else self.beam_size

    def describe(self) -> dict[str, Any]:
        """What is fixed, for the manifest."""
        return {
            "method": self.method,
            "length_penalty_kind": self.length_penalty_kind,
            "no_repeat_ngram": self.no_repeat_ngram,
            "groups": self.groups,
            "stop": self.stop,
            "finished_first": self.finished_first,
            "phrases": None if self.phrases is None else list(self.phrases),
            "top_k": self.top_k,
            "candidates": self.beam_size if self.method == "contrastive" else None,
        }

    def knobs(self, net: Net) -> tuple[Knob, ...]:
        """The inputs of a translator's `translate` beside the source, in their order."""
        vocabulary = net.config.output_vocabulary
        found = [
            Knob(Port("max_length", "int32", ()), self.max_length, 1, self.max_length),
            Knob(Port("min_length", "int32", ()), self.min_length, 0, self.max_length),
            Knob(Port("length_penalty", "float32", ()), self.length_penalty, *RANGES["length_penalty"][1:]),
        ]
        if self.method == "beam" and net.covers_source:
            bounds = RANGES["coverage_penalty"][1:]
            found.append(Knob(Port("coverage_penalty", "float32", ()), self.coverage_penalty, *bounds))
        elif self.coverage_penalty:
            raise UserError("The plain encoder-decoder covers no source. Expected: coverage_penalty=0")
        found.append(Knob(Port("allowed", "bool", (vocabulary,)), True))
        if self.method != "agreement":  # the backward direction would have to end with it
            found.append(Knob(Port("prefix", "int32", ("batch", "prefix_length")), PAD_ID, PAD_ID, vocabulary - 1))
        if self.repetition_penalty is not None:
            bounds = RANGES["repetition_penalty"][1:]
            found.append(Knob(Port("repetition_penalty", "float32", ()), self.repetition_penalty, *bounds))
        if self.phrases is not None:
            found.append(Knob(Port("phrases", "int32", ("batch", *self.phrases)), PAD_ID, PAD_ID, vocabulary - 1))
        if self.groups > 1:
            found.append(Knob(Port("diversity", "float32", ()), self.diversity, *RANGES["diversity"][1:]))
        if self.method == "sample":
            axes: tuple[Axis, ...] = ("batch", self.beam_size, self.max_length)
            found.append(Knob(Port("temperature", "float32", ()), self.temperature, *RANGES["temperature"][1:]))
            found.append(Knob(Port("top_p", "float32", ()), self.top_p, 0.0, 1.0))
            found.append(Knob(Port("uniforms", "float32", axes), 0.5, 0.0, 1.0, random=True))
        if self.method == "contrastive":
            found.append(Knob(Port("alpha", "float32", ()), self.alpha, 0.0, 1.0))
        if self.method == "agreement":
            found.append(Knob(Port("backward_weight", "float32", ()), self.backward_weight, 0.0, 1.0))
        return tuple(found)

    def run(self, net: Net, source: Tensor, knobs: Mapping[str, Any], recurrence: str = "layer") -> Any:
        """The search, with values of the knobs: a `SearchResult`."""
        given = {name: value for name, value in knobs.items() if name not in CONSTRAINTS}
        limits: dict[str, Any] = {
            "capacity": self.max_length,
            "max_length_factor": self.max_length_factor,
            "max_length_offset": self.max_length_offset,
            "length_penalty_kind": self.length_penalty_kind,
        }
        rules = {name: knobs[name] for name in CONSTRAINTS if name in knobs}
        limits["constraints"] = Constraints(no_repeat_ngram=self.no_repeat_ngram, **rules)
        if self.method == "sample":
            fixed: dict[str, Any] = {"num_samples": self.beam_size, "top_k_words": self.top_k}
            return net.sample(source, recurrence, **fixed, **limits, **given)
        if self.method == "contrastive":
            return net.contrast(source, recurrence, candidates=self.beam_size, **limits, **given)
        if self.method == "agreement":
            return net.agree(source, recurrence, beam_size=self.beam_size, **limits, **given)
        fixed = {"groups": self.groups, "stop": self.stop, "finished_first": self.finished_first}
        fixed = fixed if self.beam_size > 1 else {}
        return net.search(source, beam_size=self.beam_size, recurrence=recurrence, **limits, **fixed, **given)
