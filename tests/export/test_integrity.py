"""A change of an artefact after the export, checksums and all, is noticed before anything in it is run."""

import copy
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from keras_attention import UserError
from keras_attention.export import errors, runtime, verify
from keras_attention.export import manifest as artefact
from keras_attention.export.integrity import differences
from keras_attention.export.parity import cases as reference
from keras_attention.export.report.benchmark import benchmark
from keras_attention.text.tokenizers import train_tokenizer
from tests.support.export_models import LINES

SPECIAL = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}


def write_artefact(folder: pathlib.Path) -> dict[str, Any]:
    """An artefact of two sentences whose one graph is never run; returns its manifest."""
    folder.mkdir()
    source, target = train_tokenizer("char", LINES), train_tokenizer("word", LINES)
    files = {"source": source.save(folder, "source"), "target": target.save(folder, "target")}
    (folder / "model.tflite").write_bytes(b"a model")
    manifest: dict[str, Any] = {
        "format_version": runtime.FORMAT_VERSION,
        "kind": "translator",
        "precision": "float32",
        "formats": {"tflite": {"file": "model.tflite", "signatures": ["translate"]}},
        "special_ids": SPECIAL,
        "knobs": {"length_penalty": {"default": 1.0, "minimum": 0.0}, "min_length": {"default": 0}},
        "tokenizers": {side: {"kind": "char", "file": names[0], "files": names} for side, names in files.items()},
        "copy_words": 0,
    }
    rows = reference.padded([[*source.encode(line), SPECIAL["eos"]] for line in LINES[:2]])
    case = reference.Case("translate", {"source_ids": rows}, {"ids": rows}, np.ones(2, np.float32))
    manifest = artefact.complete(manifest, folder)
    cases = reference.Reference([case], LINES[:2], facts=manifest)
    reference.save(cases, folder / "verification.npz")
    manifest = artefact.complete(manifest, folder)
    artefact.write_manifest(manifest, folder)
    return manifest


def permuted(manifest: dict[str, Any], folder: pathlib.Path, side: str = "source") -> None:
    file = folder / f"{side}.tok.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["vocabulary"][4:6] = content["vocabulary"][5:3:-1]
    file.write_text(json.dumps(content), encoding="utf-8")
    manifest["files"] = artefact.describe_files(folder)


def changed(place: str, value: Any) -> Callable[[dict[str, Any], pathlib.Path], None]:
    def change(manifest: dict[str, Any], folder: pathlib.Path) -> None:
        *way, last = place.split(".")
        for name in way:
            manifest = manifest[name]
        manifest[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("formats", {}), r"formats. Expected: one or several of .* Received: none"),
        (changed("formats", {"coreml": {}}), r"Received: 'coreml'"),
        (changed("formats", {"onnx": {"files": {}, "signatures": []}}), r"formats.onnx is not as exported"),
        (changed("formats", {"saved_model": {"folder": "../model"}}), r"Expected: one that holds saved_model.pb"),
        (changed("precision", "float16"), r"precision is not as exported. Expected: 'float32'. Received: 'float16'"),
        (changed("precision", "int8"), r"precision. Expected, for tflite: .* Received: 'int8'"),
        (changed("knobs", {}), r"knobs.length_penalty is not as exported"),
        (
            changed("knobs", {"length_penalty": {"default": 0.5, "minimum": 0.0}, "min_length": {"default": 0}}),
            r"knobs.length_penalty.default is not as exported. Expected: 1.0. Received: 0.5",
        ),
        (
            changed("knobs", {"length_penalty": {"default": 1.0, "minimum": 0.0}, "min_length": {"default": False}}),
            r"knobs.min_length.default is not as exported. Expected: 0. Received: False",
        ),
        (changed("special_ids", SPECIAL | {"unk": 4}), r"special_ids. Expected: .*'unk': 3.* Received: .*'unk': 4"),
        (changed("more", 1), r"more is not as exported. Expected: nothing. Received: 1"),
        (permuted, r"files.source.tok.json.\w+ is not as exported"),
        (
            lambda manifest, folder: permuted(manifest, folder, "target"),
            r"files.target.tok.json.\w+ is not as exported",
        ),
        (
            changed("formats", {"tflite": {"file": "../model.tflite"}}),
            r"Expected: files of the artefact. Received: '../m",
        ),
    ],
)
def test_a_changed_artefact_with_checksums_of_its_own(tmp_path: pathlib.Path, change: Any, message: str) -> None:
    folder = tmp_path / "artefact"
    manifest = write_artefact(folder)
    change(manifest, folder)
    artefact.write_manifest(manifest, folder)
    with pytest.raises(errors.VerificationError, match=message) as caught:
        verify(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(errors.NOT_VERIFIED)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "onnx/../../outside", "C:\\outside", "a\\b"])
def test_files_outside_are_never_opened(tmp_path: pathlib.Path, name: str) -> None:
    folder = tmp_path / "artefact"
    manifest = write_artefact(folder)
    (tmp_path / "outside").write_bytes(b"a model")
    manifest["files"][name] = manifest["files"]["model.tflite"]
    manifest["formats"]["tflite"]["file"] = name
    artefact.write_manifest(manifest, folder)
    for use in (verify, lambda folder: runtime.BACKENDS["litert"](folder, manifest, None)):
        with pytest.raises((UserError, runtime.ArtefactError), match="names a file outside of itself"):
            use(folder)


def test_a_subword_model_outside_is_never_opened(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tok.json").write_text('{"kind": "subword", "model": "../b.model"}')
    with pytest.raises(runtime.ArtefactError, match="names a file outside of itself"):
        runtime.Tokenizer(tmp_path / "a.tok.json", SPECIAL)


def test_a_benchmark_is_of_what_can_be(tmp_path: pathlib.Path) -> None:
    manifest = write_artefact(tmp_path / "artefact")
    artefact.write_manifest(manifest | {"formats": {}}, tmp_path / "artefact")
    with pytest.raises(UserError, match="Expected: one or several of"):
        benchmark(tmp_path / "artefact")


def test_a_tokenizer_that_reads_otherwise(tmp_path: pathlib.Path) -> None:
    """Where nothing is known of the export but its sentences and their ids."""
    folder = tmp_path / "artefact"
    manifest = write_artefact(folder)
    cases = reference.load(folder / "verification.npz")
    assert differences(folder, manifest, cases) == []
    bare = reference.Reference(cases.cases, cases.sentences)
    assert differences(folder, manifest, bare) == []
    other = copy.deepcopy(manifest)
    permuted(other, folder)
    (found,) = differences(folder, other, bare)
    assert found.startswith("manifest.json: tokenizers.source reads ")
