"""Commands of `keras-attention` that make models: `train`, `average`, `synthesize`."""

from __future__ import annotations

import json
import pathlib
from typing import Annotated, Any

import typer

from keras_attention.cli.help import option, options_of
from keras_attention.cli.options import BatchSize, Combination, MoreRuns, Run, search
from keras_attention.errors import UserError
from keras_attention.search_policy import SearchPolicy

Path = pathlib.Path
text = options_of("Text")
validation = options_of("Validation")
model = options_of("Model")
learning = options_of("Learning")
signals = options_of("More to learn from")
speed = options_of("Speed and devices")


def parse_fields(assignments: list[str]) -> dict[str, Any]:
    """`["decoder_units=512", "attention=concat"]` -> `{"decoder_units": 512, "attention": "concat"}`: JSON or text."""
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise UserError(f"--set takes NAME=VALUE. Expected e.g. --set decoder_units=512. Received: {assignment!r}")
        try:
            fields[name] = json.loads(value)
        except (ValueError, RecursionError):
            fields[name] = {"True": True, "False": False, "None": None}.get(value, value)
    return fields


def parse_sets(values: list[str]) -> dict[str, list[str]]:
    """`["news=news.en,news.de"]` -> `{"news": ["news.en", "news.de"]}`."""
    sets = {}
    for value in values:
        name, sign, files = value.partition("=")
        if not sign or not files:
            raise UserError(
                f"--also-validate takes NAME=SOURCE,TARGET or NAME=TSV. Expected e.g. news=n.tsv. Received: {value!r}"
            )
        sets[name] = files.split(",")
    return sets


def train(
    output: Annotated[Path, option("Run directory to write; the same command resumes it.")],
    recipe: Annotated[
        str | None, option("dates, multi30k or g2p: text, model and settings, which replace the defaults below.")
    ] = None,
    overwrite: Annotated[bool, option("Delete the run directory first.", "--overwrite")] = False,
    source: Annotated[Path | None, text("Source text, one sentence per line.")] = None,
    target: Annotated[Path | None, text("Target text, parallel to the source.")] = None,
    tsv: Annotated[Path | None, text("SOURCE<TAB>TARGET lines instead of two files.")] = None,
    shards: Annotated[
        Path | None, text("Folder of TSV files, for a corpus larger than memory.", metavar="FOLDER")
    ] = None,
    data: Annotated[Path | None, text("Folder of the recipe's data set.", default="fetched")] = None,
    max_length: Annotated[int | None, text("Leave out pairs with more tokens on a side.", default="100")] = None,
    skip_empty: Annotated[bool, text("Leave out pairs with an empty side.", "--skip-empty")] = False,
    tokenizer: Annotated[str | None, text("subword, char or word, for both sides.", default="subword")] = None,
    source_tokenizer: Annotated[str | None, text("subword, char or word.", default="that of --tokenizer")] = None,
    target_tokenizer: Annotated[str | None, text("subword, char or word.", default="that of --tokenizer")] = None,
    joint: Annotated[
        bool | None, text("One vocabulary for both sides.", "--joint/--separate", default="separate")
    ] = None,
    vocabulary: Annotated[
        int | None, text("Most tokens of a vocabulary.", default="8000 for subwords, else no limit")
    ] = None,
    subword_alpha: Annotated[
        float | None,
        text("Draw segmentations into subwords anew for each epoch; 0: no.", metavar="ALPHA", default="0.0"),
    ] = None,
    target_subword_alpha: Annotated[
        float | None, text("The same for the target alone.", metavar="ALPHA", default="that of --subword-alpha")
    ] = None,
    val_source: Annotated[Path | None, validation("Validation source.")] = None,
    val_target: Annotated[Path | None, validation("Validation target.")] = None,
    val_tsv: Annotated[Path | None, validation("Validation text as SOURCE<TAB>TARGET lines.")] = None,
    val_fraction: Annotated[
        float | None,
        validation("Share of the pairs held out without validation files, at most 2000.", default="0.05"),
    ] = None,
    also_validate: Annotated[
        list[str] | None,
        validation("More text to report scores of (or NAME=TSV); again for more.", metavar="NAME=SOURCE,TARGET"),
    ] = None,
    validation_sentences: Annotated[
        int | None, validation("Validation sentences translated after each epoch.", default="1000")
    ] = None,
    task: Annotated[
        str | None,
        validation("translation (BLEU), g2p (word error rate) or exact (exact match).", default="translation"),
    ] = None,
    tokenize: Annotated[str | None, validation("BLEU's tokenisation: none or 13a.", default="none")] = None,
    tensorboard: Annotated[
        bool | None,
        validation("Also write RUN/tensorboard.", "--tensorboard/--no-tensorboard", default="off"),
    ] = None,
    attention: Annotated[
        str | None,
        model(
            "dot, scaled_dot, general, concat, additive, normalized_additive, location, cosine; or none. "
            "Windows, alignments and heads: --set window=local_p, alignment=sparsemax, attention_heads=4.",
            default="general",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        model("A field of Seq2SeqConfig, e.g. decoder_units=512; again for more.", "--set", metavar="NAME=VALUE"),
    ] = None,
    start_from: Annotated[
        Path | None, model("Begin with the vocabularies and weights of a trained run.", metavar="RUN")
    ] = None,
    source_vectors: Annotated[
        Path | None, model("Word vectors to begin with: a word and its numbers on a line.", metavar="FILE")
    ] = None,
    target_vectors: Annotated[Path | None, model("The same for the target.", metavar="FILE")] = None,
    batch_size: Annotated[int | None, learning("Pairs of a batch.", default="64")] = None,
    epochs: Annotated[int | None, learning("Most passes over the data.", default="30")] = None,
    time_limit: Annotated[
        float | None, learning("Most minutes of training, resumed parts together.", metavar="MINUTES")
    ] = None,
    early_stopping_patience: Annotated[
        int | None, learning("Epochs without a better score that end the training.", default="10")
    ] = None,
    learning_rate: Annotated[float | None, learning("Of Adam, at first.", default="0.001")] = None,
    min_learning_rate: Annotated[float | None, learning("Where halving ends.", default="1e-05")] = None,
    schedule: Annotated[str | None, learning("Of the learning rate: plateau or cosine.", default="plateau")] = None,
    patience: Annotated[
        int | None, learning("Epochs without a better score that halve the learning rate.", default="2")
    ] = None,
    warmup: Annotated[int | None, learning("Updates over which the learning rate rises.", default="0")] = None,
    clip_norm: Annotated[float | None, learning("Bound on the gradient's norm.", default="1.0")] = None,
    label_smoothing: Annotated[
        float | None, learning("Share of mass spread over the vocabulary.", default="0.1")
    ] = None,
    ema_momentum: Annotated[
        float | None, learning("Momentum of the averaged weights; 0 for none.", default="0.999")
    ] = None,
    accumulation: Annotated[int | None, learning("Batches whose gradients make one update.", default="1")] = None,
    seed: Annotated[int | None, learning("Of weights, dropout, batches and splits.", default="1")] = None,
    synthetic: Annotated[
        list[str] | None,
        signals(
            "Pairs that a share of each epoch is drawn from (or a TSV; see synthesize); again for more.",
            metavar="SOURCE,TARGET",
        ),
    ] = None,
    synthetic_share: Annotated[
        float | None, signals("Share of each epoch drawn from --synthetic.", default="0.5")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        signals("Learn its predictions as well as the labels; again for an ensemble.", metavar="RUN"),
    ] = None,
    distillation: Annotated[
        float | None, signals("Of the teachers against the labels, up to 1.", metavar="WEIGHT", default="0.5")
    ] = None,
    backward: Annotated[
        float | None,
        signals(
            "Of the pairs whose target is learnt from right to left.",
            metavar="SHARE",
            default="0.0",
        ),
    ] = None,
    alignments: Annotated[
        Path | None, signals("Links of the training text, 0-0 1-2, line by line, for --guided-alignment.")
    ] = None,
    guided_alignment: Annotated[
        float | None,
        signals("Of the loss between attention and --alignments.", metavar="WEIGHT", default="0.0"),
    ] = None,
    guided_loss: Annotated[str | None, signals("Of it: cross_entropy or mse.", default="cross_entropy")] = None,
    coverage_loss: Annotated[
        float | None, signals("Of the loss against attending to a word again.", metavar="WEIGHT", default="0.0")
    ] = None,
    scheduled_sampling: Annotated[
        str | None,
        signals("none; word or mean: more and more inputs are the model's own predictions.", default="none"),
    ] = None,
    scheduled_decay: Annotated[
        str | None,
        signals("Of gold inputs: linear, exponential or inverse_sigmoid.", default="inverse_sigmoid"),
    ] = None,
    scheduled_k: Annotated[
        float | None, signals("Of that decay, in updates (exponential: below 1).", default="2000.0")
    ] = None,
    matmul_dtype: Annotated[
        str | None, speed("float32, bfloat16 or auto: bfloat16 where the processor has it.", default="float32")
    ] = None,
    fused_loss: Annotated[
        bool | None,
        speed("Projection and loss in one, without logits.", "--fused-loss/--stock-loss", default="fused-loss"),
    ] = None,
    jit: Annotated[bool | None, speed("Compile the training step with XLA.", "--jit/--no-jit", default="off")] = None,
    padding_multiple: Annotated[int | None, speed("Lengths are padded to a multiple of it.", default="4")] = None,
    distribute: Annotated[
        str | None,
        speed("none, mirrored (all devices of TensorFlow) or data_parallel (of JAX).", default="none"),
    ] = None,
    steps_per_execution: Annotated[
        int | None,
        speed("Updates in one compiled call, under JAX: for a GPU that waits for Python.", default="1"),
    ] = None,
    epochs_per_validation: Annotated[
        int | None,
        speed("Passes over the data in an epoch, at whose end is validated and saved (JAX).", default="1"),
    ] = None,
) -> None:
    """Train a model on parallel text; started again after a kill, the same command goes on where it was."""
    choices = dict(locals())
    from keras_attention.training import train as run_training

    fields = parse_fields(choices.pop("set_") or [])
    choices["also_validate"] = parse_sets(choices["also_validate"] or [])
    choices["synthetic"] = [files.split(",") for files in choices["synthetic"] or []]
    choices["teachers"] = choices.pop("teacher") or ()
    if choices.pop("attention") is not None:
        fields["attention"] = attention
    kind = choices.pop("tokenizer")
    for side in ("source_tokenizer", "target_tokenizer"):
        choices[side] = choices[side] or kind
    run_training(**choices, model=fields)


def average(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories.")],
    output: Annotated[Path, option("Run directory to write.")],
    last: Annotated[bool, option("Of the weights at the end of each, not of its best epoch.", "--last")] = False,
) -> None:
    """Make one model of runs that began with the same weights: the mean of their weights."""
    from keras_attention.training import average as run_average

    print(f"wrote {run_average(runs, output, last).model_path}, the mean of {len(runs)} runs")


def shortlist(
    run: Run,
    output: Annotated[Path, option("Run directory to write.")],
    source: Annotated[Path | None, text("Source text that it was trained on.")] = None,
    target: Annotated[Path | None, text("Its target text.")] = None,
    tsv: Annotated[Path | None, text("SOURCE<TAB>TARGET lines in place of two files.")] = None,
    candidates: Annotated[int, option("Most target words for each source word.")] = 40,
    frequent: Annotated[int, option("Frequent target words that are always possible.")] = 100,
) -> None:
    """Give a run a vocabulary shortlist, learnt from its attention: faster steps where the vocabulary is large."""
    from keras_attention.training.shortlist import shortlist_and_print

    files = {"source": source, "target": target, "tsv": tsv}
    shortlist_and_print(run, output, **files, candidates=candidates, frequent=frequent)


def synthesize(
    run: Run,
    source: Annotated[Path, option("Text in the language that the run reads, one sentence per line.")],
    output: Annotated[Path, option("SOURCE<TAB>TARGET lines to write, for train --synthetic.")],
    reverse: Annotated[bool, option("Back-translation: what the run writes becomes the source.", "--reverse")] = False,
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    n_best: Annotated[int, search("Most pairs for each sentence.")] = 4,
    batch_size: BatchSize = 64,
    *,
    policy: SearchPolicy,
) -> None:
    """Translate training text into more training text; a killed command goes on where it was."""
    from keras_attention.training.synthesize import synthesize_and_print

    synthesize_and_print(
        run,
        source=source,
        output=output,
        reverse=reverse,
        ensemble=ensemble or (),
        combination=combination,
        n_best=n_best,
        policy=policy,
        batch_size=batch_size,
    )
