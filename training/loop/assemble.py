"""Arguments of `fit`: the model, compiled, with the loss built in, and the batches of each epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory, require_same_words

from ..config import TrainConfig
from ..data.pairs import Batch, BatchDataset, Encoded, Pairs, encode_pairs, sample_pairs
from ..data.shards import ShardedDataset
from ..data.stacks import StackedDataset, StackedSteps
from ..data.word_alignments import Links, make_guide
from ..hardware.cpu import choose_products, keep_freed_memory
from ..hardware.devices import Devices
from ..losses.auxiliary import keep_gold
from ..losses.cross_entropy import TokenCrossEntropy
from ..losses.distillation import Teacher
from ..losses.fused import fuse_loss
from ..recipes import Splits
from ..synthesize import draw_mixture
from .adam import Adam
from .initial_weights import Start

Extra: TypeAlias = Callable[[BatchDataset, int, Batch], dict[str, Any]]
"""What makes more inputs of a batch by name."""


@dataclasses.dataclass(frozen=True)
class Fitting:
    """Arguments of `fit`.

    Attributes:
        model: the encoder-decoder. fitted: itself, or a model around it with the loss built in; compiled.
        dataset: the batches.
        devices: what shares them.
    """

    model: keras.Model
    fitted: keras.Model
    dataset: BatchDataset | ShardedDataset | StackedDataset
    devices: Devices


def make_fitting(
    run: RunDirectory, settings: TrainConfig, splits: Splits, start: Start, say: Callable[[str], None]
) -> Fitting:
    """Seeds every generator and makes the model of `run`, compiled, and its batches."""
    make_deterministic(settings.seed)
    keep_freed_memory()
    devices = Devices(settings.distribute)
    fuse = fuses_loss(settings, run.config)
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        # XLA compiles each shape anew: there are fewer of them with coarser lengths.
        "multiple": max(settings.padding_multiple, 8 if _compiled(settings) else 1),
        "labels_as_input": fuse,
        "row_multiple": settings.batch_size if settings.stacked else devices.count,
        "backward": settings.backward,
        "part": devices.part,
    }
    dataset: BatchDataset | ShardedDataset | StackedDataset
    teacher = None
    if splits.shards is None:
        train_data = encode_all(run, settings, splits.train, "train", say)
        sample = _sampler(run, settings, splits, train_data, say)
        extra = _extra(run, settings, splits, train_data)
        if splits.teachers:
            teacher = make_teacher(run, settings, splits)
            extra = both(extra, teacher)
        dataset = BatchDataset(train_data, sample=sample, extra=extra, **options)
        if settings.stacked:
            dataset = StackedDataset(dataset, settings.steps_per_execution, settings.epochs_per_validation)
    else:
        if settings.signals.sample or settings.signals.guided_alignment:
            raise UserError(
                "Scheduled sampling and guided alignment read text that is in memory. Expected other text than shards"
            )
        tokenizers = run.source_tokenizer, run.target_tokenizer
        paths = splits.shards.encode(run.path / "shards", *tokenizers, settings.max_length, say, run.config.copy_words)
        dataset = ShardedDataset(paths, **options)
    with devices.scope():
        model = build_seq2seq(run.config)
        start.apply(model, run, say)
        products = choose_products(settings.matmul_dtype)
        set_products(model, products)
        fitted = model
        if fuse:
            fitted = fuse_loss(
                model,
                settings.label_smoothing,
                products,
                signals=settings.signals,
                kind=StackedSteps if settings.stacked else keras.Model,
                distillation=settings.distillation,
                candidates=None if teacher is None else teacher.candidates,
            )
        compile_model(fitted, settings)
    return Fitting(model, fitted, dataset, devices)


def make_teacher(run: RunDirectory, settings: TrainConfig, splits: Splits) -> Teacher:
    """Of the runs among `splits`. Raises UserError where they do not write what `run` learns to write."""
    require_same_words([run, *splits.teachers])
    if settings.backward and not all(teacher.writes_backward for teacher in splits.teachers):
        raise UserError("A teacher writes in one direction alone. Expected --backward 0, or teachers trained with it")
    return Teacher(splits.teachers, keep=not settings.draws_segmentations)


def both(first: Extra | None, second: Extra) -> Extra:
    """The inputs of two together."""
    if first is None:
        return second

    def extra(dataset: BatchDataset, index: int, batch: Batch) -> dict[str, Any]:
        return {**first(dataset, index, batch), **second(dataset, index, batch)}

    return extra


def fuses_loss(settings: TrainConfig, config: Seq2SeqConfig) -> bool:
    """Whether projection and loss are one: not where devices add up losses, nor where words are copied."""
    return settings.fused_loss and settings.distribute != "mirrored" and config.copy_words is None


def set_products(model: keras.Model, products: str) -> None:
    """Return the dtype of the operands of matrix products in training, one of `lstm.PRODUCTS`."""
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    if not hasattr(encoder, "stack"):  # without recurrence there is no pass of our own
        return
    encoder.stack.products = decoder.stack.products = products
    for layer in decoder.upper.layers if decoder.upper is not None else ():
        layer.products = products
    if decoder.stepper is not None:
        decoder.stepper.cell.products = products


def _compiled(settings: TrainConfig) -> bool:
    return settings.jit or keras.backend.backend() == "jax"


def compile_model(model: keras.Model, settings: TrainConfig) -> None:
    """Adam with the gradient's norm bounded, averaged weights kept by the optimiser, and the token loss."""
    optimizer = Adam(
        learning_rate=settings.learning_rate,
        global_clipnorm=settings.clip_norm,
        use_ema=settings.ema_momentum > 0,
        ema_momentum=settings.ema_momentum or 0.99,
        ema_warmup=True,
        gradient_accumulation_steps=settings.accumulation if settings.accumulation > 1 else None,
    )
    # A model with the loss built in has the labels among its inputs.
    loss = None if "labels" in model.input else TokenCrossEntropy(settings.label_smoothing)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=_compiled(settings))
    optimizer.build(model.trainable_variables)


def make_deterministic(seed: int) -> None:
    """Seed every generator; under TensorFlow also ask for operations that give the same bits each time."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def encode_all(
    run: RunDirectory, settings: TrainConfig, pairs: Pairs, part: str, say: Callable[[str], None]
) -> Encoded:
    tokenizers = run.source_tokenizer, run.target_tokenizer
    encoded, dropped = encode_pairs(pairs, *tokenizers, settings.max_length, run.config.copy_words)
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


def _sampler(
    run: RunDirectory, settings: TrainConfig, splits: Splits, best: Encoded, say: Callable[[str], None]
) -> Callable[[int], Encoded] | None:
    """Return the function that draws an epoch's pairs and segmentations; None for the same in each."""
    tokenizers = run.source_tokenizer, run.target_tokenizer
    text, real = _kept_text(splits.train, best), len(best)
    if splits.synthetic is not None:
        more = encode_all(run, settings, splits.synthetic, "synthetic", say)
        text = tuple(own + other for own, other in zip(text, _kept_text(splits.synthetic, more), strict=True))
        best = Encoded([*best.sources, *more.sources], [*best.targets, *more.targets])
    elif not settings.draws_segmentations:
        return None

    def sample(epoch: int) -> Encoded:
        rows, lines = best, text
        if len(best) > real:
            chosen = draw_mixture(real, len(best) - real, settings.synthetic_share, settings.seed, epoch)
            rows = Encoded([best.sources[i] for i in chosen], [best.targets[i] for i in chosen])
            lines = tuple([side[i] for i in chosen] for side in text)
        if not settings.draws_segmentations:
            return rows
        seed = 1_000_003 * settings.seed + epoch
        return sample_pairs(lines, rows, tokenizers, settings.sampling_alphas, seed, settings.max_length)

    return sample


def _extra(run: RunDirectory, settings: TrainConfig, splits: Splits, data: Encoded) -> Extra | None:
    """Return the function that makes the inputs of auxiliary objectives; None without any."""
    signals = settings.signals
    if not (signals.sample or signals.guided_alignment):
        return None
    links: list[Links] = []
    if signals.guided_alignment:
        if splits.links is None or splits.synthetic is not None:
            raise UserError(
                "Guided alignment needs the links of the training text. Expected --alignments FILE, and no --synthetic"
            )
        links = [splits.links[i] for i in data.kept or range(len(data))]
    tokenizers = run.source_tokenizer, run.target_tokenizer

    def extra(dataset: BatchDataset, index: int, batch: Batch) -> dict[str, Any]:
        inputs, labels = batch
        more: dict[str, Any] = {}
        if signals.sample:
            update = dataset.epoch * len(dataset) + index
            keep = keep_gold(signals.scheduled_decay, signals.scheduled_k, update)
            more["gold"] = np.full((len(labels), 1), keep, np.float32)
        if links:
            shape = labels.shape[1], inputs["source"].shape[1]
            rows = dataset.rows(index)
            if rows is None:
                more["guide"] = np.zeros((len(labels), *shape), np.float32)
            else:
                sides = [[side[i] for i in rows] for side in (dataset.data.sources, dataset.data.targets)]
                more["guide"] = make_guide(sides[0], sides[1], [links[i] for i in rows], tokenizers, shape)
        return more

    return extra


def _kept_text(pairs: Pairs, encoded: Encoded) -> tuple[list[str], ...]:
    """Sources and targets of the pairs that were not left out."""
    sources, targets, _ = pairs.flat()
    return [sources[i] for i in encoded.kept or []], [targets[i] for i in encoded.kept or []]
