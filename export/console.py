"""`export`, `verify` and `benchmark` of the command line: each prints a table, or raises `UserError`."""

import dataclasses
import json
import pathlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from keras_attention.cli.tables import output_console, print_table
from keras_attention.errors import UserError
from keras_attention.ranges import check_ranges
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.lines import read_lines

from .errors import VerificationError, requirements
from .parity.quality import LOSS_LIMIT

SHOWN_FAILURES = 20


def export_run(
    run: str | pathlib.Path,
    to: Sequence[str] | None = None,
    output: str | pathlib.Path | None = None,
    precision: str | None = None,
    text: bool = False,
    sentences: str | pathlib.Path | None = None,
    references: str | pathlib.Path | None = None,
    loss_limit: float = LOSS_LIMIT,
    source_length: int = 40,
    calibration: str | pathlib.Path | None = None,
    overwrite: bool = False,
    ensemble: Sequence[str | pathlib.Path] = (),
    combination: str = "probabilities",
    policy: SearchPolicy | None = None,
    **settings: Any,
) -> pathlib.Path:
    """Export a run, verify the artefact, and print the table; returns the artefact directory.

    Args:
        run: the run directory.
        to: `saved_model`, `tflite` (or `litert`), `onnx`, `npu`; if `None`, all but `npu` that support the precision.
        output: the artefact directory to write; `RUN/export` if `None`.
        precision: `float32`, the default; `float16`, `dynamic_int8`, or `int8` (ONNX, and always of `npu`).
        text: whether TFLite and ONNX get a second file that takes sentences.
        sentences: a text file to verify on, one sentence per line; the run's own samples if `None`.
        references: a text file of the references of each sentence, several separated by tabs; for the run's own
            samples, its own if `None`.
        loss_limit: points of the task's score that a lower precision may lose.
        source_length: of `npu`: maximum number of source tokens, EOS counted.
        calibration: of int8: a text file of calibration sentences, one per line; if `None`, the last
            128 of the run's own samples, which are then excluded from verification.
        overwrite: whether to replace an existing artefact.
        ensemble: further run directories, which form an ensemble with it in one artefact.
        combination: how an ensemble is averaged: `probabilities` or `logits`.
        policy, **settings: of the search, see `export`.

    Raises:
        UserError: for any error of the user; a failed verification lists its differences first.
    """
    console = output_console()
    samples, accepted = read_samples(sentences, references)
    ranges = None if calibration is None else read_sentences(pathlib.Path(calibration))
    output = pathlib.Path(run) / "export" if output is None else pathlib.Path(output)
    with ended_by_signals(), stages(console) as progress, failures_shown(console), requirements():
        task = progress.add_task("loading", total=None)
        from keras_attention.run_directory import RunDirectory

        from .exporter import export
        from .formats.table import choose
        from .staging import check_output

        choose(to, precision)
        check_output(output, overwrite)
        opened = [RunDirectory.open(one) for one in (run, *ensemble)]
        written = export(
            opened if ensemble else opened[0],
            output,
            to,
            samples=samples,
            precision=precision,
            text=text,
            references=accepted,
            loss_limit=loss_limit,
            source_length=source_length,
            calibration=ranges,
            combination=combination,
            policy=policy,
            **settings,
            overwrite=overwrite,
            progress=lambda message: progress.update(task, description=message),
        )
    print_export(console, output, written)
    return output


def print_export(console: Console, output: pathlib.Path, written: Any) -> None:
    """Print the table of an export, and below it operators, losses, placements and warnings."""
    from .report import report

    # Eighty columns suffice for the figures; the operators of each format follow as lines.
    columns, rows = report.header(written.report), report.table(written.report)
    shown = [number for number, column in enumerate(columns) if column not in ("p90 ms", "operators")]
    print_table(
        f"{output}: exported and verified against Keras",
        [columns[number].replace("rows/s", "batched rows/s") for number in shown],
        [[row[number].partition(" (batch")[0] for number in shown] for row in rows],
    )
    for row in rows:
        console.print(f"{row[0]}: {row[-1]}", markup=False, highlight=False)
    for parity in written.parities:
        if parity.loss:
            console.print(f"{parity.format}, {written.report.precision}: {parity.loss}", markup=False, highlight=False)
        for line in report.placed(parity):
            console.print(line, markup=False, highlight=False)
    for warning in written.warnings:
        console.print(f"warning: {warning}", markup=False)


def read_samples(
    sentences: str | pathlib.Path | None, references: str | pathlib.Path | None
) -> tuple[list[str] | None, list[list[str]] | None]:
    """Read the verification text and its references, where given.

    Raises:
        UserError: for references without text, and files that cannot be read or do not match.
    """
    if sentences is None:
        if references is not None:
            raise UserError("References of the run's own samples are known. Expected: --sentences beside --references")
        return None, None
    if references is None:
        return read_sentences(pathlib.Path(sentences)), None
    return read_pairs(pathlib.Path(sentences), pathlib.Path(references))


def verify_directory(directory: str | pathlib.Path) -> None:
    """Verify an artefact directory in place, and print what was compared.

    Raises:
        UserError: for a missing, truncated or edited file; `VerificationError` for any difference from Keras.
    """
    console = output_console()
    with stages(console) as progress, failures_shown(console), requirements():
        task = progress.add_task("loading", total=None)
        from .verifier import verify

        parities = verify(directory, lambda message: progress.update(task, description=message))
    rows = [
        [
            parity.format,
            str(parity.cases),
            f"{parity.identical} of {parity.sentences}",
            str(parity.near_ties),
            f"{max(parity.largest_difference.values(), default=0.0):.1e}",
        ]
        for parity in parities
    ]
    columns = ["format", "cases", "same tokens", "near-ties", "largest difference"]
    print_table(f"{directory}: verified against Keras", columns, rows)


def benchmark_directory(directory: str | pathlib.Path, seconds: float = 3.0, threads: int | None = None) -> None:
    """Time an artefact in every runtime and print the table; the last line is one JSON object.

    Raises:
        UserError: for a missing, truncated or edited file, or an option out of range.
    """
    check_ranges(threads=threads)
    if not seconds > 0:
        raise UserError(f"Expected: seconds > 0. Received: {seconds}")
    console = output_console()
    with stages(console) as progress, requirements():
        progress.add_task("timing", total=None)
        from .report import benchmark as bench
        from .report.report import readable_size

        latencies = bench.benchmark(directory, seconds, threads)
    rows = [
        [
            latency.runtime,
            readable_size(latency.bytes),
            f"{latency.median_ms:.2f}",
            f"{latency.p90_ms:.2f}",
            f"{1e3 / latency.median_ms:.1f}",
            f"{latency.per_second:.1f} (batch {latency.batch_size})",
            readable_size(latency.peak_bytes) if latency.peak_bytes else "",
        ]
        for latency in latencies
    ]
    columns = ["runtime", "size", "median ms", "p90 ms", "sentences/s, one at a time", "sentences/s", "peak memory"]
    print_table(f"{directory}: {latencies[0].graph}", columns, rows)
    print(bench.as_json(latencies))


def estimate_model(
    config: str | pathlib.Path,
    fields: Mapping[str, Any] | None = None,
    source_length: int = 20,
    target_length: int = 20,
    beam_size: int = 5,
) -> None:
    """Estimate a model's cost on a device, and print it; the last line is one JSON object.

    Args:
        config: a JSON file with fields of `Seq2SeqConfig`, or a run directory.
        fields: fields that replace those of the file.
        source_length, target_length: tokens, EOS counted.
        beam_size: hypotheses.

    Raises:
        UserError: if the file cannot be read, or its fields are no valid config.
    """
    path = pathlib.Path(config)
    file = path / "config.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        wanted = "a JSON file with fields of Seq2SeqConfig, or a run directory"
        raise UserError(f"{file}: cannot be read: {error.strerror}. Expected {wanted}") from None
    except (ValueError, RecursionError):
        content = None
    model = content.get("model") if path.is_dir() and isinstance(content, dict) else content
    if not isinstance(model, dict):
        raise UserError(f"{file}: Expected: fields of Seq2SeqConfig as a JSON object")
    with requirements():
        from keras_attention.models.config import Seq2SeqConfig

        from .report.cost import estimate
        from .report.report import readable_size

        try:
            if "cell" in (fields or {}):  # a new cell resets the fields that only models without recurrence have
                model = {name: value for name, value in model.items() if name != "scale_embeddings"}
            built = Seq2SeqConfig(**{**model, **(fields or {})})
        except (TypeError, ValueError) as error:
            raise UserError(f"{file}: {str(error).removeprefix('Seq2SeqConfig.__init__() ')}") from None
        found = estimate(built, source_length, target_length, beam_size)
    rows = [
        ["weights", f"{found.weights:,}"],
        ["MACs of a source token", f"{found.encoder_macs:,}"],
        [f"MACs of a step, {source_length} source tokens", f"{found.step_macs:,}"],
        [f"MACs of a sentence, beam {beam_size}, {target_length} steps", f"{found.sentence_macs:,}"],
        *([f"TFLite, {precision}", readable_size(size)] for precision, size in found.bytes.items()),
        *([f"ONNX, {precision}", readable_size(size)] for precision, size in found.onnx_bytes.items()),
        ["held by the search", readable_size(found.search_bytes)],
    ]
    print_table(f"{config}: estimated", ["cost", "estimate"], rows)
    print(json.dumps(dataclasses.asdict(found)))


def read_pairs(sentences: pathlib.Path, references: pathlib.Path) -> tuple[list[str], list[list[str]]]:
    """Read non-empty sentences and their references, line by line, several separated by tabs.

    Raises:
        UserError: if a file cannot be read, or the numbers of lines differ.
    """
    sources, targets = read_lines(sentences), read_lines(references)
    if len(sources) != len(targets):
        raise UserError(
            f"{references}: does not fit {sentences}. Expected: {len(sources)} lines. Received: {len(targets)}"
        )
    pairs = [(source, target.split("\t")) for source, target in zip(sources, targets, strict=True) if source]
    return [source for source, _ in pairs], [accepted for _, accepted in pairs]


def read_sentences(path: pathlib.Path) -> list[str]:
    """Return the non-empty lines of a text file.

    Raises:
        UserError: if it cannot be read, is not UTF-8, or is empty.
    """
    return [line for line in read_lines(path) if line]


@contextmanager
def stages(console: Console) -> Iterator[Progress]:
    """Show the current stage and its duration; on a terminal only."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end this process like an interrupt: its converters end, and its folders are removed."""

    def end(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    former = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores SIGHUP
                former[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def failures_shown(console: Console) -> Iterator[None]:
    """Print each difference of a failed verification on its own line."""
    try:
        yield
    except VerificationError as error:
        for failure in error.failures[:SHOWN_FAILURES]:
            console.print(f"differs: {failure}", markup=False, highlight=False, soft_wrap=True)
        raise
