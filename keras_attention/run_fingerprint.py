"""A fingerprint that ties the files of a run together, so that edited or foreign files are detected.

config.json holds the SHA-256 of each tokenizer file (`files`), an `id` derived from the run's initial metadata,
and a `fingerprint` of its own content; model.keras and the checkpoints hold the id. Runs without a fingerprint are
not checked: those of earlier versions, and those whose owner deleted that line.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from keras_attention.errors import UserError

STAMP = "keras_attention_run.json"
"""The member of model.keras that holds the run's id; Keras ignores members that it does not know."""
OWN = ("id", "files", "fingerprint")


def tokenizer_files(folder: pathlib.Path, names: Iterable[str]) -> list[pathlib.Path]:
    """Return the files of tokenizers, which are named without an ending or by their JSON file."""
    stems = sorted({name.removesuffix(".tok.json") for name in names})
    return [path for stem in stems for path in sorted(folder.glob(f"{stem}.tok.*"))]


def vocabulary_fingerprint(folder: pathlib.Path, names: Iterable[str]) -> str:
    """Return the SHA-256 of the tokenizers' files in a run directory."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in tokenizer_files(folder, names))).hexdigest()


def identify(folder: pathlib.Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a new run with its files and id."""
    content = {name: value for name, value in metadata.items() if name not in OWN}
    paths = tokenizer_files(folder, (content[f"{side}_tokenizer"] for side in ("source", "target")))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return {**content, "files": files, "id": _digest({**content, "files": files})}


def seal(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata with the fingerprint of its content; unchanged without an id."""
    if "id" not in metadata:
        return dict(metadata)
    content = {name: value for name, value in metadata.items() if name != "fingerprint"}
    return {**content, "fingerprint": _digest(content)}


def check(folder: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Raise UserError for an edited config.json, and for tokenizers of another run."""
    names = [metadata[f"{side}_tokenizer"] for side in ("source", "target")]
    if "fingerprint" not in metadata:
        vocabularies = metadata.get("training", {}).get("vocabularies")
        if vocabularies is not None and "id" not in metadata and vocabulary_fingerprint(folder, names) != vocabularies:
            files = [path.name for path in tokenizer_files(folder, names)]
            raise UserError(_other_words(folder, files, "training.vocabularies"))
        return
    if seal(metadata)["fingerprint"] != metadata["fingerprint"]:
        raise UserError(
            f"{folder / 'config.json'}: was edited after training, or is of another run: its content does not have its "
            f"fingerprint. Restore it. If the edit is meant, delete the entry fingerprint from it: {_UNCHECKED}"
        )
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tokenizer_files(folder, names)}
    other = sorted(name for name in {*found, *metadata["files"]} if found.get(name) != metadata["files"].get(name))
    if other:
        raise UserError(_other_words(folder, other, "fingerprint"))


_UNCHECKED = "the files of the run are then used unchecked"


def _other_words(folder: pathlib.Path, names: list[str], entry: str) -> str:
    return (
        f"{folder}: the vocabularies are not those that the training began with: its weights mean other words. "
        f"Restore {' and '.join(names)}, or train again. If the change is meant, delete the entry {entry} from "
        f"{folder / 'config.json'}: {_UNCHECKED}"
    )


def stamp(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Add the id of a run to a saved model."""
    if "id" in metadata:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(zipfile.ZipInfo(STAMP), json.dumps({"id": metadata["id"]}))


def read_stamp(path: pathlib.Path) -> str | None:
    """Return the id of the run that a saved model belongs to; None without an id."""
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read(STAMP))["id"])
    except (KeyError, TypeError, ValueError, RecursionError, zipfile.BadZipFile):
        return None


def check_model(path: pathlib.Path, metadata: Mapping[str, Any]) -> None:
    """Raise UserError for a model that is not of this run."""
    if "fingerprint" in metadata and read_stamp(path) != metadata["id"]:
        raise UserError(
            f"{path}: is not the model that this run's training wrote, so that its ids may mean other words. "
            "Restore it, or train again. If the change is meant, take it over in Python: "
            f'RunDirectory.open("{path.parent}").save_model(keras.models.load_model("{path}"))'
        )


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()
