"""The command line `keras-attention`: from training text to a verified artefact.

This file only reads options; every command is a function of the library with the same names.
"""

from __future__ import annotations

import io
import json
import logging
import os
import pathlib
import sys
from typing import Annotated, Any, NoReturn

import typer

from keras_attention.errors import UserError

app = typer.Typer(
    name="keras-attention",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Path = pathlib.Path
HEAT_MAP = Path("attention.png")


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


@app.callback()
def root() -> None:
    """Luong attention, from parallel text to verified SavedModel, TFLite and ONNX artefacts."""


@app.command()
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
    distribute: Annotated[
        str | None, typer.Option(help="none, mirrored (all devices of TensorFlow) or data_parallel (of JAX).")
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


@app.command()
def average(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.")],
    output: Annotated[Path, typer.Option(help="Run directory to write.")],
) -> None:
    """Make one model of runs that began with the same weights: the mean of their weights."""
    from keras_attention.training import average as run_average

    print(f"wrote {run_average(runs, output).model_path}, the mean of {len(runs)} runs")


@app.command()
def synthesize(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Annotated[Path, typer.Option(help="Text in the language that the run reads, one sentence per line.")],
    output: Annotated[Path, typer.Option(help="SOURCE<TAB>TARGET lines to write, for train --synthetic.")],
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
        beam_size=beam,
        n_best=n_best,
        length_penalty=length_penalty,
        batch_size=batch_size,
    )


@app.command()
def translate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
    n_best: Annotated[int, typer.Option(help="Outputs of each line; above 1, each starts with its line number.")] = 1,
    scores: Annotated[bool, typer.Option("--scores", help="Put the score and a tab before each output.")] = False,
    alignments: Annotated[Path | None, typer.Option(help="Write the attention of each output, as JSON lines.")] = None,
    max_length: Annotated[int, typer.Option(help="Most tokens of an output.")] = 200,
    max_length_factor: Annotated[
        float, typer.Option(help="Most tokens of an output for each token of its source, and 10 more.")
    ] = 2.0,
    length_penalty: Annotated[float, typer.Option(help="GNMT alpha; 0 for none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Sentences at a time.")] = 32,
    lenient: Annotated[bool, typer.Option("--lenient", help="Translate what can be of bad lines; warn.")] = False,
) -> None:
    """Translate standard input, one sentence per line, to standard output."""
    from keras_attention.streams import translate_stream

    translate_stream(
        run,
        beam_size=beam,
        n_best=n_best,
        scores=scores,
        alignments=alignments,
        max_length=max_length,
        max_length_factor=max_length_factor,
        length_penalty=length_penalty,
        batch_size=batch_size,
        lenient=lenient,
    )


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    source: Annotated[Path | None, typer.Option(help="Source text, one sentence per line.")] = None,
    target: Annotated[list[Path] | None, typer.Option(help="Reference text; again for more references.")] = None,
    tsv: Annotated[
        Path | None, typer.Option(help="SOURCE<TAB>TARGET lines; equal sources: several references.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="translation, g2p or exact; the run's own by default.")] = None,
    tokenize: Annotated[str | None, typer.Option(help="BLEU's tokenisation: none or 13a.")] = None,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="GNMT alpha; 0 for none.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Sentences at a time.")] = 32,
    by_length: Annotated[bool, typer.Option("--by-length", help="Also score groups of like source length.")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the outputs, one per line.")] = None,
    lenient: Annotated[bool, typer.Option("--lenient", help="Cut sources that are too long.")] = False,
) -> None:
    """Score a run on parallel text: BLEU and chrF, error rates, exact match. The last line is one JSON object."""
    from keras_attention.training.evaluate import evaluate_and_print

    evaluate_and_print(
        run,
        source=source,
        target=target or None,
        tsv=tsv,
        task=task,
        tokenize=tokenize,
        beam_size=beam,
        length_penalty=length_penalty,
        batch_size=batch_size,
        by_length=by_length,
        output=output,
        lenient=lenient,
    )


@app.command()
def attention(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    text: Annotated[str, typer.Argument(help="A source sentence.")],
    output: Annotated[Path, typer.Option(help="Picture to write.")] = HEAT_MAP,
    beam: Annotated[int, typer.Option(help="Hypotheses kept; 1 is greedy.")] = 5,
) -> None:
    """Translate one text and draw its attention as a heat map (PNG)."""
    from keras_attention.streams import draw_attention

    print(draw_attention(run, text, output, beam).text)
    print(f"wrote {output}", file=sys.stderr)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    more: Annotated[list[str] | None, typer.Argument(metavar="[FORMAT]...", hidden=True)] = None,
    to: Annotated[
        list[str] | None, typer.Option("--to", metavar="FORMAT...", help="saved_model, tflite (litert), onnx.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Artefact directory to write. [default: RUN/export]")] = None,
    beam: Annotated[int, typer.Option(help="Hypotheses kept, fixed in the artefact.")] = 5,
    max_length: Annotated[int, typer.Option(help="Longest translation in tokens, fixed in the artefact.")] = 200,
    length_penalty: Annotated[float, typer.Option(help="Default exponent of the GNMT length penalty.")] = 1.0,
    sentences: Annotated[Path | None, typer.Option(help="Text to verify on. [default: the run's samples]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an artefact that is there.")] = False,
) -> None:
    """Export a run as SavedModel, TFLite and ONNX, and prove each equal to Keras: `export RUN --to tflite onnx`."""
    from keras_attention.export.commands import DEFAULT_FORMATS, export_run

    formats = [*(to or []), *(more or [])]  # `--to a b` hands over b as an argument
    export_run(run, formats or DEFAULT_FORMATS, output, beam, max_length, length_penalty, sentences, overwrite)


@app.command()
def verify(directory: Annotated[Path, typer.Argument(help="Artefact directory.")]) -> None:
    """Compare an artefact directory with what Keras computed: files, names, operators, values, tokens."""
    from keras_attention.export.commands import verify_directory

    verify_directory(directory)


@app.command()
def benchmark(
    directory: Annotated[Path, typer.Argument(help="Artefact directory.")],
    seconds: Annotated[float, typer.Option(help="Time spent on each measurement.")] = 3.0,
    threads: Annotated[int | None, typer.Option(help="Of LiteRT and ONNX Runtime. [default: their own]")] = None,
) -> None:
    """Size, latency and sentences/s of an artefact in every runtime; the last line is one JSON object."""
    from keras_attention.export.commands import benchmark_directory

    benchmark_directory(directory, seconds, threads)


def main() -> None:
    """Entry point: a user's mistake, or a full disk, becomes one line on standard error and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    # TensorFlow warns of a few tracings for different shapes, which are intended.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        app(standalone_mode=True)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}")


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        # What is still buffered cannot be written either; the interpreter must not complain of it a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


if __name__ == "__main__":
    main()
