"""Commands of `keras-attention` that make models: `train`, `average`, `synthesize`."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Annotated, Any

import typer

from keras_attention.cli_options import Combination, MoreRuns
from keras_attention.errors import UserError

Path = pathlib.Path


def parse_fields(assignments: list[str]) -> dict[str, Any]:
    """`["decoder_units=512", "attention=concat"]` -> `{"decoder_units": 512, "attention": "concat"}`: JSON or text."""
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name:
            raise UserError(f"--set takes NAME=VALUE. Expected e.g. --set decoder_units=512. Received: {assignment!r}")
        try:
            fields[name] = json.loads(value)
        except ValueError:
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
    output: Annotated[Path, typer.Option(help="Run directory to write; the same command resumes it.")],
    recipe: Annotated[str | None, typer.Option(help="dates, multi30k or g2p.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the recipe's data set, if it is not to be fetched.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="Source text, one sentence per line.")] = None,
    target: Annotated[Path | None, typer.Option(help="Target text, parallel to the source.")] = None,
    tsv: Annotated[Path | None, typer.Option(help="SOURCE<TAB>TARGET lines instead of two files.")] = None,
    shards: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of TSV files, for a corpus larger than memory.")
    ] = None,
    val_source: Annotated[Path | None, typer.Option(help="Validation source.")] = None,
    val_target: Annotated[Path | None, typer.Option(help="Validation target.")] = None,
    val_tsv: Annotated[Path | None, typer.Option(help="Validation text as SOURCE<TAB>TARGET lines.")] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Share of the pairs held out without validation files.")
    ] = None,
    also_validate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SOURCE,TARGET", help="More text to report scores of (or NAME=TSV); again for more."),
    ] = None,
    synthetic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE,TARGET",
            help="Pairs that a share of each epoch is drawn from (or a TSV; see synthesize); again for more.",
        ),
    ] = None,
    synthetic_share: Annotated[float | None, typer.Option(help="Share of each epoch drawn from --synthetic.")] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Learn its predictions as well as the labels; again for an ensemble."),
    ] = None,
    distillation: Annotated[
        float | None, typer.Option(metavar="WEIGHT", help="Of the teachers against the labels, up to 1.")
    ] = None,
    skip_empty: Annotated[bool, typer.Option("--skip-empty", help="Leave out pairs with an empty side.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run directory first.")] = False,
    start_from: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Begin with the vocabularies and weights of a trained run.")
    ] = None,
    source_vectors: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Word vectors to begin with: a word and its numbers on a line.")
    ] = None,
    target_vectors: Annotated[Path | None, typer.Option(metavar="FILE", help="The same for the target.")] = None,
    find_learning_rate: Annotated[
        bool,
        typer.Option("--find-learning-rate", help="Only raise the learning rate over 200 updates and suggest one."),
    ] = False,
    task: Annotated[
        str | None, typer.Option(help="translation (BLEU), g2p (word error rate) or exact (exact match).")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="subword, char or word, for both sides.")] = None,
    source_tokenizer: Annotated[str | None, typer.Option(help="subword, char or word.")] = None,
    target_tokenizer: Annotated[str | None, typer.Option(help="subword, char or word.")] = None,
    joint: Annotated[bool | None, typer.Option("--joint/--separate", help="One vocabulary for both sides.")] = None,
    vocabulary: Annotated[int | None, typer.Option(help="Most tokens of a vocabulary.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Leave out pairs with more tokens on a side.")] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="dot, scaled_dot, general, concat, additive, normalized_additive, location, cosine; or none. "
            "Windows, alignments and heads: --set window=local_p, alignment=sparsemax, attention_heads=4."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A field of Seq2SeqConfig, e.g. decoder_units=512."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs of a batch.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Most passes over the data.")] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Most minutes of training, resumed parts together.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam, at first.")] = None,
    smallest_learning_rate: Annotated[float | None, typer.Option(help="Where halving ends.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Bound on the gradient's norm.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of mass spread over the vocabulary.")] = None,
    averaging: Annotated[float | None, typer.Option(help="Momentum of the averaged weights; 0 for none.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better score that halve the learning rate.")
    ] = None,
    stop_after: Annotated[int | None, typer.Option(help="Epochs without a better score that end the training.")] = None,
    validation_sentences: Annotated[
        int | None, typer.Option(help="Validation sentences translated after each epoch.")
    ] = None,
    tokenize: Annotated[str | None, typer.Option(help="BLEU's tokenisation: none or 13a.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, dropout, batches and splits.")] = None,
    padding_multiple: Annotated[int | None, typer.Option(help="Lengths are padded to a multiple of it.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Of the learning rate: plateau or cosine.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Updates over which the learning rate rises.")] = None,
    sampling: Annotated[
        float | None, typer.Option(metavar="ALPHA", help="Draw segmentations into subwords anew for each epoch.")
    ] = None,
    target_sampling: Annotated[
        float | None, typer.Option(metavar="ALPHA", help="The same for the target alone, where it is another alpha.")
    ] = None,
    backward: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of the pairs whose target is learnt backwards, for --agreement."),
    ] = None,
    products: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or auto: bfloat16 where the processor has it.")
    ] = None,
    consistency: Annotated[
        float | None,
        typer.Option(metavar="WEIGHT", help="R-Drop: read each pair twice and pull the readings together."),
    ] = None,
    fused_loss: Annotated[
        bool | None, typer.Option("--fused-loss/--stock-loss", help="Projection and loss in one, without logits.")
    ] = None,
    jit: Annotated[bool | None, typer.Option("--jit/--no-jit", help="Compile the training step with XLA.")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches whose gradients make one update.")] = None,
    alignments: Annotated[
        Path | None, typer.Option(help="Links of the training text, 0-0 1-2, line by line, for --guided-alignment.")
    ] = None,
    guided_alignment: Annotated[
        float | None, typer.Option(metavar="WEIGHT", help="Of the loss between attention and --alignments.")
    ] = None,
    guided_loss: Annotated[str | None, typer.Option(help="Of it: cross_entropy or mse.")] = None,
    coverage_loss: Annotated[
        float | None, typer.Option(metavar="WEIGHT", help="Of the loss against attending to a word again.")
    ] = None,
    scheduled_sampling: Annotated[
        str | None, typer.Option(help="none; word or mean: more and more inputs are the model's own predictions.")
    ] = None,
    scheduled_decay: Annotated[
        str | None, typer.Option(help="Of gold inputs: linear, exponential or inverse_sigmoid.")
    ] = None,
    scheduled_k: Annotated[float | None, typer.Option(help="Of that decay, in updates (exponential: below 1).")] = None,
    distribute: Annotated[
        str | None, typer.Option(help="none, mirrored (all devices of TensorFlow) or data_parallel (of JAX).")
    ] = None,
    steps_per_call: Annotated[
        int | None, typer.Option(help="Updates in one compiled call, under JAX: for a GPU that waits for Python.")
    ] = None,
    passes: Annotated[
        int | None, typer.Option(help="Passes over the data in an epoch, at whose end is validated and saved (JAX).")
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard/--no-tensorboard", help="Also write RUN/tensorboard.")
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
    try:
        run_training(**choices, model=fields)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last whole epoch", file=sys.stderr)
        raise typer.Exit(130) from None


def average(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.")],
    output: Annotated[Path, typer.Option(help="Run directory to write.")],
    last: Annotated[
        bool, typer.Option("--last", help="Of the weights at the end of each, not of its best epoch.")
    ] = False,
) -> None:
    """Make one model of runs that began with the same weights: the mean of their weights."""
    from keras_attention.training import average as run_average

    print(f"wrote {run_average(runs, output, last).model_path}, the mean of {len(runs)} runs")


def shortlist(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    output: Annotated[Path, typer.Option(help="Run directory to write.")],
    source: Annotated[Path | None, typer.Option(help="Source text that it was trained on.")] = None,
    target: Annotated[Path | None, typer.Option(help="Its target text.")] = None,
    tsv: Annotated[Path | None, typer.Option(help="SOURCE<TAB>TARGET lines in place of two files.")] = None,
    candidates: Annotated[int, typer.Option(help="Most target words for each source word.")] = 40,
    frequent: Annotated[int, typer.Option(help="Frequent target words that are always possible.")] = 100,
) -> None:
    """Give a run a vocabulary shortlist, learnt from its attention: faster steps where the vocabulary is large."""
    from keras_attention.training.shortlist import shortlist_and_print

    text = {"source": source, "target": target, "tsv": tsv}
    shortlist_and_print(run, output, **text, candidates=candidates, frequent=frequent)


def synthesize(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Annotated[Path, typer.Option(help="Text in the language that the run reads, one sentence per line.")],
    output: Annotated[Path, typer.Option(help="SOURCE<TAB>TARGET lines to write, for train --synthetic.")],
    ensemble: MoreRuns = None,
    combination: Combination = "probabilities",
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Back-translation: what the run writes becomes the source.")
    ] = False,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
    n_best: Annotated[int, typer.Option(help="Most pairs for each sentence.")] = 4,
    length_penalty: Annotated[float, typer.Option(help="GNMT alpha; 0 for none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Sentences at a time.")] = 64,
) -> None:
    """Translate training text into more training text; a killed command goes on where it was."""
    from keras_attention.training.synthesis import synthesize_and_print

    synthesize_and_print(
        run,
        source=source,
        output=output,
        reverse=reverse,
        ensemble=ensemble or (),
        combination=combination,
        beam_size=beam,
        n_best=n_best,
        length_penalty=length_penalty,
        batch_size=batch_size,
    )
