"""The manifest of an artefact directory: all that a program needs to run its files."""

import importlib.metadata
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_attention.models.ensemble import Ensemble
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.types import BOS_ID, EOS_ID, PAD_ID, UNK_ID

from . import runtime
from .graphs.graph import Graph, state_updates
from .graphs.knobs import Net, describe_search, knobs_of

SPECIAL_IDS = {"pad": PAD_ID, "bos": BOS_ID, "eos": EOS_ID, "unk": UNK_ID}
PACKAGES = ("keras-luong", "keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "tensorflow-text")


def versions() -> dict[str, str]:
    """Return the versions of the packages that made the artefact."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_translator(
    net: Net,
    graphs: Sequence[Graph],
    settings: SearchPolicy,
    tokenizers: tuple[Tokenizer, Tokenizer] | None,
    tokenizer_files: dict[str, list[str]],
) -> dict[str, Any]:
    """Return the manifest's fields that only a translator has."""
    config = net.config
    described = {}
    if tokenizers is not None:
        for side, tokenizer in zip(("source", "target"), tokenizers, strict=True):
            files = tokenizer_files[side]
            described[side] = {"kind": tokenizer.kind, "file": files[0], "files": files}
    members = [member.config for member in net.members] if isinstance(net, Ensemble) else [config]
    return {
        "model": config.to_dict(),
        "members": [member.to_dict() for member in members],
        "beam_size": settings.hypotheses,
        "search": describe_search(settings),
        "max_length_factor": settings.max_length_factor,
        "max_length_offset": settings.max_length_offset,
        "knobs": {knob.port.name: knob.to_dict() for knob in knobs_of(settings, net)},
        "state_updates": state_updates(tuple(graphs)),
        "special_ids": SPECIAL_IDS,
        "source_vocabulary": config.source_vocabulary,
        "target_vocabulary": config.target_vocabulary,
        "copy_words": config.copy_words or 0,
        "source_features": config.source_features,
        "max_source_length": net.max_source_length,
        "tokenizers": described,
    }


def trained_source_length(members: Sequence[Any]) -> int | None:
    """Return the maximum source length, EOS excluded, that all members were trained on; `None` if unrecorded."""
    limits = [member.max_source_length for member in members if isinstance(member, RunDirectory)]
    return min((limit for limit in limits if limit is not None), default=None)


def describe_files(directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of the directory except the manifest."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "manifest.json")
    return {
        path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": runtime.sha256(path)}
        for path in paths
    }


def complete(manifest: dict[str, Any], directory: pathlib.Path) -> dict[str, Any]:
    """Return the manifest with the current files of the directory."""
    return {**manifest, "files": describe_files(directory)}


def write_manifest(manifest: dict[str, Any], directory: pathlib.Path) -> None:
    """Write `manifest.json`, with its own checksum: that of the text with zeros in its place."""
    zeros = "0" * 64
    text = json.dumps({**manifest, "checksum": zeros}, indent=1, ensure_ascii=False) + "\n"
    text = text.replace(zeros, runtime.manifest_checksum(text, zeros))
    (directory / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
