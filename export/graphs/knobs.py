"""Knobs of `translate`: which settings are fixed at export, and which stay inputs, with default and range.

An input of `translate` besides the source is a knob. Settings that change shapes or the graph are fixed: the method,
the number of hypotheses, the length of the buffers, groups, n of the n-grams, the truncation of samples, room for
phrases.
"""

import dataclasses
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.ranges import RANGES
from keras_attention.search_policy import SearchPolicy
from keras_attention.types import PAD_ID

from .. import runtime
from .port import Axis, Port

Net = EncoderDecoder | Ensemble


@dataclasses.dataclass(frozen=True)
class Knob:
    """An input of `translate` besides the source: its port, its default, its range.

    A `random` one has no default: a runtime draws it anew, uniformly between its bounds.
    """

    port: Port
    default: float | bool
    minimum: float | None = None
    maximum: float | None = None
    random: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest's entry."""
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        known = {name: value for name, value in bounds.items() if value is not None}
        return {"random": True, **known} if self.random else {"default": self.default, **known}

    def filled(self, batch: int) -> np.ndarray:
        """Return the default for a batch; numbers of a fixed seed if random."""
        generator = np.random.default_rng(batch)
        return runtime.filled(self.port.to_dict(), self.to_dict(), batch, generator)


def describe_search(policy: SearchPolicy) -> dict[str, Any]:
    """Return the fixed settings, for the manifest."""
    return {
        "method": policy.method,
        "length_penalty_kind": policy.length_penalty_kind,
        "no_repeat_ngram": policy.no_repeat_ngram,
        "groups": policy.groups,
        "stop": policy.stop,
        "finished_first": policy.finished_first,
        "phrases": None if policy.phrases is None else list(policy.phrases),
        "top_k": policy.top_k,
        "candidates": policy.beam_size if policy.method == "contrastive" else None,
    }


def knobs_of(policy: SearchPolicy, net: Net) -> tuple[Knob, ...]:
    """Return the inputs of a translator's `translate` besides the source, in order."""
    vocabulary = net.config.output_vocabulary
    found = [
        Knob(Port("max_length", "int32", ()), policy.max_length, 1, policy.max_length),
        Knob(Port("min_length", "int32", ()), policy.min_length, 0, policy.max_length),
        Knob(Port("length_penalty", "float32", ()), policy.length_penalty, *RANGES["length_penalty"][1:]),
    ]
    if policy.method == "beam" and net.covers_source:
        bounds = RANGES["coverage_penalty"][1:]
        found.append(Knob(Port("coverage_penalty", "float32", ()), policy.coverage_penalty, *bounds))
    elif policy.coverage_penalty:
        raise UserError("The plain encoder-decoder covers no source. Expected: coverage_penalty=0")
    found.append(Knob(Port("allowed", "bool", (vocabulary,)), True))
    if policy.method != "agreement":  # the backward direction would have to end with the prefix
        found.append(Knob(Port("prefix", "int32", ("batch", "prefix_length")), PAD_ID, PAD_ID, vocabulary - 1))
    if policy.repetition_penalty is not None:
        bounds = RANGES["repetition_penalty"][1:]
        found.append(Knob(Port("repetition_penalty", "float32", ()), policy.repetition_penalty, *bounds))
    if policy.phrases is not None:
        found.append(Knob(Port("phrases", "int32", ("batch", *policy.phrases)), PAD_ID, PAD_ID, vocabulary - 1))
    if policy.groups > 1:
        found.append(Knob(Port("diversity", "float32", ()), policy.diversity, *RANGES["diversity"][1:]))
    if policy.method == "sample":
        axes: tuple[Axis, ...] = ("batch", policy.beam_size, policy.max_length)
        found.append(Knob(Port("temperature", "float32", ()), policy.temperature, *RANGES["temperature"][1:]))
        found.append(Knob(Port("top_p", "float32", ()), policy.top_p, 0.0, 1.0))
        found.append(Knob(Port("uniforms", "float32", axes), 0.5, 0.0, 1.0, random=True))
    if policy.method == "contrastive":
        found.append(Knob(Port("alpha", "float32", ()), policy.alpha, 0.0, 1.0))
    if policy.method == "agreement":
        found.append(Knob(Port("backward_weight", "float32", ()), policy.backward_weight, 0.0, 1.0))
    return tuple(found)
