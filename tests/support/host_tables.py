"""A translator of tables for the runtime's host loop, and beam search written from its definition, in NumPy float64.

What the next word costs hangs on every word before it. The reference recomputes all of a hypothesis from its words, so
that a state, a coverage or a sum that went astray shows in a score.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.support.search_reference import Rules

PAD, BOS, EOS, UNK, VOCABULARY = 0, 1, 2, 3, 7
SPECIAL = {"pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK}
CODES, POSITIONS = 97, 11


def follow(code: Any, token: Any) -> Any:
    """The code of what is written, with one more word."""
    return (code * 5 + token + 1) % CODES


def code_of_source(row: np.ndarray) -> int:
    """The code that a translation begins with: padding, at the end, adds nothing."""
    code = 0
    for token in row[row != PAD].tolist():
        code = follow(code, token)
    return int(code)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Log-probabilities `(CODES, V)`, and how much each position gets `(CODES, POSITIONS)`, some of it padding's."""

    log_probs: np.ndarray
    weights: np.ndarray

    @staticmethod
    def random(seed: int, eos: float = 0.0) -> "Tables":
        """Tables whose end of sentence is `eos` more likely than the other words."""
        generator = np.random.default_rng(seed)
        values = 1.5 * generator.normal(size=(CODES, VOCABULARY))
        values[:, EOS] += eos
        values[:, [PAD, BOS]] = -np.inf
        weights = generator.exponential(size=(CODES, POSITIONS)) * (generator.random((CODES, POSITIONS)) < 0.6)
        log_probs = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
        return Tables(log_probs.astype(np.float32), (weights / 3).astype(np.float32))


class Translator:
    """Tables as a backend of the runtime: `encode` and `decode_step` over named arrays."""

    name, format = "onnx", "onnx"

    def __init__(self, tables: Tables):
        self.tables = tables

    def run(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if signature == "encode":
            source = inputs["source_ids"]
            code = np.array([code_of_source(row) for row in source])
            return {"state_code": code, "memory_mask": source != PAD}
        code = follow(inputs["state_code"], inputs["token_ids"])
        alignment = self.tables.weights[code][:, : inputs["memory_mask"].shape[1]]
        return {"log_probs": self.tables.log_probs[code], "next_state_code": code, "alignment": alignment}


def manifest(beam_size: int = 2, max_length: int = 5, graphs: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """The manifest of an artefact of these tables; `graphs`: what its format holds beside the two of the host loop."""
    inputs = {
        "max_length": {"dtype": "int32", "axes": []},
        "min_length": {"dtype": "int32", "axes": []},
        "length_penalty": {"dtype": "float32", "axes": []},
        "coverage_penalty": {"dtype": "float32", "axes": []},
        "allowed": {"dtype": "bool", "axes": [VOCABULARY]},
        "prefix": {"dtype": "int32", "axes": ["batch", "prefix_length"]},
        "repetition_penalty": {"dtype": "float32", "axes": []},
    }
    search = {"method": "beam", "groups": 1, "stop": "all", "phrases": None, "no_repeat_ngram": 0}
    return {
        "kind": "translator",
        "precision": "float32",
        "formats": {"onnx": {"signatures": ["encode", "decode_step", *graphs]}},
        "signatures": {"translate": {"inputs": inputs, "outputs": {"ids": {"axes": ["batch", beam_size, max_length]}}}},
        "knobs": {
            "max_length": {"default": max_length, "minimum": 1, "maximum": max_length},
            "min_length": {"default": 0, "minimum": 0, "maximum": max_length},
            "length_penalty": {"default": 1.0},
            "coverage_penalty": {"default": 0.0, "minimum": 0.0},
            "allowed": {"default": True},
            "prefix": {"default": PAD, "minimum": PAD, "maximum": VOCABULARY - 1},
            "repetition_penalty": {"default": 1.0, "minimum": 0.01},
        },
        "search": {**search, "length_penalty_kind": "gnmt"},
        "state_updates": {"state_code": "next_state_code"},
        "special_ids": SPECIAL,
        "beam_size": beam_size,
        "max_length_factor": None,
        "max_length_offset": 0,
        "source_vocabulary": VOCABULARY,
        "max_source_length": None,
        "tokenizers": {},
        "files": {},
        **fields,
    }


@dataclasses.dataclass(frozen=True)
class Search:
    """Settings of a reference search, beside `Rules`."""

    alpha: float = 1.0
    kind: str = "gnmt"
    beta: float = 0.0

    def divisor(self, length: int) -> float:
        return float(((5 + length) / 6 if self.kind == "gnmt" else length) ** self.alpha)


def beam(
    tables: Tables, source: np.ndarray, beams: int, limit: int, search: Search, rules: Rules
) -> list[tuple[float, tuple[int, ...], float, np.ndarray]]:
    """Of one source the best hypotheses that a beam finds: score, ids, log-probability, weights of each step."""
    real = source != PAD

    def described(ids: tuple[int, ...]) -> tuple[float, tuple[int, ...], float, np.ndarray]:
        code, total, log_prob, rows = code_of_source(source), 0.0, 0.0, []
        for place, word in enumerate(ids):
            code = follow(code, ids[place - 1] if place else BOS)
            value = float(tables.log_probs[code, word])
            log_prob += value
            total += rules.value(ids[:place], word, value, EOS)
            rows.append(tables.weights[code, : len(source)])
        alignment = np.array(rows).reshape(-1, len(source))
        covered = np.log(np.clip(alignment.sum(axis=0), 1e-6, 1.0))[real].sum()
        return total / search.divisor(len(ids)) + search.beta * covered, ids, log_prob, alignment

    def ended(ids: tuple[int, ...]) -> bool:
        return ids[-1:] == (EOS,) or len(ids) == limit

    kept: list[tuple[float, tuple[int, ...], float, np.ndarray]] = [(0.0, (), 0.0, np.zeros((0, len(source))))]
    while not all(ended(one[1]) for one in kept):
        found = []
        for one in kept:
            words = range(EOS, VOCABULARY) if not ended(one[1]) else ()
            found += [one] if not words else []
            found += [described((*one[1], word)) for word in words if rules.may_follow(one[1], word, EOS)]
        kept = sorted(found, key=lambda one: -one[0])[:beams]
    return kept


def as_arrays(
    lists: list[list[tuple[float, tuple[int, ...], float, np.ndarray]]], beams: int, length: int, positions: int
) -> dict[str, np.ndarray]:
    """The lists of `beam`, one for each source, as a search hands them out."""
    shape = (len(lists), beams)
    found = {
        "ids": np.full((*shape, length), PAD, np.int32),
        "lengths": np.zeros(shape, np.int32),
        "log_probs": np.full(shape, -np.inf, np.float32),
        "scores": np.full(shape, -np.inf, np.float32),
        "finished": np.zeros(shape, bool),
        "alignments": np.zeros((*shape, length, positions), np.float32),
    }
    for row, hypotheses in enumerate(lists):
        for slot, (score, ids, log_prob, alignment) in enumerate(hypotheses):
            found["ids"][row, slot, : len(ids)], found["lengths"][row, slot] = ids, len(ids)
            found["scores"][row, slot], found["log_probs"][row, slot] = score, log_prob
            found["finished"][row, slot] = ids[-1] == EOS
            found["alignments"][row, slot, : len(ids)] = alignment
    return found
