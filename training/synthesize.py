"""Synthetic pairs: text that a trained model translated, and how it is mixed with real pairs in training.

A model of the same direction gives other targets for known sources (sequence-level distillation: Kim and Rush 2016,
arXiv 1606.07947); a model of the opposite direction gives other sources for known targets (back-translation: Sennrich,
Haddow and Birch 2016, arXiv 1511.06709). Both together, from the training text alone, are data diversification (Nguyen,
Joty, Wu and Aw 2020, arXiv 1911.01986).
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.files import storage_message, write_text
from keras_attention.folder_lock import locked_file
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.lines import read_lines
from keras_attention.translation.compiled import why_empty
from keras_attention.translation.translator import Translator

from .data.pairs import Pairs, read_parallel, read_tsv
from .progress_bar import count_bar

CHUNK = 1024
"""Sources whose translations are put on the disk at a time."""


def read_synthetic(sets: Sequence[Sequence[str | pathlib.Path]], skip_empty: bool = False) -> Pairs | None:
    """The pairs of several sets, each one TSV file or two parallel files; None for no set."""
    sources: list[str] = []
    references: list[list[str]] = []
    origins: list[str] = []
    for files in sets:
        if len(files) not in (1, 2):
            raise UserError(
                "Synthetic text is one TSV file or two parallel files. Expected e.g. more.tsv, or more.en,more.de. "
                f"Received: {','.join(map(str, files))}"
            )
        pairs = read_tsv(files[0], skip_empty) if len(files) == 1 else read_parallel(files[0], files[1], skip_empty)
        sources += pairs.sources
        references += pairs.references
        origins += pairs.origins
    return Pairs(sources, references, origins) if sources else None


def draw_mixture(real: int, synthetic: int, share: float, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Which pairs an epoch is made of, as many as there are real ones: a pure function of `(seed, epoch)`.

    Args:
        real: number of real pairs, `0 .. real - 1`.
        synthetic: number of synthetic pairs, `real .. real + synthetic - 1`.
        share: of synthetic pairs in the epoch.

    Returns:
        int `(real,)`: real pairs without repetition, and synthetic ones without repetition as far as they go.
    """
    generator = np.random.default_rng([seed, epoch, 7])
    count = round(share * real)
    chosen = generator.permutation(real)[: real - count]
    rounds = [real + generator.permutation(synthetic) for _ in range(-(-count // synthetic))]
    return np.concatenate([chosen, *rounds])[:real]


def synthesize(
    run: str | pathlib.Path,
    *,
    source: str | pathlib.Path,
    output: str | pathlib.Path,
    reverse: bool = False,
    ensemble: Sequence[str | pathlib.Path] = (),
    combination: str = "probabilities",
    n_best: int = 4,
    policy: SearchPolicy | None = None,
    batch_size: int = 64,
    on_start: Callable[[int, int], None] | None = None,
    on_batch: Callable[[int], None] | None = None,
    **settings: Any,
) -> int:
    """Writes SOURCE<TAB>TARGET lines made by a trained run, for `train(synthetic=...)`.

    Killed, the same call goes on from the last 1,024 sources that were done; `output` appears when all are.

    Args:
        run: the run directory of the model.
        source: text in the language that the model reads, one sentence per line.
        output: the file to write.
        reverse: the model reads the target language of the training to come (back-translation): what it reads becomes
            the target, what it writes the source.
        ensemble, combination: more runs that answer with it, and how, see `Translator`: distillation of several models
            into one.
        policy, batch_size, settings: of `Translator.translate`.
        n_best: how many different outputs of each sentence, at most; unfinished and empty ones are left out.
        on_start: called with the number of sentences, and that of those done before. on_batch: with those just done.

    Returns:
        The number of pairs.

    Raises:
        UserError: for a text or run that cannot be read, numbers out of range, outputs that never end, a full disk.

    Example: `synthesize("runs/de-en", source="train.de", output="back.tsv", reverse=True)`.
    """
    output = pathlib.Path(output)
    texts = [line.strip() for line in read_lines(source)]
    if tab := next((number for number, text in enumerate(texts, 1) if "\t" in text), None):
        raise UserError(f"{source}:{tab}: a tab, which separates the sides of a pair. Expected a sentence without one")
    directories = [RunDirectory.open(one) for one in (run, *ensemble)]
    for number, text in enumerate(texts, 1):
        if problem := why_empty(text, directories[0].source_tokenizer):
            raise UserError(f"{source}:{number}: {problem}. Remove the line")
    translator = Translator.load(*directories, combination=combination)
    policy = SearchPolicy.of(policy, **settings)
    options: dict[str, Any] = {"n_best": n_best, "batch_size": batch_size}
    models = [hashlib.sha256(directory.model_path.read_bytes()).hexdigest() for directory in directories]
    what = [texts, reverse, options, policy.to_dict(), combination, models]
    key = hashlib.sha256(json.dumps(what, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()
    partial = output.with_name(f"{output.name}.partial")
    with locked_file(partial):
        rows = _done_before(partial, key)
        done = max((number for number, _ in rows), default=0) // CHUNK * CHUNK
        rows = [row for row in rows if row[0] <= done]
        if on_start is not None:
            on_start(len(texts), done)
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(f"{key}\n" + "".join(f"{number}\t{pair}\n" for number, pair in rows))
                for start in range(done, len(texts), CHUNK):
                    chunk = texts[start : start + CHUNK]
                    found = translator.translate(chunk, policy=policy, on_batch=on_batch, **options)
                    new = []
                    for number, (text, hypotheses) in enumerate(zip(chunk, found, strict=True), start + 1):
                        outputs = [one.text.replace("\t", " ").strip() for one in hypotheses if one.finished]
                        for other in dict.fromkeys(one for one in outputs if one):
                            new.append((number, f"{other}\t{text}" if reverse else f"{text}\t{other}"))
                    rows += new
                    file.write("".join(f"{number}\t{pair}\n" for number, pair in new))
                    file.flush()
            if not rows:
                raise UserError(
                    f"{output}: nothing to write: no output of {run} was finished within its length. "
                    "Train it for longer"
                )
            write_text(output, "".join(f"{pair}\n" for _, pair in rows))
            partial.unlink()
        except OSError as error:
            raise UserError(storage_message(output, error)) from error
        except UserError:
            if not rows:  # nothing to go on from
                partial.unlink(missing_ok=True)
            raise
        return len(rows)


def _done_before(partial: pathlib.Path, key: str) -> list[tuple[int, str]]:
    """Numbered pairs of an interrupted call with the same arguments; the last line may have been cut off."""
    if not partial.exists():
        return []
    head, *lines = partial.read_text(encoding="utf-8", errors="replace").split("\n")
    if head != key:
        return []
    numbered = [line.partition("\t") for line in lines[:-1]]
    return [(int(number), pair) for number, _, pair in numbered if number.isdigit() and "\t" in pair]


def synthesize_and_print(run: str | pathlib.Path, **options: Any) -> None:
    """`synthesize` for people: a progress bar on a terminal, and a line at the end."""
    bar = count_bar("synthesize")
    with bar:
        row = bar.add_task("synthesize", total=None)
        count = synthesize(
            run,
            **options,
            on_start=lambda total, done: bar.update(row, total=total, completed=done),
            on_batch=lambda number: bar.update(row, advance=number),
        )
    print(f"wrote {count} pairs to {options['output']}")
