"""Line streams and plots for `keras-attention translate` and `attention`."""

from __future__ import annotations

import contextlib
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from keras_attention.errors import UserError
from keras_attention.files import storage_message
from keras_attention.metrics.alignment import best_links, format_pharaoh
from keras_attention.metrics.plots import attention_heat_map
from keras_attention.text.lines import decode_lines, read_lines, read_parallel_lines
from keras_attention.translation.attention_page import write_attention_page
from keras_attention.translation.hypothesis import Hypothesis
from keras_attention.translation.translator import Translator

CHUNK = 2048
SKIP_ERRORS = (
    ", or give --skip-errors: empty lines stay empty, what was never seen becomes <unk>, and what is too long is cut"
)


def translate_lines(
    translator: Translator,
    lines: Iterable[bytes],
    write: Callable[[int, list[Hypothesis]], None],
    *,
    name: str = "stdin",
    skip_errors: bool = False,
    chunk: int = CHUNK,
    warn: Callable[[str], None] | None = None,
    **options: Any,
) -> int:
    """Translate a stream of UTF-8 lines, `chunk` at a time; `write(line number, hypotheses)` is called in their order.

    Args:
        skip_errors: `warn` about a line with a problem (see `Translator.problem`) and translate it as far as possible,
            instead of stopping there.
        **options: of `Translator.translate`.

    Returns:
        The number of lines.

    Raises:
        UserError: at the first bad line, with its number, after the lines before it were written.
    """
    warn = warn or (lambda message: None)
    texts = enumerate(decode_lines(lines, name), 1)
    count = 0
    while True:
        # A word that training never saw is not unknown where it may be copied into the output.
        unknown_is_one = options.get("replace_unknown", False) is False
        batch, error = _next_chunk(texts, chunk, name, translator, skip_errors, warn, unknown_is_one)
        filled = [(number, text) for number, text in batch if not translator.is_empty(text)]
        found = dict(
            zip(
                (number for number, _ in filled),
                translator.translate([text for _, text in filled], **options) if filled else [],
                strict=True,
            )
        )
        for number, _ in batch:
            write(number, found.get(number, []))
        count += len(batch)
        if error is not None:
            raise error
        if len(batch) < chunk:
            if not count:
                raise UserError(f"{name}: the input is empty. Expected one sentence per line")
            return count


def _next_chunk(
    texts: Iterator[tuple[int, str]],
    size: int,
    name: str,
    translator: Translator,
    skip_errors: bool,
    warn: Callable[[str], None],
    unknown_is_one: bool,
) -> tuple[list[tuple[int, str]], UserError | None]:
    """Return the next lines, up to the first bad one, and its error."""
    batch: list[tuple[int, str]] = []
    try:
        for number, text in itertools.islice(texts, size):
            problem = translator.problem(text, unknown_is_one)
            if problem is not None and not skip_errors:
                raise UserError(f"{name}:{number}: {problem}{SKIP_ERRORS}")
            if problem is not None:
                warn(f"{name}:{number}: {problem}")
            batch.append((number, text))
    except UserError as error:
        return batch, error
    return batch, None


def hypothesis_writer(
    output: TextIO,
    n_best: int = 1,
    scores: bool = False,
    alignments: TextIO | None = None,
    links: TextIO | None = None,
    translator: Translator | None = None,
) -> Callable[[int, list[Hypothesis]], None]:
    """Return a `write` function for `translate_lines`.

    One line for each hypothesis: TEXT; with `scores` SCORE<TAB>TEXT; with `n_best` above 1 the line number and a tab
    come first.
    `alignments` gets one JSON object for each hypothesis: line, source tokens, tokens, weights (rows: tokens). `links`
    gets a line in Pharaoh format for each, from token to token, which needs the `translator`.
    """

    def write(number: int, hypotheses: list[Hypothesis]) -> None:
        if not hypotheses:
            output.write(f"{number}\t\n" if n_best > 1 else "\n")
            if links is not None:
                links.write("\n")
        for hypothesis in hypotheses:
            fields = [str(number)] * (n_best > 1) + [f"{hypothesis.score:.6f}"] * scores + [hypothesis.text]
            output.write("\t".join(fields) + "\n")
            if alignments is not None:
                entry = {
                    "line": number,
                    "source": hypothesis.source_tokens,
                    "output": hypothesis.tokens,
                    "alignment": [[round(float(weight), 6) for weight in row] for row in hypothesis.alignment],
                }
                alignments.write(json.dumps(entry, ensure_ascii=False) + "\n")
            if links is not None and translator is not None:
                words = (
                    np.array(translator.source_tokenizer.word_numbers(hypothesis.source_tokens)),
                    np.array(translator.target_tokenizer.word_numbers(hypothesis.tokens)),
                )
                links.write(format_pharaoh(best_links(hypothesis.alignment, *words)) + "\n")

    return write


def translate_stream(
    runs: Sequence[str | pathlib.Path],
    *,
    combination: str = "probabilities",
    alignments: str | pathlib.Path | None = None,
    pharaoh: str | pathlib.Path | None = None,
    n_best: int = 1,
    scores: bool = False,
    skip_errors: bool = False,
    **options: Any,
) -> None:
    """Translate standard input to standard output, with a line count on standard error if that is a terminal."""
    if sys.stdin is None:
        raise UserError("Standard input is closed. Expected text, one sentence per line, e.g. < FILE")
    translator = Translator.load(*runs, combination=combination)
    if (alignments or pharaoh) is not None and not translator.has_attention:
        raise UserError(f"{runs[0]}: a plain encoder-decoder has no attention. Expected no --alignments or --pharaoh")
    terminal = sys.stdin.isatty()
    with contextlib.ExitStack() as stack:
        files = [_open_output(stack, path) for path in (alignments, pharaoh)]
        on_batch = stack.enter_context(_counter()) if sys.stderr.isatty() and not terminal else None
        write = hypothesis_writer(sys.stdout, n_best, scores, files[0], files[1], translator)
        try:
            translate_lines(
                translator,
                sys.stdin.buffer,
                write,
                skip_errors=skip_errors,
                chunk=1 if terminal else CHUNK,
                warn=lambda message: print(f"warning: {message}", file=sys.stderr),
                n_best=n_best,
                on_batch=on_batch,
                **options,
            )
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(storage_message(pathlib.Path(error.filename or "the output"), error)) from error


def _open_output(stack: contextlib.ExitStack, path: str | pathlib.Path | None) -> TextIO | None:
    if path is None:
        return None
    try:
        return stack.enter_context(pathlib.Path(path).open("w", encoding="utf-8"))
    except OSError as error:
        raise UserError(storage_message(pathlib.Path(path), error)) from error


def score_files(
    runs: Sequence[str | pathlib.Path],
    source: str | pathlib.Path,
    target: str | pathlib.Path,
    combination: str = "probabilities",
    **options: Any,
) -> list[float]:
    """Score the lines of two parallel files with runs, see `Translator.score`.

    Raises UserError for files that are missing, not parallel or not UTF-8, and for a line that cannot be scored.
    """
    sources, targets = read_parallel_lines(source, target)
    translator = Translator.load(*runs, combination=combination)
    for number, text in enumerate(sources, 1):
        problem = translator.problem(text)
        if problem is not None:
            raise UserError(f"{source}:{number}: {problem}")
    return [found.score for found in translator.score(sources, targets, **options)]


def read_dictionary(path: str | pathlib.Path) -> dict[str, str]:
    """Read SOURCE<TAB>TARGET lines as a dictionary. Raises UserError with file and line of a malformed one."""
    entries = {}
    for number, line in enumerate(read_lines(path), 1):
        word, tab, translation = line.partition("\t")
        if not tab or not word:
            raise UserError(f"{path}:{number}: Expected a word, a tab and its translation. Received: {line!r}")
        entries[word] = translation
    return entries


def draw_attention(
    run: str | pathlib.Path,
    text: str,
    output: str | pathlib.Path,
    page: str | pathlib.Path | None = None,
    **settings: Any,
) -> Hypothesis:
    """Translate one text and write the heat map of its attention to `output`, and optionally an HTML page.

    `settings` are arguments of `Translator.translate`.

    Raises UserError for a text that cannot be translated faithfully, and for a model without attention.
    """
    translator = Translator.load(run)
    if not translator.has_attention:
        raise UserError(f"{run}: a plain encoder-decoder has no attention to draw. Expected a run with attention")
    problem = translator.problem(text)
    if problem is not None:
        raise UserError(f"{text!r}: {problem}")
    best = translator.translate([text], **settings)[0][0]
    attention_heat_map(output, best.alignment, best.source_tokens, best.tokens, title=f"{text}\n→ {best.text}")
    if page is not None:
        write_attention_page(page, [best], sources=[text])
    return best


@contextlib.contextmanager
def _counter() -> Iterator[Callable[[int], None]]:
    import rich.console
    import rich.progress

    with rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.completed:,} sentences"),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("translate", total=None)
        yield lambda count: bar.update(task, advance=count)
