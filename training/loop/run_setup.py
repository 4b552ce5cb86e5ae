"""From the user's words to a run directory that is ready to train, new or resumed: text, vocabularies, config."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from keras_attention.errors import UserError
from keras_attention.files import remove_partial_files, storage_message, write_text
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.run_directory import RunDirectory
from keras_attention.run_fingerprint import vocabulary_fingerprint
from keras_attention.text.tokenizers import Tokenizer, train_tokenizer

from ..config import TrainConfig
from ..data.pairs import Pairs, read_parallel, read_tsv, split_pairs
from ..data.shards import Shards
from ..data.text_checks import require_two_files, warn_of_vocabularies
from ..recipes import Splits
from .checkpoints import find_checkpoints
from .resume_check import reopen

SAMPLES = 500
"""Held-out sentences kept in the run directory, for verification of exports and for pictures."""
MAX_HELD_OUT = 2000


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Where parallel text comes from: see `train` for the names."""

    source: str | pathlib.Path | None = None
    target: str | pathlib.Path | None = None
    tsv: str | pathlib.Path | None = None
    val_source: str | pathlib.Path | None = None
    val_target: str | pathlib.Path | None = None
    val_tsv: str | pathlib.Path | None = None
    val_fraction: float | None = None
    skip_empty: bool = False
    shards: str | pathlib.Path | None = None

    def read(self, seed: int) -> Splits:
        """The text. Raises UserError for files that are missing, contradict each other or hold bad lines."""
        if self.shards is not None:
            return self._read_shards(self.shards)
        train = self._pairs(self.source, self.target, self.tsv, "")
        if train is None:
            raise UserError(
                "There is nothing to train on. Expected --recipe NAME, --source FILE --target FILE, --tsv FILE, "
                "or --shards FOLDER"
            )
        validation = self._pairs(self.val_source, self.val_target, self.val_tsv, "val-")
        if validation is None:
            fraction = self.val_fraction
            if fraction is None:
                fraction = min(0.05, MAX_HELD_OUT / len(train))
            train, validation = split_pairs(train, fraction, seed)
        elif self.val_fraction is not None:
            raise UserError("Validation text is given twice. Expected validation files or --val-fraction, not both")
        return Splits(train, validation)

    def _read_shards(self, folder: str | pathlib.Path) -> Splits:
        if self.source is not None or self.target is not None or self.tsv is not None:
            raise UserError("Text is given twice. Expected --shards, or --source and --target, or --tsv")
        validation = self._pairs(self.val_source, self.val_target, self.val_tsv, "val-")
        if validation is None:
            raise UserError("--shards needs text of its own to validate on. Expected --val-tsv or --val-source")
        return Splits(Pairs([], [], []), validation, shards=Shards.find(folder, self.skip_empty))

    def _pairs(
        self,
        source: str | pathlib.Path | None,
        target: str | pathlib.Path | None,
        tsv: str | pathlib.Path | None,
        prefix: str,
    ) -> Pairs | None:
        if (source is None) != (target is None):
            given, lacking = ("source", "target") if target is None else ("target", "source")
            raise UserError(f"--{prefix}{given} has no partner. Expected --{prefix}{lacking} FILE beside it")
        if source is not None and tsv is not None:
            raise UserError(
                f"Text is given twice. Expected --{prefix}source and --{prefix}target, or --{prefix}tsv, not both"
            )
        if tsv is not None:
            return read_tsv(tsv, self.skip_empty)
        require_two_files(source, target, prefix)
        return None if source is None or target is None else read_parallel(source, target, self.skip_empty)


def make_tokenizers(settings: TrainConfig, text: Pairs) -> dict[str, Tokenizer]:
    """Vocabularies of the training text: {"joint": …}, or {"source": …, "target": …}."""
    targets = [target for references in text.references for target in references]
    if settings.joint:
        return {"joint": train_tokenizer(settings.source_tokenizer, [*text.sources, *targets], settings.vocabulary)}
    return {
        "source": train_tokenizer(settings.source_tokenizer, text.sources, settings.vocabulary),
        "target": train_tokenizer(settings.target_tokenizer, targets, settings.vocabulary),
    }


def read_also(sets: Mapping[str, Sequence[str | pathlib.Path]], skip_empty: bool = False) -> dict[str, Pairs]:
    """More text to validate on: a name and one TSV file, or a name and two parallel files."""
    found = {}
    for name, files in sets.items():
        if not name.isidentifier() or name in ("loss", "perplexity") or len(files) not in (1, 2):
            raise UserError(
                "A validation set has a name (letters, digits, underscores) and one TSV or two parallel files. "
                f"Expected e.g. news=news.en,news.de. Received: {name}={','.join(map(str, files))}"
            )
        found[name] = (
            read_tsv(files[0], skip_empty) if len(files) == 1 else read_parallel(files[0], files[1], skip_empty)
        )
    return found


def fingerprint(splits: Splits) -> str:
    """SHA-256 of the training and validation text, and of teachers; of shards, of their names and sizes."""
    digest = hashlib.sha256((splits.shards.fingerprint if splits.shards else "").encode())
    for pairs in (splits.train, splits.validation, *([splits.synthetic] if splits.synthetic else [])):
        digest.update(
            json.dumps([pairs.sources, pairs.references], ensure_ascii=False).encode("utf-8", "surrogatepass")
        )
    for teacher in splits.teachers:
        digest.update(hashlib.sha256(teacher.model_path.read_bytes()).digest())
    return digest.hexdigest()


def prepare_run(
    output: pathlib.Path,
    recipe: str | None,
    settings: TrainConfig,
    model: Mapping[str, Any],
    splits: Splits,
    overwrite: bool,
    parent: RunDirectory | None = None,
    chosen: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """A new run directory, or the one at `output` when it was begun with the same text, model and settings.

    The vocabularies of a new one are those of `parent`, where one is given. `chosen` are those of the settings and of
    the model's fields that were chosen from the text (see `defaults`), which the run records.

    Raises UserError when something else is there, or when the model's fields do not make a configuration.
    """
    if overwrite:
        _remove(output)
    remove_partial_files(output)
    if (output / "config.json").exists():
        run = RunDirectory.open(output)
        if find_checkpoints(output):
            vocabularies = {"source": run.source_tokenizer, "target": run.target_tokenizer}
            config = make_config(inherit(model, run.config), vocabularies)
            return reopen(run, recipe, settings, config, splits, fingerprint(splits))
    elif output.is_dir() and (foreign := [p.name for p in output.iterdir() if not _is_ours(p.name)]):
        raise UserError(
            f"{output}: holds other files ({foreign[0]}, …). Expected a new or empty folder, or a run directory"
        )
    text, count = splits.train, len(splits.train)
    if splits.shards is not None:
        if settings.draws_segmentations:
            raise UserError("subword_alpha draws from text in memory. Expected --subword-alpha 0 with --shards")
        if settings.stacked or splits.teachers:
            raise UserError(
                "steps_per_execution, epochs_per_validation and teachers read text that is in memory. "
                "Expected other text than --shards"
            )
        if splits.synthetic is not None:
            raise UserError("Synthetic text is mixed with text in memory. Expected no --synthetic with --shards")
        shutil.rmtree(output / "shards", ignore_errors=True)
        text, count = splits.shards.sample(settings.seed)
    tokenizers = make_tokenizers(settings, text) if parent is None else tokenizers_of(parent, settings)
    warn_of_vocabularies(tokenizers)
    config = make_config(model if parent is None else inherit(model, parent.config), tokenizers)
    if config.copy_words is not None and (len(tokenizers) > 1 or settings.draws_segmentations):
        raise UserError(
            "Copied words are known by one vocabulary, and one segmentation. Expected --joint and --subword-alpha 0 "
            "with copy_words"
        )
    if splits.teachers and not (settings.fused_loss and settings.distribute == "none"):
        raise UserError("Teachers are part of the fused loss on one device. Expected fused_loss and distribute none")
    if config.copy_words is not None and (settings.signals or settings.stacked or splits.teachers):
        raise UserError(
            "A model that copies words gives probabilities, not the logits that coverage_loss, "
            "guided_alignment, scheduled_sampling, teachers and stacks of batches work on. Expected none of them with "
            "copy_words"
        )
    files: dict[str, str] = {}
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, tokenizer in tokenizers.items():
            files[name] = tokenizer.save(output, name)[0]
        held_out = splits.test or splits.validation
        samples = dict(list(dict(zip(held_out.sources, held_out.references, strict=True)).items())[:SAMPLES])
        write_lines(output / "samples.txt", list(samples))
        write_lines(
            output / "references.txt",
            ["\t".join(text.replace("\t", " ") for text in accepted) for accepted in samples.values()],
        )
        if splits.test is not None and recipe == "dates":
            write_lines(output / "test.source.txt", splits.test.sources)
            write_lines(output / "test.target.txt", [references[0] for references in splits.test.references])
    except OSError as error:
        raise UserError(storage_message(output, error)) from error
    metadata = {
        "task": settings.task,
        "model": config.to_dict(),
        "source_tokenizer": files.get("source", files.get("joint")),
        "target_tokenizer": files.get("target", files.get("joint")),
        "training": {
            "recipe": recipe,
            "settings": settings.to_dict(),
            "data": {"sha256": fingerprint(splits), "train": count, "validation": len(splits.validation)},
            "also_validate": {name: len(pairs) for name, pairs in splits.also.items()},
            "chosen": dict(chosen or {}),
            "vocabularies": vocabulary_fingerprint(output, tokenizers),
        },
    }
    return RunDirectory.create(output, metadata)


def tokenizers_of(parent: RunDirectory, settings: TrainConfig) -> dict[str, Tokenizer]:
    """The vocabularies of another run. Raises UserError where they are not of the kinds asked for."""
    asked = settings.source_tokenizer, settings.target_tokenizer, settings.joint
    source, target = parent.source_tokenizer, parent.target_tokenizer
    joint = parent.metadata["source_tokenizer"] == parent.metadata["target_tokenizer"]
    kinds = source.kind, target.kind, joint
    if asked != kinds:
        raise UserError(
            f"{parent.path}: its vocabularies (source, target, joint) are {kinds}. Expected, as set, {asked}"
        )
    return {"joint": source} if joint else {"source": source, "target": target}


def make_config(model: Mapping[str, Any], tokenizers: Mapping[str, Tokenizer]) -> Seq2SeqConfig:
    """The model's configuration for these vocabularies. Raises UserError for fields that are unknown or do not fit."""
    source = tokenizers.get("source", tokenizers.get("joint"))
    target = tokenizers.get("target", tokenizers.get("joint"))
    assert source is not None
    assert target is not None
    if model.get("source_features") is not None:
        raise UserError(
            "A training of this command reads text. Expected no source_features; fit such a model by itself"
        )
    if model.get("shortlist") is not None:
        raise UserError(
            "A shortlist is learnt from a trained model. Expected no shortlist here; then keras-attention shortlist RUN"
        )
    fields = {
        **model,
        "source_vocabulary": source.vocabulary_size,
        "target_vocabulary": target.vocabulary_size,
    }
    fields.setdefault("scale_embeddings", None)  # `from_dict` would take a model without this field for an old one
    try:
        return Seq2SeqConfig.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise UserError(f"The model cannot be made. {error}") from error


def inherit(model: Mapping[str, Any], config: Seq2SeqConfig) -> dict[str, Any]:
    """The fields of a model that goes on from one of `config`: where they do not say, its words are as large."""
    fields = dict(model)
    if fields.get("cell") == config.cell and fields.get("scale_embeddings") is None:
        fields["scale_embeddings"] = config.scale_embeddings
    return fields


def write_lines(path: pathlib.Path, lines: list[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))


def _is_ours(name: str) -> bool:
    return (
        name.startswith(".partial-")
        or name.endswith((".tok.json", ".tok.model"))
        or name
        in (
            "samples.txt",
            "references.txt",
            "test.source.txt",
            "test.target.txt",
        )
    )


def _remove(output: pathlib.Path) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    metadata: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        metadata = json.loads((output / "config.json").read_text(encoding="utf-8"))
    if not isinstance(metadata, dict) or "format_version" not in metadata:
        raise UserError(f"{output}: is no run directory, so --overwrite leaves it alone. Use another --output")
    # The folder itself stays: a lock is on it.
    for path in output.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
