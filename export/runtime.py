"""Translate with an exported artefact, without TensorFlow or Keras.

    python runtime.py < sentences.txt

This one file needs numpy, one interpreter (``ai-edge-litert`` for the TFLite file, ``onnxruntime`` for the ONNX files) and, where
the vocabulary is made of subwords, ``sentencepiece``. It reads the directory that it lies in, or the one given by ``--artefact``.

As a module::

    from runtime import Artefact
    artefact = Artefact("path/to/artefact", backend="litert")
    for hypotheses in artefact.translate(["a sentence"], n_best=2):
        print(hypotheses[0].text, hypotheses[0].score)

Two routes give the same tokens. The in-graph route runs ``translate``: encoder and beam search in one call, with the beam size fixed at
export. The host loop runs ``encode`` once and ``decode_step`` per token, with any beam size. Each file is checked against the
SHA-256 in ``manifest.json`` before it is read.
"""

import argparse
import dataclasses
import hashlib
import importlib
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

FORMAT_VERSION = 1
Arrays = Mapping[str, np.ndarray]


class ArtefactError(Exception):
    """The artefact, or what was asked of it, is not right; the message says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation: ids without EOS, their pieces, the score it is ranked by, and the attention weights.

    ``log_prob`` is the sum of the tokens' log-probabilities, ``score`` is that sum over the length penalty. ``finished`` is False where
    the maximum length cut the hypothesis. ``alignment`` is ``(target tokens with EOS, source tokens with EOS)``.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    source_tokens: list[str]
    score: float
    log_prob: float
    finished: bool
    alignment: np.ndarray


# --- files ----------------------------------------------------------------------------------------------------------------------


def sha256(path: pathlib.Path) -> str:
    """Hexadecimal SHA-256 of one file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's own content: canonical JSON of everything but the field ``checksum``."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """The manifest of an artefact directory.

    Raises:
        ArtefactError: if there is none, it is damaged or edited, or it is of another format version.
    """
    path = directory / "manifest.json"
    if not path.is_file():
        raise ArtefactError(f"{directory} is not an exported artefact: it has no manifest.json. Expected a directory that `export` wrote.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtefactError(f"{path} is damaged and cannot be read ({error}). Export again.") from None
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        received = manifest.get("format_version") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtefactError(f"{path} is of another version. Expected format_version {FORMAT_VERSION}. Received: {received}. Export again.")
    if manifest.get("checksum") != manifest_checksum(manifest):
        raise ArtefactError(f"{path} was changed after the export (its checksum does not match). Export again, or restore the file.")
    return manifest


def check_file(directory: pathlib.Path, manifest: Mapping[str, Any], name: str) -> pathlib.Path:
    """The path of one file of the artefact, after its size and SHA-256 were compared with the manifest.

    Raises:
        ArtefactError: if the file is missing, cut short or edited.
    """
    path, entry = directory / name, manifest["files"].get(name)
    if entry is None or not path.is_file():
        raise ArtefactError(f"{path} is missing from the artefact. Copy the whole directory again, or export again.")
    if path.stat().st_size != entry["bytes"]:
        raise ArtefactError(
            f"{path} is not the exported file. Expected {entry['bytes']} bytes. Received {path.stat().st_size}. Copy it again, or export again."
        )
    if sha256(path) != entry["sha256"]:
        raise ArtefactError(f"{path} was changed after the export (its SHA-256 does not match). Copy it again, or export again.")
    return path


def require(module: str, package: str) -> Any:
    """Import ``module``, or say which package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArtefactError(f"{package} is needed and cannot be imported ({error}). Run: pip install {package}") from None


# --- text <-> ids ---------------------------------------------------------------------------------------------------------------


class Tokenizer:
    """Text to ids and back, from the tokenizer file of an artefact: subwords, characters or words."""

    def __init__(self, path: pathlib.Path, kind: str, special_ids: Mapping[str, int]):
        self.kind, self.special, self.unknown = kind, set(special_ids.values()), special_ids["unk"]
        if kind == "subword":
            self.processor = require("sentencepiece", "sentencepiece").SentencePieceProcessor(model_file=str(path))
        else:
            self.vocabulary: list[str] = json.loads(path.read_text(encoding="utf-8"))["vocabulary"]
            self.ids = {piece: i for i, piece in enumerate(self.vocabulary) if i not in self.special}

    def encode(self, text: str) -> list[int]:
        if self.kind == "subword":
            return list(self.processor.encode(text))
        pieces = list(text) if self.kind == "char" else text.encode("utf-8").split()
        return [self.ids.get(p if isinstance(p, str) else p.decode("utf-8"), self.unknown) for p in pieces]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        if self.kind == "subword":
            return [self.processor.id_to_piece(int(i)) for i in ids]
        return [self.vocabulary[int(i)] for i in ids]

    def decode(self, ids: Sequence[int]) -> str:
        kept = [int(i) for i in ids if int(i) not in self.special]
        if self.kind == "subword":
            return str(self.processor.decode(kept))
        return ("" if self.kind == "char" else " ").join(self.tokens(kept))


# --- interpreters ---------------------------------------------------------------------------------------------------------------


class LiteRT:
    """The TFLite file: one interpreter, one runner per signature."""

    name, format = "litert", "tflite"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        path = check_file(directory, manifest, manifest["formats"]["tflite"]["file"])
        module = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self.interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        self.runners: dict[str, Any] = {}

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        if signature not in self.runners:
            self.runners[signature] = self.interpreter.get_signature_runner(signature)
        return dict(self.runners[signature](**inputs))


class Onnx:
    """The ONNX files: one session per graph, opened when it is first run."""

    name, format = "onnx", "onnx"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.directory, self.manifest = directory, manifest
        self.module = require("onnxruntime", "onnxruntime")
        self.options = self.module.SessionOptions()
        if threads:
            self.options.intra_op_num_threads = threads
        self.sessions: dict[str, Any] = {}

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        if signature not in self.sessions:
            path = check_file(self.directory, self.manifest, self.manifest["formats"]["onnx"]["files"][signature])
            self.sessions[signature] = self.module.InferenceSession(str(path), self.options, providers=["CPUExecutionProvider"])
        names = list(self.manifest["signatures"][signature]["outputs"])
        return dict(zip(names, self.sessions[signature].run(names, dict(inputs)), strict=True))


BACKENDS: dict[str, Any] = {"litert": LiteRT, "onnx": Onnx}


# --- search on the host -----------------------------------------------------------------------------------------------------------


def length_penalty_divisor(length: np.ndarray, alpha: float) -> np.ndarray:
    """GNMT length penalty ``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14), float32."""
    return (((5.0 + length.astype(np.float32)) / 6.0) ** np.float32(alpha)).astype(np.float32)


def beam_search(
    step: Callable[[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]],
    state: dict[str, np.ndarray],
    batch_size: int,
    source_length: int,
    beam_size: int,
    max_length: int,
    length_penalty: float,
    bos_id: int,
    eos_id: int,
) -> dict[str, np.ndarray]:
    """Beam search (beam size 1: greedy) over ``step(tokens (B*K,), state) -> log_probs (B*K, V), state, alignment (B*K, S)``.

    The K slots of a row hold live and finished hypotheses, ranked by ``log_prob / length_penalty_divisor``; a finished one is frozen. ``state``
    holds B*K rows, row-major by sentence. Result: ``ids (B, K, L)``, ``lengths`` (EOS counted), ``log_probs``, ``scores`` and ``finished``
    ``(B, K)``, ``alignments (B, K, L, S)``, best hypothesis first; an empty slot has score -inf and length 0.
    """
    batch, beams = batch_size, beam_size
    ids = np.zeros((batch, beams, max_length), np.int32)
    alignments = np.zeros((batch, beams, max_length, source_length), np.float32)
    lengths = np.zeros((batch, beams), np.int32)
    log_probs = np.full((batch, beams), -np.inf, np.float32)
    log_probs[:, 0] = 0.0
    scores, finished = log_probs.copy(), np.zeros((batch, beams), bool)
    tokens, rows = np.full((batch * beams,), bos_id, np.int32), np.arange(batch)[:, None]
    for t in range(max_length):
        step_log_probs, new_state, alignment = step(tokens, state)
        vocabulary = step_log_probs.shape[-1]
        grown = log_probs[:, :, None] + step_log_probs.reshape(batch, beams, vocabulary)
        candidates = grown / length_penalty_divisor(np.array(t + 1), length_penalty)
        candidates[finished] = -np.inf
        candidates[:, :, eos_id] = np.where(finished, scores, candidates[:, :, eos_id])
        chosen = np.argsort(-candidates.reshape(batch, -1), axis=1, kind="stable")[:, :beams]
        origin, token = chosen // vocabulary, (chosen % vocabulary).astype(np.int32)
        scores = np.take_along_axis(candidates.reshape(batch, -1), chosen, axis=1)
        was_finished = finished[rows, origin]
        log_probs = np.where(was_finished, log_probs[rows, origin], grown[rows, origin, token])
        empty = np.isneginf(scores)
        ids, alignments, lengths = ids[rows, origin], alignments[rows, origin], lengths[rows, origin]
        live = ~was_finished & ~empty
        ids[:, :, t] = np.where(live, token, 0)
        alignments[:, :, t] = np.where(live[:, :, None], alignment.reshape(batch, beams, -1)[rows, origin], 0.0)
        lengths = np.where(empty, 0, lengths + live)
        finished = was_finished | (live & (token == eos_id))
        flat = (rows * beams + origin).reshape(-1)
        state = {name: value[flat] for name, value in new_state.items()}
        tokens = token.reshape(-1)
        if np.all(finished | empty):
            break
    return {
        "ids": ids,
        "lengths": lengths,
        "log_probs": log_probs,
        "scores": scores,
        "finished": finished,
        "alignments": alignments,
    }
