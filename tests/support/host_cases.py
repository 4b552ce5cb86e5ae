"""Cases that both runtimes are held to, from `tests/runtime/cases.json`, with what the tables make of them."""

import json
import pathlib
from typing import Any

import numpy as np

from tests.support import host_tables
from tests.support.host_tables import PAD, VOCABULARY, Search, Tables
from tests.support.search_reference import Rules

CASES: dict[str, Any] = json.loads(
    (pathlib.Path(__file__).resolve().parents[1] / "runtime" / "cases.json").read_text(encoding="utf-8")
)
ROWS: list[list[int]] = CASES["rows"]
LENGTH: int = CASES["max_length"]
SEARCHES: dict[str, dict[str, Any]] = CASES["searches"]
SOURCE = np.array([[*row, *[PAD] * (max(map(len, ROWS)) - len(row))] for row in ROWS], np.int32)


def manifest(name: str, beams: int, **more: Any) -> dict[str, Any]:
    """The manifest of an artefact whose search is a case's; `more` is fixed at export too."""
    case, found = SEARCHES[name], host_tables.manifest(beams, LENGTH)
    fixed = {rule: case[rule] for rule in ("length_penalty_kind", "no_repeat_ngram") if rule in case}
    found["search"] |= {**fixed, **more}
    return found


def knobs(name: str) -> dict[str, Any]:
    """Values of the knobs that a case turns, all but `repetition_penalty` always; `prefix` as lists of ids."""
    case = SEARCHES[name]
    defaults = {"length_penalty": 1.0, "coverage_penalty": 0.0, "min_length": 0, "prefix": [[] for _ in ROWS]}
    allowed = case.get("allowed", range(VOCABULARY))
    found = {knob: case.get(knob, default) for knob, default in defaults.items()}
    found["allowed"] = [word in allowed for word in range(VOCABULARY)]
    return found | {knob: case[knob] for knob in ("repetition_penalty",) if knob in case}


def expected(
    name: str, beams: int, tables: Tables | None = None
) -> list[list[tuple[float, tuple[int, ...], float, np.ndarray]]]:
    """Hypotheses of each row, best first, as `host_tables.beam` gives them."""
    case = SEARCHES[name]
    kind = case.get("length_penalty_kind", "gnmt")
    how = Search(case.get("length_penalty", 1.0), kind, case.get("coverage_penalty", 0.0))
    rules: dict[str, Any] = {
        rule: case[rule] for rule in ("min_length", "repetition_penalty", "no_repeat_ngram") if rule in case
    }
    if "allowed" in case:
        rules["allowed"] = frozenset(case["allowed"])
    prefixes = case.get("prefix", [[] for _ in ROWS])
    # The rows as Python's runtime gets them, padded: padding changes nothing but the width of the weights.
    return [
        host_tables.beam(tables or Tables.random(5), row, beams, LENGTH, how, Rules(prefix=tuple(prefix), **rules))
        for row, prefix in zip(SOURCE, prefixes, strict=True)
    ]
