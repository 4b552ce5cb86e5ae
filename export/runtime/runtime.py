"""Translate with an exported artefact, without TensorFlow or Keras.

    python runtime.py < sentences.txt

This one file needs numpy, one interpreter (`ai-edge-litert` for TFLite files, `onnxruntime` or `openvino` for the ONNX
files) and, where the vocabulary is made of subwords, `sentencepiece`. It reads the artefact directory that it lies
in, or the one given by `--artefact`. As a module:

    from runtime import Artefact
    artefact = Artefact("path/to/artefact", backend="litert")
    for hypotheses in artefact.translate(["a sentence"], n_best=2):
        print(hypotheses[0].text, hypotheses[0].score)

Two routes find the same tokens. The graph `translate` holds the encoder and the beam search, with the beam size fixed
at export. The host loop runs `encode` once and `decode_step` for each token, with any beam size. Both take the knobs
that the manifest names, each with its default: `max_length`, `min_length`, `length_penalty`, `allowed` (which ids may
be written), `prefix` (ids that each translation begins with) and those of the search that was chosen at export. Groups,
phrases, samples, contrastive search and agreement are in the graph alone. Every file is compared with
its SHA-256 in `manifest.json` before it is read.
"""

import argparse
import contextlib
import dataclasses
import errno
import hashlib
import importlib
import json
import os
import pathlib
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

FORMAT_VERSION = 4
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WIDEST, MOST_THREADS = 1000, 256
"""Greatest beam of the host loop, and number of threads."""
Arrays = Mapping[str, np.ndarray]


class ArtefactError(Exception):
    """The artefact, or what was asked of it, is not right; the message says what, where and what to do."""


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation: its text, its ids without EOS and their pieces, scores, and attention weights.

    `log_prob` is the sum of the tokens' log-probabilities, `score` is that sum over the length penalty, `finished` is
    False where the maximum length cut the hypothesis. `alignment` is `(target tokens, source tokens)`, each with EOS.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    source_tokens: list[str]
    score: float
    log_prob: float
    finished: bool
    alignment: np.ndarray


# --- files ---


def sha256(path: pathlib.Path) -> str:
    """Hexadecimal SHA-256 of one file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_checksum(text: str, checksum: str) -> str:
    """SHA-256 of a manifest's text with zeros in place of the checksum that stands in it."""
    return hashlib.sha256(text.replace(checksum, "0" * 64).encode()).hexdigest()


def read_manifest(directory: pathlib.Path) -> dict[str, Any]:
    """The manifest of an artefact directory.

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
    """Raise ArtefactError for the name of a file that does not lie in the artefact."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/") or pathlib.PureWindowsPath(name).drive:
        raise ArtefactError(
            f"{directory} names a file outside of itself. Expected: names below it. Received: {name!r}. Export again."
        )


def check_file(directory: pathlib.Path, manifest: Mapping[str, Any], name: str) -> pathlib.Path:
    """The path of one file of the artefact, after its size and SHA-256 were compared with the manifest.

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


def check_number(value: Any, what: str, low: int, high: int | None = None) -> None:
    """Raise unless `value` is a whole number from `low` to `high`.

    Raises:
        ArtefactError: that says what is out of range.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise ArtefactError(f"The {what} is out of range. Expected: {expected}. Received: {value}")


def require(module: str, package: str) -> Any:
    """Import `module`, or say which package to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArtefactError(
            f"{package} is needed and cannot be imported ({error}). Run: pip install {package}"
        ) from None


# --- text <-> ids ---


class Tokenizer:
    """Text to ids and back, from the tokenizer file of an artefact: subwords, characters or words."""

    def __init__(self, path: pathlib.Path, special_ids: Mapping[str, int]):
        content = json.loads(path.read_text(encoding="utf-8"))
        self.kind: str = content["kind"]
        self.special, self.unknown = set(special_ids.values()), special_ids["unk"]
        if self.kind == "subword":
            check_inside(path.parent, content["model"])
            model = path.parent / content["model"]
            self.processor = require("sentencepiece", "sentencepiece").SentencePieceProcessor(model_file=str(model))
        else:
            self.vocabulary: list[str] = content["vocabulary"]
            self.ids = {piece: i for i, piece in enumerate(self.vocabulary) if i not in self.special}

    def encode(self, text: str) -> list[int]:
        """Ids without BOS and EOS."""
        if self.kind == "subword":
            return list(self.processor.encode(text))
        return [self.ids.get(piece, self.unknown) for piece in self.pieces(text)]

    def pieces(self, text: str) -> list[str]:
        """What is written at each id of `encode`."""
        if self.kind == "subword":
            return [str(piece) for piece in self.processor.encode(text, out_type=str)]
        return list(text) if self.kind == "char" else [word for word in re.split("[ \t\n\r\f\v]+", text) if word]

    def copied(self, text: str, most: int) -> list[str]:
        """Words of a source that the vocabulary lacks and a model can copy: V, V + 1, ... are their ids."""
        read = zip(self.pieces(text), self.encode(text), strict=True) if most else ()
        return list(dict.fromkeys(piece for piece, i in read if i == self.unknown))[:most]

    def encode_source(self, text: str, copied: Sequence[str]) -> list[int]:
        """Ids of a source, with those of the words that can be copied."""
        ids = self.encode(text)
        if not copied:
            return ids
        more = {piece: self.size + number for number, piece in enumerate(copied)}
        return [more.get(piece, i) if i == self.unknown else i for piece, i in zip(self.pieces(text), ids, strict=True)]

    @property
    def size(self) -> int:
        """V, the number of ids."""
        return int(self.processor.get_piece_size()) if self.kind == "subword" else len(self.vocabulary)

    def tokens(self, ids: Iterable[int], copied: Sequence[str] = ()) -> list[str]:
        """The written form of each id."""
        return [self._token(int(i), copied) for i in ids]

    def _token(self, i: int, copied: Sequence[str]) -> str:
        if i >= self.size:
            if i - self.size < len(copied):
                return copied[i - self.size]
            i = self.unknown
        return str(self.processor.id_to_piece(i)) if self.kind == "subword" else self.vocabulary[i]

    def written(self, text: str, what: str) -> list[int]:
        """Ids of what a translation is to begin with, or must not hold.

        Raises:
            ArtefactError: if the vocabulary lacks a part of it.
        """
        ids = self.encode(text) if text else []
        if self.unknown in ids:
            raise ArtefactError(f"The {what} {text!r} holds what the model cannot write. Expected: known words")
        return ids

    def decode(self, ids: Iterable[int], copied: Sequence[str] = ()) -> str:
        """Text of ids; special ids are dropped, and ids that stand for no word."""
        kept = [int(i) for i in ids if int(i) not in self.special and int(i) < self.size + len(copied)]
        if self.kind == "subword":
            if all(i < self.size for i in kept):
                return str(self.processor.decode(kept))
            return "".join(self.tokens(kept, copied)).replace("\u2581", " ").strip()
        return ("" if self.kind == "char" else " ").join(self.tokens(kept, copied))


# --- interpreters ---


class LiteRT:
    """The TFLite file: one interpreter, one runner per signature.

    An interpreter has one set of inputs and outputs, so that threads take turns.
    """

    name, format = "litert", "tflite"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        path = check_file(directory, manifest, manifest["formats"]["tflite"]["file"])
        module = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self.interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        self.runners: dict[str, Any] = {}
        self.turn = threading.Lock()

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.turn:
            if signature not in self.runners:
                self.runners[signature] = self.interpreter.get_signature_runner(signature)
            return dict(self.runners[signature](**inputs))


class Onnx:
    """The ONNX files: one session per graph, opened when it is first run; threads share it and run at the same time."""

    name, format = "onnx", "onnx"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.directory, self.manifest = directory, manifest
        self.module = require("onnxruntime", "onnxruntime")
        self.options = self.module.SessionOptions()
        self.options.log_severity_level = 3  # errors; its warnings are about its own rewriting of loops
        if threads:
            self.options.intra_op_num_threads = threads
        self.sessions: dict[str, Any] = {}
        self.opening = threading.Lock()

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.opening:
            if signature not in self.sessions:
                path = check_file(self.directory, self.manifest, self.manifest["formats"]["onnx"]["files"][signature])
                self.sessions[signature] = self.module.InferenceSession(
                    str(path), self.options, providers=["CPUExecutionProvider"]
                )
        names = list(self.manifest["signatures"][signature]["outputs"])
        return dict(zip(names, self.sessions[signature].run(names, dict(inputs)), strict=True))


class OpenVino:
    """The ONNX files in OpenVINO, in float32 on the CPU: one compiled model per graph.

    Its LSTM does not stop a row's cell state where `sequence_lens` says: rows whose decoder begins with that state (an
    LSTM with the copy bridge) run beside rows of their own length alone. Each call has an inference request of its own:
    a model's shared one refuses a second thread.
    """

    name, format = "openvino", "onnx"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.directory, self.manifest = directory, manifest
        self.core = require("openvino", "openvino").Core()
        self.properties = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.properties["INFERENCE_NUM_THREADS"] = str(threads)
        self.models: dict[str, Any] = {}
        self.requests: dict[str, list[Any]] = {}
        """Inference requests of each graph that no thread is using."""
        self.opening = threading.Lock()
        members = manifest.get("members", [])
        self.one_length = any(member["cell"] == "lstm" and member["bridge"] == "copy" for member in members)

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        source = inputs.get("source_ids")
        if not self.one_length or source is None:
            return self._run(signature, inputs)
        lengths, found = source_lengths(source), {}
        ports = self.manifest["signatures"][signature]
        by_row = [name for name, port in ports["inputs"].items() if port["axes"][:1] == ["batch"]]
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            given = {**inputs, **{name: inputs[name][rows] for name in by_row}}
            part = self._run(signature, {**given, "source_ids": source[rows, : max(length, 1)]})
            for name, value in part.items():
                if name not in found:
                    shape = [len(source), *value.shape[1:]]
                    axes = ports["outputs"][name]["axes"]
                    if "source_length" in axes:
                        shape[axes.index("source_length")] = source.shape[1]
                    found[name] = np.zeros(shape, value.dtype)
                place: Any = (rows, *map(slice, value.shape[1:]))
                found[name][place] = value
        return found

    def _run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        with self.opening:
            if signature not in self.models:
                self.models[signature] = self._compiled(signature)
            requests = self.requests.setdefault(signature, [])
            request = requests.pop() if requests else self.models[signature].create_infer_request()
        outputs = request.infer(dict(inputs))
        names = self.manifest["signatures"][signature]["outputs"]
        found = {name: np.array(outputs[number]) for number, name in enumerate(names)}
        with self.opening:
            self.requests[signature].append(request)
        return found

    def _compiled(self, signature: str) -> Any:
        path = check_file(self.directory, self.manifest, self.manifest["formats"]["onnx"]["files"][signature])
        try:
            return self.core.compile_model(str(path), "CPU", self.properties)
        except RuntimeError as error:  # of lower precision it knows some files
            reason = str(error).strip().splitlines()[-1][:200]
            raise ArtefactError(f"OpenVINO cannot read {path} ({reason}). Expected: a float32 export") from None


class Npu:
    """The static int8 graphs of the NPU target as `encode` and `decode_step`, in LiteRT: the host part of that target.

    What a device does around its graphs is all here: looking words up, handing the backward direction a row reversed
    within its length, zeroing padding, the mean or the final state that the bridge reads, log-softmax, and a row at a
    time in place of a batch. `call` is the one method to replace where other graphs run.
    """

    name, format = "npu", "npu"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.entry = manifest["formats"]["npu"]
        paths = {name: check_file(directory, manifest, file) for name, file in self.entry["files"].items()}
        module = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self.interpreters = {
            name: module.Interpreter(model_path=str(path), num_threads=threads) for name, path in paths.items()
        }
        for interpreter in self.interpreters.values():
            interpreter.allocate_tensors()
        self.runners = {name: one.get_signature_runner(name) for name, one in self.interpreters.items()}
        self.turn = threading.Lock()
        tables = np.load(check_file(directory, manifest, self.entry["embeddings"]), allow_pickle=False)
        self.tables = {side: tables[side] * tables[f"{side}_scale"][:, None] for side in ("source", "target")}

    def call(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """One graph on float arrays: numbers become int8 by each input's scale and zero point, and back."""
        runner, given = self.runners[graph], self.quantised(graph, inputs)
        with self.turn:  # as in `LiteRT`
            if graph.startswith("encode"):  # the fused LSTM keeps its last state: each row starts from zeros
                self.interpreters[graph].reset_all_variables()
            details, found = runner.get_output_details(), runner(**given)
        scales = {name: detail["quantization"] for name, detail in details.items()}
        return {
            name: (value.astype(np.float32) - scales[name][1]) * np.float32(scales[name][0])
            for name, value in found.items()
        }

    def quantised(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """What of float arrays goes into a graph, as int8: `round(x / scale) + zero point`, within -128 .. 127."""
        given = {}
        for name, detail in self.runners[graph].get_input_details().items():
            scale, zero = detail["quantization"]
            given[name] = np.clip(np.rint(inputs[name] / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        return given

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        each = self._encode if signature == "encode" else self._step
        first = next(iter(inputs.values()))
        rows = [each({name: value[row] for name, value in inputs.items()}) for row in range(len(first))]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _encode(self, inputs: Arrays) -> dict[str, np.ndarray]:
        ids = inputs["source_ids"]
        length, room = int(source_lengths(ids[None])[0]), self.entry["source_length"]
        if length > room:
            raise ArtefactError(f"A sentence is too long. Expected: at most {room} tokens with EOS. Received: {length}")
        values = np.zeros((room, self.tables["source"].shape[1]), np.float32)
        values[:length] = self.tables["source"][ids[:length]]
        top: list[np.ndarray] = []
        for layer in range(self.entry["encoder_layers"]):
            rows = {"forward": values[None]}
            if self.entry["bidirectional"]:
                rows["backward"] = reversed_within(values, length)[None]
            found = self.call(f"encode_{layer}", rows)
            top = [found[f"{name}_states"][0] for name in rows]
            both = [top[0], *(reversed_within(one, length) for one in top[1:])]
            below, values = values, np.concatenate(both, axis=1)
            if self.entry["residual"] and layer:
                values += below
            values[length:] = 0.0
        summary = values.sum(axis=0) / np.float32(length)
        if self.entry["bridge_input"] == "final":
            summary = np.concatenate([one[length - 1] for one in top])
        started = self.call("start", {"summary": summary[None], "values": values[None]})
        real = np.arange(len(ids)) < length
        memory = {"mask": real, "values": values, **({"keys": started["keys"][0]} if "keys" in started else {})}
        state = {name: value[0] for name, value in started.items() if name != "keys"}
        if self.entry["feeding"]:
            state["state_attentional"] = np.zeros((self.entry["feeding"],), np.float32)
        if not self.entry["attends"]:
            memory = {"mask": real}
        return {**state, **{f"memory_{name}": value for name, value in memory.items()}}

    def _step(self, inputs: Arrays) -> dict[str, np.ndarray]:
        mask = inputs["memory_mask"]
        bias = np.full((1, self.entry["source_length"]), self.entry["mask_bias"], np.float32)
        bias[0, : len(mask)][mask[: bias.shape[1]]] = 0.0
        given = {"embedded": self.tables["target"][int(inputs["token_ids"])][None], "mask_bias": bias}
        given |= {name.removeprefix("memory_"): v[None] for name, v in inputs.items() if name != "token_ids"}
        found = self.call("decode_step", given)
        logits = found["logits"][0]
        shifted = logits - logits.max()
        alignment: np.ndarray = np.zeros(mask.shape, np.float32)
        if "alignment" in found:
            shown = found["alignment"][0, : len(mask)] * mask[: bias.shape[1]]
            alignment[: len(shown)] = shown / max(float(shown.sum()), 1e-6)
        state = {name: value[0] for name, value in found.items() if name.startswith("next_")}
        return {"log_probs": shifted - np.log(np.exp(shifted).sum()), "alignment": alignment, **state}


def reversed_within(row: np.ndarray, length: int) -> np.ndarray:
    """A row `(S, D)` with its first `length` positions in reverse."""
    return np.concatenate([row[:length][::-1], row[length:]])


BACKENDS: dict[str, Any] = {"litert": LiteRT, "onnx": Onnx, "openvino": OpenVino, "npu": Npu}


# --- knobs ---


def filled(
    port: Mapping[str, Any], knob: Mapping[str, Any], batch: int, generator: np.random.Generator | None = None
) -> np.ndarray:
    """A knob's input with its default everywhere, or drawn; an axis of any size but the batch is 1 long."""
    sizes = [batch if axis == "batch" else axis if isinstance(axis, int) else 1 for axis in port["axes"]]
    if knob.get("random"):
        drawn = (generator or np.random.default_rng()).random(sizes, np.float32)
        return np.asarray(knob["minimum"] + drawn * (knob["maximum"] - knob["minimum"]), port["dtype"])
    return np.full(sizes, knob["default"], port["dtype"])


def knob_values(
    manifest: Mapping[str, Any], batch: int, given: Mapping[str, Any], generator: np.random.Generator | None = None
) -> dict[str, np.ndarray]:
    """Every knob of `translate` as an array: what is given, and the manifest's default for what is not, or is None.

    Raises:
        ArtefactError: for a knob that this artefact has not, and for values of another shape or out of range.
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
    """A knob's value as an array of its type. Raises ArtefactError where that would change it."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    kinds = {"bool": "b", "int32": "iu", "float32": "iuf"}[dtype]
    if array.dtype.kind not in kinds:
        raise ArtefactError(f"The {label} is of another type. Expected: {dtype}, in one array. Received: {value!r}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
        return array.astype(dtype)


def _check_together(values: Arrays, special_ids: Mapping[str, int]) -> None:
    """Raise where knobs contradict each other: a graph cannot."""
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


# --- search on the host ---


def refusals(knobs: Arrays, t: int, special_ids: Mapping[str, int]) -> np.ndarray | None:
    """bool `(1 or B, V)`: the words that may not follow at position t; None if all may.

    Where a prefix stands, all but its word.
    """
    refused = ~knobs["allowed"][None]
    if t + 1 < knobs["min_length"]:
        refused[:, special_ids["eos"]] = True
    forced = knobs["prefix"][:, t : t + 1]
    if (forced != special_ids["pad"]).any():
        others = np.arange(refused.shape[1]) != forced
        refused = np.where(forced == special_ids["pad"], refused, others)
    return refused if refused.any() else None


def repetition_penalised(log_probs: np.ndarray, ids: np.ndarray, penalty: float, eos: int) -> np.ndarray:
    """Log-probabilities `(B*K, V)` of what is among the ids `(B*K, t)` already, times the penalty; EOS aside."""
    rows = np.arange(len(ids))[:, None]
    changed = log_probs.copy()
    changed[rows, ids] = np.where(ids == eos, log_probs[rows, ids], log_probs[rows, ids] * np.float32(penalty))
    return changed


def repeated_ngrams(ids: np.ndarray, vocabulary: int, n: int) -> np.ndarray:
    """bool `(B*K, V)`: the words that would make n tokens in a row that are among the ids `(B*K, t)` already."""
    t = ids.shape[1]
    repeated = np.zeros((len(ids), vocabulary), bool)
    for start in range(t - n + 1):
        same = (ids[:, start : start + n - 1] == ids[:, t - n + 1 : t]).all(axis=1)
        repeated[same, ids[same, start + n - 1]] = True
    return repeated


def only_in_graph(manifest: Mapping[str, Any]) -> str:
    """What `translate` does that the host loop cannot; empty if nothing."""
    search = manifest["search"]
    if search["method"] != "beam":
        return f"method {search['method']}"
    if search["groups"] > 1:
        return "groups of a diverse beam"
    if search["stop"] != "all":
        return "early stop"
    return "phrases" if search["phrases"] else ""


def coverage_term(coverage: np.ndarray, source_mask: np.ndarray, beta: float) -> np.ndarray:
    """`beta * sum_s log(min(coverage_s, 1))` over real positions (Wu et al. 2016, equation 14), float32 `(B, K)`."""
    logs = np.log(np.clip(coverage, np.float32(1e-6), np.float32(1.0))) * source_mask[:, None]
    return np.asarray(np.float32(beta) * logs.sum(axis=2, dtype=np.float32))


def length_penalty_factor(length: int, alpha: float, kind: str = "gnmt") -> np.float32:
    """GNMT's `((5 + length) / 6) ** alpha` (Wu et al. 2016, equation 14), or `length ** alpha` of the average."""
    base = np.float32(5.0 + length) / np.float32(6.0) if kind == "gnmt" else np.float32(length)
    return np.float32(np.power(base, np.float32(alpha)))


def top_indices(values: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest values of each row, best first; of equal values the lower column comes first."""
    thresholds = np.partition(values, -count, axis=1)[:, -count]
    rows = []
    for row, threshold in zip(values, thresholds, strict=True):
        columns = np.flatnonzero(row >= threshold)
        rows.append(columns[np.argsort(-row[columns], kind="stable")[:count]])
    return np.stack(rows)


def beam_search(
    step: Callable[[np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]],
    state: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    limits: np.ndarray,
    knobs: Arrays,
    source_mask: np.ndarray,
    special_ids: Mapping[str, int],
    length_penalty_kind: str = "gnmt",
    no_repeat_ngram: int = 0,
    finished_first: bool = False,
) -> dict[str, np.ndarray]:
    """Beam search (beam size 1: greedy), one `step` for all hypotheses at a time.

    The K slots of a row hold live and finished hypotheses, ranked by log-probability over length penalty, plus the
    coverage penalty; a finished one is frozen. Among equal scores the hypothesis ranked higher before, then the lower
    id, comes first.

    Args:
        step: `step(tokens (B*K,), state) -> log_probs (B*K, V), state, alignments (B*K, S)`.
        state: first state, B*K rows, the K copies of a row side by side.
        shape: B, K, S.
        limits: most tokens of each row, EOS counted, `(B,)`.
        knobs: `min_length`, `length_penalty`, `allowed`, `prefix` and, where the artefact has them,
            `coverage_penalty` and `repetition_penalty`.
        source_mask: bool `(B, S)`, true at the source positions that should be covered.
        special_ids: ids of `pad`, `bos`, `eos`.
        length_penalty_kind: `"gnmt"` or `"average"`.
        no_repeat_ngram: no so many tokens in a row come twice; 0 for no such rule.
        finished_first: whether hypotheses that ended come before those that their limit cut, whatever their scores.

    Returns:
        `ids (B, K, L)`, `lengths` with EOS, `log_probs`, `scores`, `finished`, all `(B, K)`, and `alignments
        (B, K, L, S)`, best first; an empty slot has score -inf and length 0.
    """
    batch, beams, source_length = shape
    max_length = int(limits.max())
    pad, eos = special_ids["pad"], special_ids["eos"]
    length_penalty, beta = float(knobs["length_penalty"]), float(knobs.get("coverage_penalty", 0.0))
    coverage = np.zeros((batch * beams, source_length), np.float32)
    ids = np.full((batch, beams, max_length), pad, np.int32)
    alignments = np.zeros((batch, beams, max_length, source_length), np.float32)
    lengths, finished = np.zeros((batch, beams), np.int32), np.zeros((batch, beams), bool)
    scores = np.full((batch, beams), -np.inf, np.float32)
    scores[:, 0] = 0.0
    # What scores are made of: the model's log-probabilities, and the same after a penalty on repetition.
    log_probs, totals, active = scores, scores, np.isfinite(scores)
    repetition = float(knobs.get("repetition_penalty", 1.0))
    tokens, rows = np.full((batch * beams,), special_ids["bos"], np.int32), np.arange(batch)[:, None]
    for t in range(max_length):
        step_log_probs, state, alignment = step(tokens, state)
        vocabulary, changed = step_log_probs.shape[-1], step_log_probs
        forced = knobs["prefix"][:, t : t + 1] if t < knobs["prefix"].shape[1] else np.full((batch, 1), pad)
        history, free = ids.reshape(batch * beams, -1)[:, :t], np.repeat(forced[:, 0] == pad, beams)
        if repetition != 1.0:  # where a prefix stands, nothing else counts
            penalised = repetition_penalised(step_log_probs, history, repetition, eos)
            changed = np.where(free[:, None], penalised, step_log_probs)
        model_table = log_probs[:, :, None] + step_log_probs.reshape(batch, beams, vocabulary)
        extended = totals[:, :, None] + changed.reshape(batch, beams, vocabulary)
        ranked = extended / length_penalty_factor(t + 1, length_penalty, length_penalty_kind)
        if beta != 0:
            coverage += alignment
            ranked += coverage_term(coverage.reshape(batch, beams, -1), source_mask, beta)[:, :, None]
        possible, refused = active[:, :, None], refusals(knobs, t, special_ids)
        if refused is not None:
            possible = possible & ~refused[:, None]
        if no_repeat_ngram:
            repeated = repeated_ngrams(history, vocabulary, no_repeat_ngram) & free[:, None]
            possible = possible & ~repeated.reshape(batch, beams, vocabulary)
        candidates = np.where(possible, ranked, -np.inf)
        candidates[:, :, pad] = np.where(active, -np.inf, scores)  # a frozen hypothesis has one candidate: itself
        flat = candidates.reshape(batch, beams * vocabulary)
        chosen = top_indices(flat, beams)
        slots, words = chosen // vocabulary, (chosen % vocabulary).astype(np.int32)
        scores = np.take_along_axis(flat, chosen, axis=1)
        filled = np.isfinite(scores)
        grown = active[rows, slots] & filled
        ended = grown & (words == eos)
        log_probs = np.where(grown, model_table[rows, slots, words], log_probs[rows, slots])
        totals = np.where(grown, extended[rows, slots, words], totals[rows, slots])
        lengths = np.where(filled, lengths[rows, slots] + grown, 0).astype(np.int32)
        finished = (finished[rows, slots] & filled) | ended
        active = grown & ~ended & (t + 1 < limits)[:, None]
        ids, alignments = ids[rows, slots], alignments[rows, slots]
        ids[:, :, t] = np.where(grown, words, pad)
        new_alignment = alignment.reshape(batch, beams, source_length)[rows, slots]
        alignments[:, :, t] = np.where(grown[:, :, None], new_alignment, 0.0)
        parents = (rows * beams + slots).reshape(-1)
        state = {name: value[parents] for name, value in state.items()}
        coverage = coverage[parents]
        tokens = ids[:, :, t].reshape(-1)
        if not active.any():
            break
    found = {
        "ids": np.where(filled[:, :, None], ids, pad),
        "lengths": lengths,
        "log_probs": np.where(filled, log_probs, -np.inf).astype(np.float32),
        "scores": scores,
        "finished": finished,
        "alignments": np.where(filled[:, :, None, None], alignments, 0.0).astype(np.float32),
    }
    if finished_first:
        order = np.argsort(~finished, axis=1, kind="stable")
        found = {name: value[rows, order] for name, value in found.items()}
    return found


def source_name(source: np.ndarray) -> str:
    """The graphs' name of a source: ids, or features."""
    return "source_ids" if source.ndim == 2 else "source_features"


def source_lengths(source: np.ndarray) -> np.ndarray:
    """Positions of each row up to the last one that is not padding, which is 0."""
    filled = source != 0 if source.ndim == 2 else (source != 0).any(axis=2)
    lengths = source.shape[1] - np.argmax(filled[:, ::-1], axis=1)
    return np.where(filled.any(axis=1), lengths, 0)


def search_on_host(
    backend: Any, manifest: Mapping[str, Any], source_ids: np.ndarray, beam_size: int, knobs: Arrays
) -> dict[str, np.ndarray]:
    """`beam_search` over the graphs `encode`, once, and `decode_step`, once for each position.

    Raises:
        ArtefactError: where `translate` does what `beam_search` cannot.
    """
    missing, fixed = only_in_graph(manifest), manifest["search"]
    if missing:
        raise ArtefactError(
            f"The host loop knows no {missing}: only the graph does. Expected: no host loop, and the exported beam size"
        )
    batch, source_length = source_ids.shape[:2]
    encoded = backend.run("encode", {source_name(source_ids): source_ids})
    tiled = {name: np.repeat(value, beam_size, axis=0) for name, value in encoded.items()}
    updates: dict[str, str] = manifest["state_updates"]
    memory = {name: value for name, value in tiled.items() if name not in updates}

    def step(tokens: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        outputs = backend.run("decode_step", {"token_ids": tokens, **state, **memory})
        return outputs["log_probs"], {name: outputs[new] for name, new in updates.items()}, outputs["alignment"]

    state = {name: tiled[name] for name in updates}
    lengths = source_lengths(source_ids)
    limits = np.full((batch,), int(knobs["max_length"]))
    if manifest["max_length_factor"] is not None:
        relative = np.floor(lengths.astype(np.float32) * np.float32(manifest["max_length_factor"]))
        limits = np.maximum(np.minimum(limits, relative.astype(int) + manifest["max_length_offset"]), 1)
    mask = np.arange(source_length) < lengths[:, None]
    shape, special = (batch, beam_size, source_length), manifest["special_ids"]
    rules = fixed["length_penalty_kind"], fixed["no_repeat_ngram"], fixed.get("finished_first", False)
    return beam_search(step, state, shape, limits, knobs, mask, special, *rules)


def has_translate(backend: Any, manifest: Mapping[str, Any]) -> bool:
    """Whether the format of a backend holds the graph `translate`, or only the two that the host loop runs."""
    return "translate" in manifest["formats"][backend.format]["signatures"]


def run_translate(backend: Any, manifest: Mapping[str, Any], inputs: Arrays) -> dict[str, np.ndarray]:
    """`translate` with all of its inputs, by the host loop where the format holds no such graph: the same outputs."""
    if has_translate(backend, manifest):
        found: dict[str, np.ndarray] = backend.run("translate", inputs)
        return found
    source = next(inputs[name] for name in ("source_ids", "source_features") if name in inputs)
    knobs = {name: inputs[name] for name in manifest["knobs"]}
    found = search_on_host(backend, manifest, source, manifest["beam_size"], knobs)
    more = manifest["signatures"]["translate"]["outputs"]["ids"]["axes"][2] - found["ids"].shape[2]
    padded = np.pad(found["ids"], ((0, 0), (0, 0), (0, more)), constant_values=manifest["special_ids"]["pad"])
    return {**found, "ids": padded, "alignments": np.pad(found["alignments"], ((0, 0), (0, 0), (0, more), (0, 0)))}


# --- the artefact ---


class Artefact:
    """A translator read from an artefact directory.

    Args:
        directory: what `export` wrote.
        backend: `litert`, `onnx`, `openvino`, `npu`, or `auto`: the first whose file is here and whose interpreter can
            be imported.
        threads: interpreter threads; None leaves the interpreter's own choice.

    One artefact may be shared by threads: each call gives what it gives alone. A forked process opens its own: an
    interpreter's threads stay behind.

    Raises:
        ArtefactError: on a missing, edited or cut file, a missing interpreter, an artefact that holds no translator, or
            a number of threads out of range.
    """

    def __init__(self, directory: str | pathlib.Path, backend: str = "auto", threads: int | None = None):
        if threads is not None:
            check_number(threads, "number of threads", 1, MOST_THREADS)
        self.directory = pathlib.Path(directory)
        self.process = os.getpid()
        self.manifest = read_manifest(self.directory)
        if self.manifest["kind"] != "translator":
            raise ArtefactError(
                f"{directory} holds no translator but a {self.manifest['kind']}: run its files with an interpreter."
            )
        self.special: dict[str, int] = self.manifest["special_ids"]
        self.copy_words: int = self.manifest.get("copy_words", 0)
        self.backend = self._open(backend, threads)
        self.source, self.target = (self._tokenizer(side) for side in ("source", "target"))

    def _open(self, backend: str, threads: int | None) -> Any:
        if backend not in ("auto", *BACKENDS):
            raise ArtefactError(f"Unknown backend. Expected: one of auto, {', '.join(BACKENDS)}. Received: {backend!r}")
        present = [name for name, kind in BACKENDS.items() if kind.format in self.manifest["formats"]]
        wanted = present if backend == "auto" else [backend]
        if not set(wanted) & set(present):
            raise ArtefactError(
                f"{self.directory} holds no file for {backend}. Expected: a tflite, onnx or npu export. "
                f"Received: {', '.join(self.manifest['formats'])}."
            )
        problems = []
        for name in wanted:
            try:
                return BACKENDS[name](self.directory, self.manifest, threads)
            except ArtefactError as error:
                if "pip install" not in str(error) or len(wanted) == 1:
                    raise
                problems.append(str(error))
        raise ArtefactError(" Or: ".join(problems))

    def _tokenizer(self, side: str) -> Tokenizer | None:
        entry = self.manifest["tokenizers"].get(side)
        if entry is None:
            return None
        for name in entry["files"]:
            check_file(self.directory, self.manifest, name)
        return Tokenizer(self.directory / entry["file"], self.special)

    def check_ids(self, rows: Sequence[Sequence[int]], what: str = "row") -> None:
        """Raise unless every row is one that the model can read: a graph itself cannot.

        Raises:
            ArtefactError: if an id is outside the vocabulary, or a row is too long for a location score.
        """
        vocabulary = self.manifest["source_vocabulary"] + self.copy_words
        limit = self.manifest["max_source_length"]
        for number, row in enumerate(rows, start=1):
            outside = [int(i) for i in row if not 0 <= i < vocabulary]
            if outside:
                raise ArtefactError(
                    f"{what} {number}: an id is outside the vocabulary. Expected: 0 to {vocabulary - 1}. "
                    f"Received: {outside[0]}"
                )
            if limit is not None and len(row) > limit:
                raise ArtefactError(
                    f"{what} {number} is too long for this model. Expected: at most {limit} tokens with EOS. "
                    f"Received: {len(row)}. Split the sentence"
                )

    def _as_source(self, source: Any) -> np.ndarray:
        """Ids as int32, features as float32. Raises ArtefactError for another shape, and for ids that are no ints."""
        features = self.manifest.get("source_features")
        try:
            given = np.asarray(source)
        except ValueError:  # rows of different lengths
            given = np.zeros(())
        shape = given.shape
        if len(shape) != (2 if features is None else 3) or (features and shape[2] != features) or 0 in shape:
            wanted = "ids (batch, length)" if features is None else f"features (batch, length, {features})"
            received = shape if given.ndim else "rows of different lengths, or one number"
            raise ArtefactError(f"A source of another shape. Expected: {wanted}. Received: {received}")
        if features is None and given.dtype.kind not in "iu":
            raise ArtefactError(f"The source is of another type. Expected: int32 ids. Received: {given.dtype}")
        return given.astype(np.int32 if features is None else np.float32)

    def _check_padding(self, source: np.ndarray) -> None:
        """Raise unless rows end with EOS, and padding stands behind it alone."""
        pad, eos = self.special["pad"], self.special["eos"]
        real = source != pad
        lengths = real.sum(axis=1)
        last = source[np.arange(len(source)), lengths - 1]
        wrong = (real[:, 1:] & ~real[:, :-1]).any(axis=1) | (lengths == 0) | (last != eos)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ArtefactError(
                f"row {row + 1} is no source. Expected: ids, EOS ({eos}), then padding ({pad}) alone. "
                f"Received: {source[row].tolist()}"
            )

    def _check_features(self, source: np.ndarray) -> None:
        limit, shape = self.manifest["max_source_length"], source.shape
        if limit is not None and shape[1] > limit:
            raise ArtefactError(
                f"The source is too long for this model. Expected: at most {limit} positions. Received: {shape[1]}"
            )
        if not np.isfinite(source).all():
            raise ArtefactError("The source holds numbers that are not finite. Expected: finite numbers")
        if not source_lengths(source).all():
            row = int(np.argmin(source_lengths(source)))
            raise ArtefactError(
                f"Row {row + 1} is empty: wholly 0, which is padding. Expected: something at one position"
            )

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Checked source ids of each sentence, with EOS.

        Raises:
            ArtefactError: for what is no text, an empty sentence, one that is longer than those of training, and what
                `check_ids` raises.
        """
        if self.source is None:
            raise ArtefactError(f"{self.directory} was exported without tokenizers: use `search` with ids.")
        for number, text in enumerate(sentences, start=1):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ArtefactError(f"line {number} holds a lone surrogate, which is no text. Expected: Unicode text")
        copied = [self.source.copied(text, self.copy_words) for text in sentences]
        rows = [
            [*self.source.encode_source(text, words), self.special["eos"]]
            for text, words in zip(sentences, copied, strict=True)
        ]
        most = self.manifest.get("trained_source_length")
        for number, row in enumerate(rows, start=1):
            if len(row) == 1 or not sentences[number - 1].strip():
                raise ArtefactError(f"line {number} is empty. Expected: a sentence. Remove the line")
            if most is not None and len(row) - 1 > most:
                raise ArtefactError(
                    f"line {number}: {len(row) - 1} tokens. Expected: at most {most}, the limit of training. "
                    "Split the sentence"
                )
        self.check_ids(rows, "line")
        return rows

    def pad(self, rows: Sequence[Sequence[int]], least: int = 0) -> np.ndarray:
        """Rows of ids, right-padded to `(B, S)` int32, S at least `least`."""
        padded = np.full((len(rows), max(least, *(len(row) for row in rows))), self.special["pad"], np.int32)
        for line, ids in zip(padded, rows, strict=True):
            line[: len(ids)] = ids
        return padded

    def search(
        self,
        source_ids: np.ndarray,
        beam_size: int | None = None,
        host_loop: bool = False,
        seed: int | np.random.Generator | None = None,
        **knobs: Any,
    ) -> dict[str, np.ndarray]:
        """Searches padded ids `(B, S)`, or features `(B, S, F)`, with the result that `beam_search` describes.

        Args:
            source_ids: the source.
            beam_size: another than the exported one takes the host loop; None is the exported one.
            host_loop: search on the host in any case.
            seed: of the numbers that samples are drawn by, or what draws them; None for other ones each time.
            **knobs: of `knob_values`; None is the default of the manifest.

        Raises:
            ArtefactError: for a source that the model cannot read, and knobs that are out of range.
        """
        if self.process != os.getpid():
            raise ArtefactError(
                "The artefact was opened by another process, whose threads a fork does not copy. Expected: an Artefact "
                "of this process's own"
            )
        exported = self.manifest["beam_size"]
        beam_size = exported if beam_size is None else beam_size
        check_number(beam_size, "beam size", 1, max(WIDEST, exported))
        if seed is not None and not isinstance(seed, np.random.Generator):
            check_number(seed, "seed", 0)
        source_ids = self._as_source(source_ids)
        if source_ids.ndim == 2:
            self.check_ids(source_ids.tolist())
            self._check_padding(source_ids)
        else:
            self._check_features(source_ids)
        values = knob_values(self.manifest, len(source_ids), knobs, np.random.default_rng(seed))
        if host_loop or beam_size != exported or not has_translate(self.backend, self.manifest):
            return search_on_host(self.backend, self.manifest, source_ids, beam_size, values)
        outputs: dict[str, np.ndarray] = self.backend.run("translate", {source_name(source_ids): source_ids, **values})
        return outputs

    def allowed(self, banned: Sequence[str]) -> np.ndarray | None:
        """The knob `allowed` with some tokens banned; None, its default, where there are none.

        Raises:
            ArtefactError: for a word that is unknown, or of several tokens, and for a text in place of a list.
        """
        if not banned:
            return None
        if isinstance(banned, str):
            raise ArtefactError(f"Expected: a list of banned tokens. Received: {banned!r}")
        assert self.target is not None
        allowed = np.ones(self.manifest["signatures"]["translate"]["inputs"]["allowed"]["axes"], bool)
        for word in banned:
            ids = self.target.written(word, "banned word")
            if len(ids) != 1:
                raise ArtefactError(
                    f"The banned word {word!r} is not one token. Expected: a token of the target vocabulary. "
                    f"Received: {self.target.tokens(ids)}"
                )
            allowed[ids[0]] = False
        return allowed

    def prefixes(self, texts: str | Sequence[str], count: int) -> list[list[int]]:
        """Ids of what each of `count` translations begins with: one text for all, or one for each.

        Raises:
            ArtefactError: for unknown words, and another number of texts.
        """
        assert self.target is not None
        each = [texts] * count if isinstance(texts, str) else list(texts)
        if len(each) != count:
            raise ArtefactError(f"Expected: a prefix for each of {count} sentences. Received: {len(each)}")
        return [self.target.written(text, "prefix") for text in each]

    def _begun(self, prefixes: Sequence[Sequence[int]]) -> np.ndarray | None:
        """The knob `prefix`; None where there is neither a prefix nor such a knob."""
        return self.pad(prefixes, 1) if any(prefixes) or "prefix" in self.manifest["knobs"] else None

    def phrase_ids(self, texts: Sequence[str]) -> np.ndarray | None:
        """The knob `phrases` for one row; None, its default, where there are no texts.

        Raises:
            ArtefactError: for unknown words, more phrases or tokens than there is room for, a text in place of a list.
        """
        if isinstance(texts, str):
            raise ArtefactError(f"Expected: a list of phrases. Received: {texts!r}")
        if not texts:
            return None
        room = self.manifest["search"]["phrases"]
        if room is None:
            raise ArtefactError("The artefact has no knob 'phrases'. Expected: one exported with room for phrases")
        assert self.target is not None
        rows = [self.target.written(text, "phrase") for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not 1 <= len(row) <= room[1]:
                raise ArtefactError(
                    f"The phrase {text!r} does not fit. Expected: 1 to {room[1]} tokens. Received: {len(row)}"
                )
        if len(rows) > room[0]:
            raise ArtefactError(f"Too many phrases. Expected: at most {room[0]}. Received: {len(rows)}")
        phrases = np.full(room, self.special["pad"], np.int32)
        for line, row in zip(phrases, rows, strict=False):
            line[: len(row)] = row
        return phrases

    def translate(
        self,
        sentences: Sequence[str],
        n_best: int = 1,
        batch_size: int = 16,
        beam_size: int | None = None,
        host_loop: bool = False,
        prefix: str | Sequence[str] = "",
        banned: Sequence[str] = (),
        required: Sequence[str] = (),
        seed: int | None = None,
        **knobs: Any,
    ) -> Iterator[list[Hypothesis]]:
        """The `n_best` hypotheses of each sentence, best first, in the order of the sentences.

        Args:
            sentences: text.
            n_best: most hypotheses of each.
            batch_size: sentences at a time.
            beam_size, host_loop: see `search`.
            prefix: what each translation begins with: one text for all, or one for each.
            banned: tokens that no translation holds.
            required: phrases that each translation holds, where the artefact has room for them.
            seed: of samples.
            **knobs: the others of the manifest, as `max_length` or `length_penalty`.

        Raises:
            ArtefactError: before the first result, if a sentence cannot be read or a number is out of range.
        """
        beams = self.manifest["beam_size"] if beam_size is None else beam_size
        check_number(beams, "beam size", 1, max(WIDEST, self.manifest["beam_size"]))
        if not 1 <= n_best <= beams:
            raise ArtefactError(f"n-best is out of range. Expected: 1 to the beam size {beams}. Received: {n_best}")
        check_number(batch_size, "batch size", 1)
        if seed is not None:
            check_number(seed, "seed", 0)
        rows = self.encode(sentences)
        first_words = self.prefixes(prefix, len(rows))
        allowed = self.allowed(banned)
        if knobs.get("allowed") is not None:
            allowed = np.asarray(knobs["allowed"]) & (True if allowed is None else allowed)
        asked = {**knobs, "allowed": allowed}
        phrases, generator = self.phrase_ids(required), np.random.default_rng(seed)
        if phrases is not None:
            asked["phrases"] = np.repeat(phrases[None], len(rows), axis=0)
        if rows:
            knob_values(self.manifest, len(rows), {**asked, "prefix": self._begun(first_words)})
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            begun = self._begun(first_words[start : start + batch_size])
            if phrases is not None:
                asked["phrases"] = np.repeat(phrases[None], len(batch), axis=0)
            result = self.search(self.pad(batch), beam_size, host_loop, generator, prefix=begun, **asked)
            for row, ids in enumerate(batch):
                copied = self.source.copied(sentences[start + row], self.copy_words) if self.source else []
                found = [k for k in range(n_best) if result["lengths"][row, k] > 0]
                yield [self._hypothesis(result, row, k, ids, copied) for k in found]

    def _hypothesis(
        self, result: Arrays, row: int, slot: int, source_ids: Sequence[int], copied: Sequence[str]
    ) -> Hypothesis:
        assert self.source is not None
        assert self.target is not None
        length, finished = int(result["lengths"][row, slot]), bool(result["finished"][row, slot])
        ids = [int(i) for i in result["ids"][row, slot, : length - finished]]
        return Hypothesis(
            text=self.target.decode(ids, copied),
            ids=ids,
            tokens=self.target.tokens(ids, copied),
            source_tokens=self.source.tokens(source_ids, copied),
            score=float(result["scores"][row, slot]),
            log_prob=float(result["log_probs"][row, slot]),
            finished=finished,
            alignment=np.asarray(result["alignments"][row, slot, :length, : len(source_ids)]),
        )


# --- command ---

KNOB_OPTIONS = (
    "max_length",
    "min_length",
    "length_penalty",
    "coverage_penalty",
    "repetition_penalty",
    "diversity",
    "temperature",
    "top_p",
    "alpha",
    "backward_weight",
)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Translate standard input, one sentence per line, to standard output.")
    parser.add_argument(
        "--artefact",
        default=str(pathlib.Path(__file__).resolve().parent),
        help="artefact directory (default: this file's)",
    )
    parser.add_argument("--backend", default="auto", choices=["auto", *BACKENDS])
    parser.add_argument("--beam", type=int, help="beam size; another than the exported one takes the host loop")
    parser.add_argument("--n-best", type=int, default=1, help="hypotheses per sentence, best first")
    parser.add_argument("--scores", action="store_true", help="write the score and a tab before each hypothesis")
    parser.add_argument(
        "--alignments", metavar="FILE", help="write one JSON object per hypothesis: tokens and attention weights"
    )
    parser.add_argument("--max-length", type=int, help="longest translation, in tokens with EOS")
    parser.add_argument("--min-length", type=int, help="shortest translation, in tokens with EOS")
    parser.add_argument("--length-penalty", type=float, help="exponent of the GNMT length penalty")
    parser.add_argument("--coverage-penalty", type=float, help="beta of the GNMT coverage penalty")
    parser.add_argument("--repetition-penalty", type=float, help="above 1, makes tokens that are there less likely")
    parser.add_argument("--diversity", type=float, help="how much groups avoid each other's words")
    parser.add_argument("--temperature", type=float, help="of samples; below 1 likely words come more often")
    parser.add_argument("--top-p", type=float, help="samples are drawn from the words that hold this probability")
    parser.add_argument("--seed", type=int, help="of samples")
    parser.add_argument("--alpha", type=float, help="of contrastive search")
    parser.add_argument("--backward-weight", type=float, help="of agreement between both directions")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="what each translation begins with")
    parser.add_argument("--ban", action="append", metavar="TOKEN", help="a token that no translation holds; repeat")
    parser.add_argument("--require", action="append", metavar="TEXT", help="what each translation holds; repeat")
    parser.add_argument("--host-loop", action="store_true", help="search in Python over encode and decode_step")
    parser.add_argument("--batch", type=int, default=16, help="sentences per call")
    parser.add_argument("--threads", type=int, help="interpreter threads")
    return parser.parse_args(arguments)


def read_lines(content: bytes) -> list[str]:
    """The lines of a UTF-8 text, without line ends (\\n or \\r\\n) and without a byte order mark.

    Raises:
        ArtefactError: that names the line with other bytes.
    """
    content = content.removeprefix(BYTE_ORDER_MARK)
    lines = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], start=1):
        try:
            lines.append(line.rstrip(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ArtefactError(
                f"standard input, line {number}, is not UTF-8 text ({error}). Convert it first"
            ) from None
    return lines


def warn_of_unknown(artefact: Artefact, sentences: Sequence[str]) -> None:
    """Say on standard error which lines hold what the vocabulary does not."""
    for number, row in enumerate(artefact.encode(sentences), start=1):
        count = row.count(artefact.special["unk"])
        if count:
            say(f"warning: line {number}: {count} token(s) not in the vocabulary")


def check_streams() -> None:
    """Raise where a standard stream is closed, as by `<&-`."""
    for stream, name in ((sys.stdin, "input"), (sys.stdout, "output")):
        if stream is None:
            raise ArtefactError(f"Standard {name} is closed. Expected: an open one, or /dev/null")


def say(message: str) -> None:
    """One line on standard error, where it is open: `print` would take the standard output in its place."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(message, file=sys.stderr)


def no_more_output() -> None:
    """Let go what nobody reads any more: the interpreter would complain of it when it ends."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; a mistake is one line on standard error and status 1.

    A reader that goes away (`| head -1`) ends it in silence, with status 1 too.
    """
    options = parse(arguments)
    try:
        check_streams()
        artefact = Artefact(options.artefact, options.backend, options.threads)
        sentences = read_lines(sys.stdin.buffer.read())
        knobs = {name: getattr(options, name) for name in KNOB_OPTIONS}
        found = artefact.translate(
            sentences,
            options.n_best,
            options.batch,
            options.beam,
            options.host_loop,
            options.prefix,
            options.ban or (),
            options.require or (),
            options.seed,
            **knobs,
        )
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(options.alignments, "w", encoding="utf-8")) if options.alignments else None
            for number, hypotheses in enumerate(found, start=1):
                if number == 1:
                    warn_of_unknown(artefact, sentences)
                for hypothesis in hypotheses:
                    prefix = f"{hypothesis.score:.6f}\t" if options.scores else ""
                    sys.stdout.buffer.write(f"{prefix}{hypothesis.text}\n".encode())
                    if file:
                        fields = dataclasses.asdict(hypothesis)
                        fields |= {"line": number, "alignment": hypothesis.alignment.round(6).tolist()}
                        file.write(json.dumps(fields, ensure_ascii=False) + "\n")
                sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        no_more_output()
        raise
    except (ArtefactError, OSError) as error:
        if not (isinstance(error, OSError) and error.errno == errno.EPIPE):
            say(f"error: {error}")
        if isinstance(error, OSError):
            no_more_output()
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
