"""Knobs of a search: the inputs of `translate` beside the source, from values or from text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArtefactError
from .inputs import Arrays
from .tokenizer import Tokenizer


def filled(
    port: Mapping[str, Any], knob: Mapping[str, Any], batch: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """Return a knob's input filled with its default, or drawn; a free axis other than the batch has size 1."""
    sizes = [batch if axis == "batch" else axis if isinstance(axis, int) else 1 for axis in port["axes"]]
    if knob.get("random"):
        drawn = (generator or np.random.default_rng()).random(sizes, np.float32)
        return np.asarray(knob["minimum"] + drawn * (knob["maximum"] - knob["minimum"]), port["dtype"])
    return np.full(sizes, knob["default"], port["dtype"])


def knob_values(
    manifest: Mapping[str, Any], batch: int, given: Mapping[str, Any], generator: np.random.Generator | None = None
) -> dict[str, np.ndarray]:
    """Return every knob of `translate` as an array: the given value, or the manifest's default for `None`.

    Raises:
        ArtefactError: for a knob that this artefact lacks, and for values of another shape or out of range.
    """
    known, values = manifest["knobs"], {}
    unknown = [name for name, value in given.items() if name not in known and value is not None]
    if unknown:
        raise ArtefactError(f"The artefact has no knob {unknown[0]!r}. Expected: one of {', '.join(known)}")
    for name, knob in known.items():
        port, value = manifest["signatures"]["translate"]["inputs"][name], given.get(name)
        if value is None:
            values[name] = filled(port, knob, batch, generator)
            continue
        label = name.replace("_", " ")
        array = _as_array(value, port["dtype"], label)
        wanted = [batch if axis == "batch" else axis for axis in port["axes"]]
        fits = array.ndim == len(wanted) and all(
            size == axis or (isinstance(axis, str) and size) for size, axis in zip(array.shape, wanted, strict=True)
        )
        if not fits:
            raise ArtefactError(f"The {label} has another shape. Expected: {wanted}. Received: {list(array.shape)}")
        low, high = knob.get("minimum", -np.inf), knob.get("maximum", np.inf)
        if not np.isfinite(array).all() or not ((low <= array) & (array <= high)).all():
            expected = "a finite number" if "minimum" not in knob else f"at least {low:g}, and finite"
            if "maximum" in knob:
                expected = f"{low} to {high} (fixed at export)"
            raise ArtefactError(f"The {label} is out of range. Expected: {expected}. Received: {array.tolist()}")
        values[name] = array
    _check_together(values, manifest["special_ids"])
    return values


def _as_array(value: Any, dtype: str, label: str) -> np.ndarray:
    """Return a knob's value as an array of its type. Raises ArtefactError where that would change it."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    kinds = {"bool": "b", "int32": "iu", "float32": "iuf"}[dtype]
    if array.dtype.kind not in kinds:
        raise ArtefactError(f"The {label} is of another type. Expected: {dtype}, in one array. Received: {value!r}")
    with np.errstate(over="ignore"):  # too large values become infinite, which is refused
        return array.astype(dtype)


def _check_together(values: Arrays, special_ids: Mapping[str, int]) -> None:
    """Raise where knobs contradict each other, since a graph cannot."""
    most, least = int(values["max_length"]), int(values["min_length"])
    if least > most:
        raise ArtefactError(f"The min length is above the maximum. Expected: at most {most}. Received: {least}")
    for name, what in (("prefix", "A prefix"), ("phrases", "A phrase")):
        if name not in values:
            continue
        ids = values[name]
        real = ids != special_ids["pad"]
        if (ids == special_ids["eos"]).any() or (real[..., 1:] & ~real[..., :-1]).any():
            raise ArtefactError(f"{what} ends before its words do. Expected: ids without EOS, then padding alone")
        longest = real.reshape(len(ids), -1).sum(axis=1).max()
        if longest > most:
            what = what if name == "prefix" else "What phrases hold together"
            raise ArtefactError(
                f"{what} is longer than a translation may be. Expected: at most {most} tokens. Received: {longest}"
            )


def allowed_tokens(banned: Sequence[str], target: Tokenizer, size: int) -> np.ndarray | None:
    """Return the knob `allowed` without the banned tokens; `None`, its default, if there are none.

    Raises:
        ArtefactError: for a word that is unknown, or of several tokens, and for a text in place of a list.
    """
    if not banned:
        return None
    if isinstance(banned, str):
        raise ArtefactError(f"Expected: a list of banned tokens. Received: {banned!r}")
    allowed = np.ones(size, bool)
    for word in banned:
        ids = target.written(word, "banned word")
        if len(ids) != 1:
            raise ArtefactError(
                f"The banned word {word!r} is not one token. Expected: a token of the target vocabulary. "
                f"Received: {target.tokens(ids)}"
            )
        allowed[ids[0]] = False
    return allowed


def prefix_ids(texts: str | Sequence[str], count: int, target: Tokenizer) -> list[list[int]]:
    """Return the ids that each of `count` translations begins with: one text for all, or one for each.

    Raises:
        ArtefactError: for unknown words, and another number of texts.
    """
    each = [texts] * count if isinstance(texts, str) else list(texts)
    if len(each) != count:
        raise ArtefactError(f"Expected: a prefix for each of {count} sentences. Received: {len(each)}")
    return [target.written(text, "prefix") for text in each]


def phrase_ids(texts: Sequence[str], target: Tokenizer, manifest: Mapping[str, Any]) -> np.ndarray | None:
    """Return the knob `phrases` for one row; `None`, its default, if there are no texts.

    Raises:
        ArtefactError: for unknown words, more phrases or tokens than there is room for, a text in place of a list.
    """
    if isinstance(texts, str):
        raise ArtefactError(f"Expected: a list of phrases. Received: {texts!r}")
    if not texts:
        return None
    room = manifest["search"]["phrases"]
    if room is None:
        raise ArtefactError("The artefact has no knob 'phrases'. Expected: one exported with room for phrases")
    rows = [target.written(text, "phrase") for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if not 1 <= len(row) <= room[1]:
            raise ArtefactError(
                f"The phrase {text!r} does not fit. Expected: 1 to {room[1]} tokens. Received: {len(row)}"
            )
    if len(rows) > room[0]:
        raise ArtefactError(f"Too many phrases. Expected: at most {room[0]}. Received: {len(rows)}")
    phrases = np.full(room, manifest["special_ids"]["pad"], np.int32)
    for line, row in zip(phrases, rows, strict=False):
        line[: len(row)] = row
    return phrases
