"""A translator read from an artefact directory."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .backends import BACKENDS
from .errors import MOST_THREADS, WIDEST, ArtefactError, MissingPackageError, check_number
from .host_loop import has_translate, search_on_host
from .inputs import Arrays, check_ids, checked_source, padded, source_name
from .knobs import allowed_tokens, knob_values, phrase_ids, prefix_ids
from .manifest import check_file, read_manifest
from .tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Hypothesis:
    """One translation: text, ids without EOS and their pieces, scores, and attention weights.

    `log_prob` is the sum of the tokens' log-probabilities, `score` that sum over the length penalty. `finished` is
    False if the maximum length cut the hypothesis. `alignment` is `(target tokens, source tokens)`, each with EOS.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    source_tokens: list[str]
    score: float
    log_prob: float
    finished: bool
    alignment: np.ndarray


class Artefact:
    """A translator read from an artefact directory.

    Args:
        directory: the artefact.
        backend: `litert`, `onnx`, `openvino`, `npu`, or `auto`: the first whose file is present and whose interpreter
            can be imported.
        threads: interpreter threads; None: the interpreter's default.

    Threads may share one artefact: concurrent calls are independent. A forked process must open its own, because an
    interpreter's threads do not survive a fork.

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
            except MissingPackageError as error:
                if len(wanted) == 1:
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

    def encode(self, sentences: Sequence[str]) -> list[list[int]]:
        """Return the checked source ids of each sentence, with EOS.

        Raises:
            ArtefactError: for a lone surrogate, an empty sentence, one longer than those of training, and as
                `check_ids` does.
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

    def check_ids(self, rows: Sequence[Sequence[int]], what: str = "row") -> None:
        """Raise unless the model can read every row of ids: see `inputs.check_ids`."""
        check_ids(rows, self.manifest, what)

    def pad(self, rows: Sequence[Sequence[int]], least: int = 0) -> np.ndarray:
        """Return rows of ids as int32 `(B, S)`, padded on the right, S at least `least`."""
        return padded(rows, self.special["pad"], least)

    def allowed(self, banned: Sequence[str]) -> np.ndarray | None:
        """Return the knob `allowed` without the banned tokens: see `knobs.allowed_tokens`."""
        assert self.target is not None
        return allowed_tokens(
            banned, self.target, self.manifest["signatures"]["translate"]["inputs"]["allowed"]["axes"]
        )

    def search(
        self,
        source_ids: np.ndarray,
        beam_size: int | None = None,
        host_loop: bool = False,
        seed: int | np.random.Generator | None = None,
        **knobs: Any,
    ) -> dict[str, np.ndarray]:
        """Search padded ids `(B, S)` or features `(B, S, F)`, with the result that `beam_search` describes.

        Args:
            source_ids: the source.
            beam_size: a size other than the exported one uses the host loop; None is the exported one.
            host_loop: always search on the host.
            seed: seed or generator of the samples; None for new ones each time.
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
        source_ids = checked_source(source_ids, self.manifest)
        values = knob_values(self.manifest, len(source_ids), knobs, np.random.default_rng(seed))
        if host_loop or beam_size != exported or not has_translate(self.backend, self.manifest):
            return search_on_host(self.backend, self.manifest, source_ids, beam_size, values)
        outputs: dict[str, np.ndarray] = self.backend.run("translate", {source_name(source_ids): source_ids, **values})
        return outputs

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
        """Yield the `n_best` hypotheses of each sentence, best first, in the order of the sentences.

        Args:
            sentences: text.
            n_best: maximum number of hypotheses of each.
            batch_size: sentences per batch.
            beam_size, host_loop: see `search`.
            prefix: prefix of each translation: one text for all, or one for each.
            banned: tokens that are never generated.
            required: required phrases of each translation, if the artefact has room for them.
            seed: seed of the samples.
            **knobs: further knobs of the manifest, such as `max_length` or `length_penalty`.

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
        assert self.target is not None
        first_words = prefix_ids(prefix, len(rows), self.target)
        allowed = self.allowed(banned)
        if knobs.get("allowed") is not None:
            allowed = np.asarray(knobs["allowed"]) & (True if allowed is None else allowed)
        asked = {**knobs, "allowed": allowed}
        phrases, generator = phrase_ids(required, self.target, self.manifest), np.random.default_rng(seed)
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

    def _begun(self, prefixes: Sequence[Sequence[int]]) -> np.ndarray | None:
        """Return the knob `prefix`; `None` if there is neither a prefix nor such a knob."""
        return self.pad(prefixes, 1) if any(prefixes) or "prefix" in self.manifest["knobs"] else None

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
