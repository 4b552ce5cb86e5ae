"""One model from several runs: the mean of their weights.

    theta = 1/N sum_n theta_n

It is one model, no slower than each of them. Where the runs went on from the same weights (`train --start-from`), on
other orders of the data, they mostly lie in one basin of the loss, and their mean lies deeper in it than each: model
soups (Wortsman et al. 2022, arXiv 2203.05482, equation 1 with equal weights), after stochastic weight averaging
(Izmailov et al. 2018, arXiv 1803.05407). Runs that began with other random weights have no mean of any use.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.files import storage_message, write_bytes
from keras_attention.folder_lock import locked
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.run_fingerprint import tokenizer_files, vocabulary_fingerprint

from .config import TrainConfig
from .loop.assemble import compile_model, fuses_loss
from .loop.checkpoints import NAMES, find_checkpoints, load_checkpoint
from .loop.initial_weights import form_of
from .loop.trainer import copy_averages
from .losses.fused import fuse_loss


def average(runs: Sequence[str | pathlib.Path], output: str | pathlib.Path, last: bool = False) -> RunDirectory:
    """A run directory whose model has the mean of the weights of `runs`; everything else is that of the first.

    Args:
        runs: run directories of models of one form with the same vocabularies: two or more, or with `last` one.
        output: a new or empty folder.
        last: take what each run had at its end (the moving average of its weights, where it keeps one), from its
            checkpoint, not its best epoch: the scores of single epochs on little validation text are noisy.

    Raises:
        UserError: for a run that cannot be read or does not fit the first one, a folder that holds something, a full
            disk.

    Example: `average(["runs/seed-1", "runs/seed-2"], "runs/mean")`.
    """
    opened = [RunDirectory.open(run) for run in runs]
    if len(opened) < 2 and not last:
        raise UserError(
            f"A mean is one of several. Expected two runs or more. Received: {len(opened)} (of one run, --last "
            "gives the weights that it had at its end)"
        )
    output, first = check_new_folder(output), opened[0]
    names = _tokenizers(first)
    for other in opened[1:]:
        same_words = _tokenizers(other) == _tokenizers(first) and vocabulary_fingerprint(
            other.path, names
        ) == vocabulary_fingerprint(first.path, names)
        if form_of(other) != form_of(first) or not same_words:
            what = "vocabularies" if form_of(other) == form_of(first) else "a model"
            raise UserError(
                f"{other.path}: has {what} of another form than {first.path}. Expected runs that began with the same "
                "weights (--start-from)"
            )
    model = first.load_model()
    sums = [np.zeros(tuple(variable.shape), "float64") for variable in model.trainable_variables]
    for run in opened:
        source = last_model(run) if last else run.load_model()
        for total, variable in zip(sums, source.trainable_variables, strict=True):
            total += keras.ops.convert_to_numpy(variable)
    for variable, total in zip(model.trainable_variables, sums, strict=True):
        variable.assign((total / len(opened)).astype("float32"))
    return derive(first, output, model, first.metadata, {"mean_of": [str(run.path) for run in opened]})


def check_new_folder(output: str | pathlib.Path) -> pathlib.Path:
    """The path of a folder to write. Raises UserError where something is in it."""
    path = pathlib.Path(output)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: is there. Expected a new or empty folder")
    return path


def derive(
    run: RunDirectory, output: pathlib.Path, model: keras.Model, metadata: dict[str, Any], origin: dict[str, Any]
) -> RunDirectory:
    """Write a run directory with another model and the tokenizers and samples of `run`.

    Args:
        metadata: of the new run; `origin` is added to what it says of the training.

    Raises:
        UserError: for a full disk.
    """
    with locked(output):
        check_new_folder(output)
        try:
            for path in _tokenizer_files(run):
                write_bytes(output / path.name, path.read_bytes())
        except OSError as error:
            raise UserError(storage_message(output, error)) from error
        made = RunDirectory.new(output, {**metadata, "training": {**metadata.get("training", {}), **origin}})
        made.save_model(model)
        made.save()
    return made


def last_model(run: RunDirectory) -> keras.Model:
    """The model at the end of a training, from its newest checkpoint. Raises UserError where there is no whole one."""
    paths = find_checkpoints(run.path)
    if not paths:
        raise UserError(
            f"{run.path / 'checkpoints' / NAMES[0]}: no such file. Expected a checkpoint of training; without --last "
            "the best model is taken, which is there"
        )
    settings = TrainConfig.of_run(run.metadata["training"]["settings"])
    model, twin = build_seq2seq(run.config), build_seq2seq(run.config)
    fuse = fuses_loss(settings, run.config)
    fitted = fuse_loss(model, settings.label_smoothing) if fuse else model
    compile_model(fitted, settings)
    load_checkpoint(paths[0], fitted, run.metadata.get("id"))
    copy_averages(fitted, twin, model)
    return twin


def _tokenizers(run: RunDirectory) -> list[str]:
    return sorted({run.metadata["source_tokenizer"], run.metadata["target_tokenizer"]})


def _tokenizer_files(run: RunDirectory) -> list[pathlib.Path]:
    """The tokenizers' files, and the sample sentences with their references."""
    samples = [path for name in ("samples.txt", "references.txt") if (path := run.path / name).exists()]
    return [*tokenizer_files(run.path, _tokenizers(run)), *samples]
