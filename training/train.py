"""`train`: from parallel text to a run directory, resumable after a kill at any step."""

from __future__ import annotations

import dataclasses
import gc
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.folder_lock import locked
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.models.pointer_generator import of_text
from keras_attention.run_directory import RunDirectory

from .config import TrainConfig
from .data.pairs import Pairs
from .data.shards import ShardedDataset
from .data.text_checks import warn_of_useless
from .data.tf_feed import feed
from .data.word_alignments import read_links
from .defaults import Chosen, choose
from .hardware.devices import output_of_process
from .loop.assemble import encode_all, make_fitting
from .loop.initial_weights import Start
from .loop.model_card import write_reports
from .loop.run_setup import TextFiles, prepare_run, read_also
from .loop.tensorboard import TensorBoard
from .loop.trainer import Trainer, Validation
from .progress_bar import Display
from .recipes import Splits, find_recipe
from .synthesize import read_synthetic


def train(
    output: str | pathlib.Path,
    *,
    recipe: str | None = None,
    data: str | pathlib.Path | None = None,
    source: str | pathlib.Path | None = None,
    target: str | pathlib.Path | None = None,
    tsv: str | pathlib.Path | None = None,
    shards: str | pathlib.Path | None = None,
    val_source: str | pathlib.Path | None = None,
    val_target: str | pathlib.Path | None = None,
    val_tsv: str | pathlib.Path | None = None,
    val_fraction: float | None = None,
    also_validate: Mapping[str, Sequence[str | pathlib.Path]] | None = None,
    synthetic: Sequence[Sequence[str | pathlib.Path]] | None = None,
    alignments: str | pathlib.Path | None = None,
    teachers: Sequence[str | pathlib.Path] = (),
    skip_empty: bool = False,
    model: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    start_from: str | pathlib.Path | None = None,
    source_vectors: str | pathlib.Path | None = None,
    target_vectors: str | pathlib.Path | None = None,
    **settings: Any,
) -> RunDirectory:
    """Train an encoder-decoder on parallel text and leave the best model in a run directory.

    Started again with the same arguments after a kill, it goes on from the last whole epoch, and its history is that of
    an uninterrupted run. A training that is done is not repeated.

    Args:
        output: the run directory; made if need be.
        recipe: a name of `RECIPES`, which gives text, model and settings; or
        source, target: two parallel files, one sentence per line; or
        tsv: one file of SOURCE<TAB>TARGET lines; lines of the same source are several accepted outputs; or
        shards: a folder of such files, for a corpus larger than memory; needs validation text of its own.
        data: the folder of the recipe's data set, where it is not to be fetched.
        val_source, val_target, val_tsv: validation text; else `val_fraction` (0.05, at most 2000) of the pairs is held
            out.
        also_validate: more text to report scores of: name -> one TSV file, or two parallel files.
        synthetic: more pairs, of which each epoch takes the share `synthetic_share` in place of real ones: sets of one
            TSV file or two parallel files each (see `synthesize`).
        alignments: links between the words of the training text in Pharaoh format, parallel to it, for guided
            alignment.
        teachers: trained runs of the same vocabularies, whose predictions are learnt as well as the labels (see
            `teacher`); several answer as one.
        skip_empty: leave out pairs with an empty side instead of refusing them.
        model: fields of `Seq2SeqConfig` that replace the recipe's or the default ones.
        overwrite: delete a run directory that is in the way.
        start_from: a trained run whose vocabularies and weights a new training begins with; the model must be of the
            same form.
        source_vectors, target_vectors: word vectors to begin with, in the text form of word2vec, GloVe and fastText.
        **settings: fields of `TrainConfig` that replace the recipe's or the default ones.

    Returns:
        The run.

    Raises:
        UserError: for files that are missing, not parallel, not UTF-8; unknown names; a full disk; a run that does not
            fit; a loss that is no longer finite.

    Example: `train("runs/dates", recipe="dates", epochs=1)`.
    """
    files = TextFiles(source, target, tsv, val_source, val_target, val_tsv, val_fraction, skip_empty, shards)
    start = Start(None if start_from is None else RunDirectory.open(start_from), source_vectors, target_vectors)
    suited = Chosen({}, {})
    fields = {name: value for name, value in (model or {}).items() if value is not None}
    if recipe is None:
        if data is not None:
            raise UserError(
                f"--data is the folder of a recipe's data set. Expected --recipe beside it. Received: {data}"
            )
        chosen = TrainConfig.make(settings)
        output = output_of_process(pathlib.Path(output), chosen.distribute)
        splits = files.read(chosen.seed)
        text = None if splits.shards is not None else splits.train
        suited = choose(text, chosen, {**settings, **fields}, None if overwrite else output, start.parent)
        chosen = TrainConfig.make(dict(suited.settings), settings)
        fields = {**suited.model, **fields}
    else:
        plan = find_recipe(recipe)
        if files != TextFiles():
            raise UserError("A recipe brings its own text. Expected --recipe or text files, not both")
        chosen = TrainConfig.make(dict(plan.settings), settings)
        output = output_of_process(pathlib.Path(output), chosen.distribute)
        splits = plan.load(None if data is None else pathlib.Path(data), chosen.seed)
        fields = {**plan.model, **fields}
    if chosen.stacked and keras.backend.backend() != "jax":
        raise UserError(
            "steps_per_execution and epochs_per_validation need JAX. "
            f"Expected KERAS_BACKEND=jax. Received: {keras.backend.backend()}"
        )
    if alignments is not None:
        splits = dataclasses.replace(splits, links=read_links(alignments, splits.train))
    splits = dataclasses.replace(
        splits,
        also=read_also(also_validate or {}, skip_empty),
        synthetic=read_synthetic(synthetic or [], skip_empty),
        teachers=[RunDirectory.open(path) for path in teachers],
    )
    warn_of_useless(splits)
    with locked(output):
        run = prepare_run(output, recipe, chosen, fields, splits, overwrite, start.parent, suited.all)
        if suited.all:
            print(f"chosen for {run.metadata['training']['data']['train']} pairs (options override): {suited}")
        fit_run(run, chosen, splits, start)
    return run


def fit_run(
    run: RunDirectory,
    settings: TrainConfig,
    splits: Splits,
    start: Start | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Train the model of `run` until its settings say stop; resumes from its checkpoint.

    A new training begins as `start` says.
    """
    fitting = make_fitting(run, settings, splits, start or Start(), say)
    model, fitted, dataset = fitting.model, fitting.fitted, fitting.dataset
    validation = _validation(run, settings, splits.validation, "validation", say)
    also = {name: _validation(run, settings, pairs, name, say) for name, pairs in splits.also.items()}
    twin = build_seq2seq(run.config)
    trainer = Trainer(run, settings, dataset, validation, twin, model, also, say, fitting.devices.part[1] == 1)
    resumed = trainer.resume(fitted)
    reason = trainer.progress.finished(settings)
    watchers = [TensorBoard(trainer)] if settings.tensorboard else []
    if reason is None:
        say(
            f"{'resuming after epoch ' + str(trainer.progress.epoch) if resumed else 'training'}: "
            f"{run.metadata['training']['data']['train']} pairs, {model.count_params():,} weights, vocabularies "
            f"{run.config.source_vocabulary} and {run.config.target_vocabulary}, {keras.backend.backend()}"
            + (f", {fitting.devices.count} devices" if settings.distribute != "none" else "")
        )
        display = Display(dataset, settings.epochs, settings.monitor)
        if settings.loss_name != "training loss":
            say(f"loss: {settings.loss_name}; val ppl: of plain cross-entropy on validation text")
        try:
            with fitting.devices.scope():
                fitted.fit(
                    feed(dataset),
                    epochs=settings.epochs,
                    initial_epoch=trainer.progress.epoch,
                    shuffle=False,
                    verbose=0,
                    callbacks=[trainer, *watchers, display],
                )
        except Exception as error:
            # TensorFlow wraps, or only prints, what went wrong in the thread that feeds it.
            if isinstance(dataset, ShardedDataset) and dataset.failure is not None:
                raise dataset.failure from error
            raise
        finally:
            display.close()
            # An epoch that was cut short leaves an iterator that TensorFlow must not find at the interpreter's end.
            gc.collect()
        reason = trainer.progress.finished(settings)
    for watcher in watchers:
        watcher.close()
    best = trainer.progress.plateau
    score = f"{settings.monitor.replace('_', ' ')} {best.best:.2f}"
    write_reports(run, settings, trainer.progress)
    say(
        f"finished: {reason}. Best validation {score} (epoch {(best.best_epoch or 0) + 1}), "
        f"{trainer.progress.seconds / 60:.1f} minutes of training. Model: {run.model_path}"
    )


def _validation(
    run: RunDirectory, settings: TrainConfig, pairs: Pairs, part: str, say: Callable[[str], None]
) -> Validation:
    encoded = encode_all(run, settings, pairs, part, say)
    pairs = pairs.head(settings.validation_sentences)
    tokenizers = run.source_tokenizer, run.target_tokenizer
    sides = [of_text(tokenizers, text, run.config.copy_words) for text in pairs.sources]
    sources = [side[0].encode(text)[: settings.max_length] for side, text in zip(sides, pairs.sources, strict=True)]
    return Validation(encoded, pairs, sources, [writer for _, writer in sides])
