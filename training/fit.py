"""`train`: from parallel text to a run directory, resumable after a kill at any step."""

from __future__ import annotations

import gc
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.seq2seq import build_seq2seq

from .callbacks import Trainer, Validation
from .data import BatchDataset, Encoded, encode_pairs, sample_pairs
from .display import Display
from .head import fuse_loss
from .losses import TokenCrossEntropy
from .prepare import TextFiles, prepare_run
from .processor import choose_products
from .recipes import Splits, find_recipe
from .report import write_reports
from .settings import Settings


def train(
    output: str | pathlib.Path,
    *,
    recipe: str | None = None,
    data: str | pathlib.Path | None = None,
    source: str | pathlib.Path | None = None,
    target: str | pathlib.Path | None = None,
    tsv: str | pathlib.Path | None = None,
    val_source: str | pathlib.Path | None = None,
    val_target: str | pathlib.Path | None = None,
    val_tsv: str | pathlib.Path | None = None,
    val_fraction: float | None = None,
    skip_empty: bool = False,
    model: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> RunDirectory:
    """Train an encoder-decoder on parallel text and leave the best model in a run directory.

    Started again with the same arguments after a kill, it goes on from the last whole epoch, and its history is that of
    an uninterrupted run. A training that is done is not repeated.

    Args:
        output: the run directory; made if need be.
        recipe: a name of `RECIPES`, which gives text, model and settings; or
        source, target: two parallel files, one sentence per line; or
        tsv: one file of SOURCE<TAB>TARGET lines; lines of the same source are several accepted outputs.
        data: the folder of the recipe's data set, where it is not to be fetched.
        val_source, val_target, val_tsv: validation text; else `val_fraction` (0.05, at most 2000) of the pairs is held
            out.
        skip_empty: leave out pairs with an empty side instead of refusing them.
        model: fields of `Seq2SeqConfig` that replace the recipe's or the default ones.
        overwrite: delete a run directory that is in the way.
        **settings: fields of `Settings` that replace the recipe's or the default ones.

    Returns:
        The run.

    Raises:
        UserError: for files that are missing, not parallel, not UTF-8; unknown names; a full disk; a run that does not
            fit.

    Example: `train("runs/dates", recipe="dates", epochs=1)`.
    """
    files = TextFiles(source, target, tsv, val_source, val_target, val_tsv, val_fraction, skip_empty)
    fields = {name: value for name, value in (model or {}).items() if value is not None}
    if recipe is None:
        if data is not None:
            raise UserError(
                f"--data is the folder of a recipe's data set. Expected --recipe beside it. Received: {data}"
            )
        chosen = Settings.make(settings)
        splits = files.read(chosen.seed)
        fields = {**DEFAULT_MODEL, **fields}
    else:
        plan = find_recipe(recipe)
        if files != TextFiles():
            raise UserError("A recipe brings its own text. Expected --recipe or text files, not both")
        chosen = Settings.make(dict(plan.settings), settings)
        splits = plan.load(None if data is None else pathlib.Path(data), chosen.seed)
        fields = {**plan.model, **fields}
    run = prepare_run(pathlib.Path(output), recipe, chosen, fields, splits, overwrite)
    fit_run(run, chosen, splits)
    return run


DEFAULT_MODEL: dict[str, Any] = {"embedding_size": 128, "encoder_units": 128, "decoder_units": 256, "dropout": 0.3}
"""The model for plain files: small enough for a laptop's processor."""


def fit_run(run: RunDirectory, settings: Settings, splits: Splits, say: Callable[[str], None] = print) -> None:
    """Train the model of `run` until its settings say stop; resumes from its checkpoint."""
    make_deterministic(settings.seed)
    train_data = _encode(run, settings, splits, "train", say)
    validation = _validation(run, settings, splits, say)
    model = build_seq2seq(run.config)
    twin = build_seq2seq(run.config)
    products = choose_products(settings.products)
    for layer in (model.get_layer("encoder"), model.get_layer("decoder")):
        layer.stack.products = products
    fitted = fuse_loss(model, settings.label_smoothing, products) if settings.fused_loss else model
    compile_model(fitted, settings)
    # XLA compiles each shape anew: there are fewer of them with coarser lengths.
    multiple = max(settings.padding_multiple, 8 if fitted.jit_compile else 1)
    dataset = BatchDataset(
        train_data,
        settings.batch_size,
        settings.seed,
        multiple,
        _sampler(run, settings, splits, train_data),
        labels_as_input=settings.fused_loss,
    )
    trainer = Trainer(run, settings, dataset, validation, run.target_tokenizer, twin, model)
    resumed = trainer.resume(fitted)
    reason = trainer.progress.finished(settings)
    if reason is None:
        say(
            f"{'resuming after epoch ' + str(trainer.progress.epoch) if resumed else 'training'}: "
            f"{len(train_data)} pairs, {model.count_params():,} weights, vocabularies "
            f"{run.config.source_vocabulary} and {run.config.target_vocabulary}, {keras.backend.backend()}"
        )
        display = Display(dataset, settings.epochs, settings.monitor)
        dataset.probe_shapes()
        try:
            fitted.fit(
                dataset,
                epochs=settings.epochs,
                initial_epoch=trainer.progress.epoch,
                shuffle=False,
                verbose=0,
                callbacks=[trainer, display],
            )
        finally:
            display.close()
            # An epoch that was cut short leaves an iterator that TensorFlow must not find at the interpreter's end.
            gc.collect()
        reason = trainer.progress.finished(settings)
    best = trainer.progress.plateau
    write_reports(run, settings, trainer.progress)
    say(
        f"done: {reason}. Best validation {settings.monitor} {best.best:.2f} (epoch {(best.best_epoch or 0) + 1}), "
        f"{trainer.progress.seconds / 60:.1f} minutes of training. Model: {run.model_path}"
    )


def compile_model(model: keras.Model, settings: Settings) -> None:
    """Adam with the gradient's norm bounded, averaged weights kept by the optimiser, and the token loss."""
    optimizer = keras.optimizers.Adam(
        learning_rate=settings.learning_rate,
        global_clipnorm=settings.clip_norm,
        use_ema=settings.averaging > 0,
        ema_momentum=settings.averaging or 0.99,
    )
    jit = settings.jit or keras.backend.backend() == "jax"
    # A model with the loss built in has the labels among its inputs.
    loss = None if "labels" in model.input else TokenCrossEntropy(settings.label_smoothing)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit)
    optimizer.build(model.trainable_variables)


def make_deterministic(seed: int) -> None:
    """Seed every generator; under TensorFlow also ask for operations that give the same bits each time."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _encode(run: RunDirectory, settings: Settings, splits: Splits, part: str, say: Callable[[str], None]) -> Encoded:
    pairs = splits.train if part == "train" else splits.validation
    encoded, dropped = encode_pairs(pairs, run.source_tokenizer, run.target_tokenizer, settings.max_length)
    if dropped:
        say(
            f"{part}: left out {len(dropped)} pairs of more than {settings.max_length} tokens, "
            f"the first at {dropped[0]}"
        )
    if not len(encoded):
        raise UserError(
            f"{dropped[0]}: every {part} pair has more than {settings.max_length} tokens. "
            "Raise --max-length, or shorten the text"
        )
    return encoded


def _sampler(run: RunDirectory, settings: Settings, splits: Splits, best: Encoded) -> Callable[[int], Encoded] | None:
    """What draws the segmentations of an epoch, or None where they never change."""
    if not settings.sampling:
        return None
    sources, targets, _ = splits.train.flat()
    text = [sources[i] for i in best.kept or []], [targets[i] for i in best.kept or []]
    tokenizers = run.source_tokenizer, run.target_tokenizer

    def sample(epoch: int) -> Encoded:
        seed = 1_000_003 * settings.seed + epoch
        return sample_pairs(text, best, tokenizers, settings.sampling, seed, settings.max_length)

    return sample


def _validation(run: RunDirectory, settings: Settings, splits: Splits, say: Callable[[str], None]) -> Validation:
    encoded = _encode(run, settings, splits, "validation", say)
    pairs = splits.validation.head(settings.validation_sentences)
    sources = [run.source_tokenizer.encode(text)[: settings.max_length] for text in pairs.sources]
    return Validation(encoded, pairs, sources)
