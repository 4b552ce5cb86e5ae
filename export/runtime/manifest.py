"""The manifest of an artefact, and the checksums of its files."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from .errors import ArtefactError

FORMAT_VERSION = 4


def sha256(path: pathlib.Path) -> str:
    """Return the hexadecimal SHA-256 of one file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_checksum(text: str, checksum: str) -> str:
    """Return the SHA-256 of a manifest's text, with zeros in place of the checksum inside it."""
    return hashlib.sha256(text.replace(checksum, "0" * 64).encode()).hexdigest()


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """Return the manifest of an artefact directory.

    Raises:
        ArtefactError: if there is none, it is damaged or edited, or it is of another format version.
    """
    path = directory / "manifest.json"
    if not path.is_file():
        raise ArtefactError(
            f"{directory} is not an artefact: "
            f"{'it has no manifest.json' if directory.is_dir() else 'there is no such directory'}. "
            "Expected a directory that `export` wrote."
        )
    try:
        text = path.read_text(encoding="utf-8")
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is damaged and cannot be read ({error}). Export again.") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        received = manifest.get("format_version") if isinstance(manifest, dict) else type(manifest).__name__
        newer = isinstance(received, int) and received > FORMAT_VERSION
        raise ArtefactError(
            f"{path} is of another version. Expected: format_version {FORMAT_VERSION}. Received: {received}. "
            + ("It is newer: use the runtime that lies in it, or update this one." if newer else "Export again.")
        )
    checksum = manifest.get("checksum")
    if not checksum or checksum != manifest_checksum(text, str(checksum)):
        raise ArtefactError(
            f"{path} was changed after the export (its checksum does not match). Export again, or restore the file."
        )
    return manifest


def check_inside(directory: pathlib.Path, name: str) -> None:
    """Raise ArtefactError for the name of a file outside of the artefact."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or pathlib.PureWindowsPath(name).drive:
        raise ArtefactError(
            f"{directory} names a file outside of itself. Expected: names below it. Received: {name!r}. Export again."
        )


def check_file(directory: pathlib.Path, manifest: Mapping[str, Any], name: str) -> pathlib.Path:
    """Return the path of one file of the artefact, once its size and SHA-256 match the manifest.

    Raises:
        ArtefactError: if the file is missing, cut short or edited, or lies elsewhere.
    """
    check_inside(directory, name)
    path, entry = directory / name, manifest["files"].get(name)
    if entry is None or not path.is_file():
        raise ArtefactError(f"{path} is missing from the artefact. Copy the whole directory again, or export again.")
    if path.stat().st_size != entry["bytes"]:
        raise ArtefactError(
            f"{path} is not the exported file. Expected: {entry['bytes']} bytes. Received: {path.stat().st_size}. "
            "Copy it again, or export again."
        )
    if sha256(path) != entry["sha256"]:
        raise ArtefactError(
            f"{path} was changed after the export (its SHA-256 does not match). Copy it again, or export again."
        )
    return path
