"""Integrity check of an artefact directory, before anything in it is run.

Checksums detect damage, not intent: whoever rewrites every file of an artefact, checksums included, has made another
artefact.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from . import runtime
from .formats.table import FORMATS, names
from .manifest import SPECIAL_IDS
from .parity.cases import Reference

SHOWN = 80


def differences(directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference) -> list[str]:
    """Return contradictions in a manifest, and its differences from the exported one.

    Args:
        directory, manifest: the artefact.
        cases: cases verified at the export; its `facts` are the manifest of that time.
    """
    found = list(impossible(manifest))
    if cases.facts:
        found += compared("", cases.facts, manifest)
    if manifest["kind"] == "translator" and not found:
        found += source_differences(directory, manifest, cases)
    return [f"manifest.json: {one}" for one in found]


def impossible(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield entries that no export writes."""
    formats, precision = manifest["formats"], manifest["precision"]
    held = {one.name: one.precisions for one in FORMATS}
    if not formats:
        yield f"formats. Expected: one or several of {', '.join(names())}. Received: none"
    for name, entry in formats.items():
        if name not in held:
            yield f"formats. Expected: of {', '.join(names())}. Received: {name!r}"
            continue
        if precision not in held[name]:
            yield f"precision. Expected, for {name}: {' or '.join(held[name])}. Received: {precision!r}"
        for file in files_of(entry):
            if file not in manifest["files"]:
                yield f"formats.{name}. Expected: files of the artefact. Received: {file!r}"
        folder = entry.get("folder")
        if folder is not None and f"{folder}/saved_model.pb" not in manifest["files"]:
            yield f"formats.{name}.folder. Expected: one that holds saved_model.pb. Received: {folder!r}"
    if manifest.get("special_ids", SPECIAL_IDS) != SPECIAL_IDS:
        yield f"special_ids. Expected: {SPECIAL_IDS}. Received: {manifest['special_ids']}"


def files_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the files that a format's entry names, without the content of a folder."""
    names = [entry[name] for name in ("file", "text_file", "embeddings") if name in entry]
    return [*names, *entry.get("files", {}).values()]


def compared(place: str, expected: Any, received: Any) -> list[str]:
    """Return each place that differs from the exported manifest; files added later are not recorded there."""
    if isinstance(expected, Mapping) and isinstance(received, Mapping):
        later = {"files": received.keys(), "": {"checksum"}}.get(place, set())
        found = []
        for name in [*expected, *(name for name in received if name not in expected)]:
            if name in expected or name not in later:
                inside = f"{place}.{name}" if place else name
                found += compared(inside, expected.get(name, NOTHING), received.get(name, NOTHING))
        return found
    if expected == received and type(expected) is type(received):
        return []
    return [f"{place} is not as exported. Expected: {shown(expected)}. Received: {shown(received)}"]


class Nothing:
    """A placeholder for a missing entry."""

    def __repr__(self) -> str:
        return "nothing"


NOTHING = Nothing()


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def source_differences(directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference) -> Iterator[str]:
    """Yield sentences that the artefact's tokenizer encodes differently than at the export."""
    if "source" not in manifest["tokenizers"] or not cases.sentences:
        return
    file = runtime.check_file(directory, manifest, manifest["tokenizers"]["source"]["file"])
    tokenizer = runtime.Tokenizer(file, manifest["special_ids"])
    searched = [case.inputs["source_ids"] for case in cases.of("translate") if case.counted]
    rows = [[int(i) for i in row if i] for batch in searched for row in batch]
    for sentence, row in zip(cases.sentences, rows, strict=True):
        words = tokenizer.copied(sentence, manifest["copy_words"])
        received = [*tokenizer.encode_source(sentence, words), manifest["special_ids"]["eos"]]
        if received != row:
            yield f"tokenizers.source reads {shown(sentence)} otherwise. Expected: {row}. Received: {received}"
            return
