"""The run directory: model, tokenizers and settings, written by training and read by everything else.

    RUN/config.json      {"format_version": 1, "task": …, "model": {…}, "source_tokenizer": file,
                          "target_tokenizer": file, "training": {…}, "files", "id" and "fingerprint": what
                          ties the files together, see `run_fingerprint`}
    RUN/model.keras      the best weights, saved uncompiled
    RUN/*.tok.json       the tokenizers (subwords: and *.tok.model)
    RUN/samples.txt       held-out source sentences, one per line, for verification and plots
    RUN/references.txt    references of each sample, several separated by tabs
    RUN/history.csv, metrics.json, README.md, plots/, checkpoints/

Every file is written under a temporary name and renamed, so that a crash or a full disk keeps the previous one.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_attention.errors import UserError
from keras_attention.files import write_atomically, write_json
from keras_attention.former_settings import with_present_names
from keras_attention.run_fingerprint import check, check_model, identify, read_stamp, seal, stamp
from keras_attention.text.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from keras_attention.models.config import Seq2SeqConfig

FORMAT_VERSION = 1


class RunDirectory:
    """One run on disk. `open` checks it; `create` writes a new one; attributes load their file on first access.

    Args of the constructor: `path`, the folder; `metadata`, the content of config.json.
    """

    def __init__(self, path: str | pathlib.Path, metadata: dict[str, Any]) -> None:
        self.path = pathlib.Path(path)
        self.metadata = metadata

    @classmethod
    def create(cls, path: str | pathlib.Path, metadata: dict[str, Any]) -> RunDirectory:
        """Write config.json (last: its presence says that the tokenizers are there) and return the run.

        An existing model.keras without a run's id becomes the model of this run.
        """
        run = cls.new(path, metadata)
        if run.model_path.exists() and read_stamp(run.model_path) is None:
            content = run.model_path.read_bytes()
            run._write_model(lambda temporary: temporary.write_bytes(content))
        run.save()
        return run

    @classmethod
    def new(cls, path: str | pathlib.Path, metadata: dict[str, Any]) -> RunDirectory:
        """Return a run whose tokenizers are written but not yet config.json; `save` writes it."""
        return cls(path, identify(pathlib.Path(path), {"format_version": FORMAT_VERSION, **metadata}))

    def save(self) -> None:
        """Write config.json, with the fingerprint of its content."""
        self.metadata = seal(self.metadata)
        write_json(self.path / "config.json", self.metadata)

    def save_model(self, model: Any) -> None:
        """Write model.keras: a `keras.Model` becomes the model of this run."""
        self._write_model(model.save)

    def _write_model(self, write: Callable[[pathlib.Path], Any]) -> None:
        def write_and_stamp(temporary: pathlib.Path) -> None:
            write(temporary)
            stamp(temporary, self.metadata)

        write_atomically(self.model_path, write_and_stamp)

    @classmethod
    def open(cls, path: str | pathlib.Path) -> RunDirectory:
        """Open the run in the folder `path`.

        Raises UserError that names the file that is missing, damaged or of another version.
        """
        path = pathlib.Path(path)
        file = path / "config.json"
        if path.is_file():
            raise UserError(
                f"{path}: a file. Expected the folder that `keras-attention train` wrote. Try {path.parent}"
            )
        if not path.is_dir():
            raise UserError(f"{path}: no such run directory. Expected a folder that `keras-attention train` wrote")
        if (path / "manifest.json").exists() and not file.exists():
            raise UserError(
                f"{path}: an artefact, which `export` wrote from a run. Expected a folder that `keras-attention train` "
                f"wrote. An artefact translates by itself: python {path / 'runtime'}"
            )
        try:
            metadata = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                f"{file}: no such file, so {path} is not a run directory. "
                "Expected a folder that `keras-attention train` wrote"
            ) from error
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{file}: damaged. Expected JSON. Received: {error}. Train again, or restore a copy"
            ) from error
        if not isinstance(metadata, dict) or "format_version" not in metadata:
            raise UserError(
                f"{file}: damaged. Expected a JSON object with format_version. Train again, or restore a copy"
            )
        if metadata["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{file}: a run directory of another version. Expected format_version {FORMAT_VERSION}. "
                f"Received: {metadata['format_version']!r}. "
                "Use the version of keras-luong that wrote it, or train again"
            )
        missing = [key for key in ("model", "source_tokenizer", "target_tokenizer", "task") if key not in metadata]
        if missing:
            raise UserError(
                f"{file}: damaged. Expected the key(s) {', '.join(missing)}. Train again, or restore a copy"
            )
        run = cls(path, metadata)
        run._check()
        run.metadata = with_present_names(metadata)
        return run

    def _check(self) -> None:
        sizes = (self.config.source_vocabulary, self.config.target_vocabulary)
        found = (self.source_tokenizer.vocabulary_size, self.target_tokenizer.vocabulary_size)
        if sizes != found:
            raise UserError(
                f"{self.path / 'config.json'}: does not fit the tokenizers beside it. "
                f"Expected vocabularies of {sizes}. Received: {found}"
            )
        check(self.path, self.metadata)

    @functools.cached_property
    def config(self) -> Seq2SeqConfig:
        """The model's configuration."""
        from keras_attention.models.config import Seq2SeqConfig

        try:
            return Seq2SeqConfig.from_dict(self.metadata["model"])
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(
                f"{self.path / 'config.json'}: damaged: its model is not a configuration: {error}"
            ) from error

    @property
    def task(self) -> str:
        """Task of the run: "translation", "g2p", "dates" or another."""
        return str(self.metadata["task"])

    @property
    def max_source_length(self) -> int | None:
        """Largest number of source tokens, EOS excluded, of a training pair; None where the run has no record."""
        limit = self.metadata.get("training", {}).get("settings", {}).get("max_length")
        return None if limit is None else int(limit)

    @property
    def writes_backward(self) -> bool:
        """Whether some targets were learned right-to-left."""
        return bool(self.metadata.get("training", {}).get("settings", {}).get("backward", 0.0))

    @property
    def model_path(self) -> pathlib.Path:
        return self.path / "model.keras"

    @functools.cached_property
    def source_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path, self.metadata["source_tokenizer"])

    @functools.cached_property
    def target_tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.path, self.metadata["target_tokenizer"])

    def load_model(self) -> Any:
        """The trained `keras.Model`. Raises UserError when the file is missing or damaged."""
        import keras

        if not self.model_path.exists():
            raise UserError(
                f"{self.model_path}: no such file. Expected the weights that training keeps after its first epoch; "
                "start the training again to go on"
            )
        try:
            model = keras.models.load_model(self.model_path, compile=False)
        except Exception as error:  # a damaged archive fails in any of zipfile, h5py, json and keras
            raise UserError(
                f"{self.model_path}: damaged. Expected the model that training wrote. "
                f"Received: {type(error).__name__}: {_first_line(error)}. Train again, or restore a copy"
            ) from error
        check_model(self.model_path, self.metadata)
        return model

    def samples(self) -> list[str]:
        """Held-out source sentences; none where the file is missing."""
        try:
            text = (self.path / "samples.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / 'samples.txt'}: cannot be read: {error}") from error
        return [line for line in text.split("\n") if line]

    def references(self) -> list[list[str]]:
        """References of each sample; none where the file is missing. Raises UserError if they do not fit."""
        path = self.path / "references.txt"
        try:
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        if len(lines) != len(self.samples()):
            raise UserError(
                f"{path}: does not fit samples.txt. Expected: {len(self.samples())} lines. Received: {len(lines)}"
            )
        return [line.split("\t") for line in lines]

    @property
    def tokenization(self) -> str:
        """Tokenisation of the outputs by sacrebleu."""
        return str(self.metadata.get("training", {}).get("settings", {}).get("tokenize", "none"))


def require_same_words(runs: Sequence[RunDirectory]) -> None:
    """Raise UserError for runs that cannot form an ensemble: other vocabularies, or other copied tokens."""
    first = runs[0]
    for run in runs[1:]:
        for side, ours, theirs in (
            ("source", first.source_tokenizer, run.source_tokenizer),
            ("target", first.target_tokenizer, run.target_tokenizer),
        ):
            if not ours.equals(theirs):
                raise UserError(
                    f"{run.path}: another {side} vocabulary than that of {first.path}. Expected runs that were "
                    "trained with the same one, for example with --start-from"
                )
        if run.config.copy_words != first.config.copy_words:
            raise UserError(
                f"{run.path}: copies {run.config.copy_words or 'no'} words, {first.path} "
                f"{first.config.copy_words or 'none'}. Expected runs with the same copy_words"
            )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
