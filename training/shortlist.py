"""A vocabulary shortlist learnt from training text: which words each source word becomes, as the attention aligns them.

    c(s, t) = sum over pairs, sum_{i, j: x_j = s, y_i = t} a_i(j)

with the model's attention a while it reads the given target. T(s) are the N words t of the largest c(s, t), and A the F
most frequent words of the target (L'Hostis, Grangier and Auli 2016, arXiv 1610.00072, who count links of word
alignments in place of weights).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.translation.translator import Translator
from keras_attention.types import EOS_ID

from .average import check_new_folder, derive
from .data.pairs import Pairs, read_parallel, read_tsv
from .progress_bar import count_bar

CHUNK = 512
"""Pairs that are aligned between two steps of the progress bar."""
LEAST = 0.1
"""Weights below it are no link."""


class Coverage(NamedTuple):
    """Of held-out text: percent of its tokens that a shortlist lets through, and the mean number of its words."""

    tokens: float
    size: float


def shortlist(
    run: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    source: str | pathlib.Path | None = None,
    target: str | pathlib.Path | None = None,
    tsv: str | pathlib.Path | None = None,
    candidates: int = 40,
    frequent: int = 100,
    on_start: Callable[[int], None] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[RunDirectory, Coverage]:
    """A run directory with the model of `run` and a shortlist in it, which every search and export then uses.

    Args:
        run: the run directory of a model with attention.
        output: a new or empty folder.
        source, target, tsv: the text that it was trained on.
        candidates: N, most words that a source word becomes.
        frequent: F, frequent words that are always possible.
        on_start: called with the number of pairs. on_batch: with those just aligned.

    Returns:
        The new run, and what the shortlist lets through of the run's own samples.

    Raises:
        UserError: for a run or text that cannot be read, a model without attention, numbers out of range, a full disk.

    Example: `shortlist("runs/de", "runs/de-short", source="train.en", target="train.de")`.
    """
    opened = RunDirectory.open(run)
    config = opened.config
    for name, value in (("candidates", candidates), ("frequent", frequent)):
        if value < 1:
            raise UserError(f"{name} is out of range. Expected: 1 or more. Received: {value}")
    if config.attention == "none" or config.copy_words is not None or config.shortlist is not None:
        raise UserError(
            f"{opened.path}: a shortlist is learnt from attention. Expected: a model with attention, without "
            f"copy_words and without a shortlist. Received: attention={config.attention!r}, "
            f"copy_words={config.copy_words}, shortlist={config.shortlist}"
        )
    folder = check_new_folder(output)
    candidates = min(candidates, config.target_vocabulary)  # there are no more
    pairs = _read(source, target, tsv)
    translator = Translator.load(opened)
    kept = [number for number, text in enumerate(pairs.sources) if translator.problem(text, False) is None]
    if on_start is not None:
        on_start(len(kept))
    links = _links(translator, pairs, kept, on_batch)
    table, always = count(links, config.source_vocabulary, config.target_vocabulary, candidates, frequent)
    model = with_shortlist(translator.model, dataclasses.replace(config, shortlist=candidates), table, always)
    changed = {**opened.metadata, "model": {**opened.metadata["model"], "shortlist": candidates}}
    made = derive(opened, folder, model, changed, {"shortlist_of": str(opened.path), "frequent": frequent})
    return made, coverage(made, model)


def count(
    links: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]],
    sources: int,
    targets: int,
    candidates: int,
    frequent: int,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """T `(sources, candidates)`, EOS where there are fewer, and A, from links: source ids, target ids and weights.

    >>> parts = [(np.array([4, 4, 5]), np.array([6, 7, 6]), np.array([1.0, 2.0, 1.0]))]
    >>> table, always = count(parts, 6, 8, 1, 1)
    >>> table[4:].tolist(), always.tolist()
    ([[7], [6]], [6])
    """
    keys: npt.NDArray[np.int64] = np.zeros((0,), np.int64)
    sums: Any = np.zeros((0,))
    for source_ids, target_ids, weights in links:
        everything = np.concatenate([keys, source_ids.astype(np.int64) * targets + target_ids])
        keys, places = np.unique(everything, return_inverse=True)
        sums = np.bincount(places, np.concatenate([sums, weights]))
    of_source, of_target = np.divmod(keys, targets)
    table = np.full((sources, candidates), EOS_ID, np.int32)
    order = np.lexsort((of_target, -sums, of_source))
    first = np.searchsorted(of_source[order], of_source[order])
    ranks = np.arange(len(order)) - first
    chosen = ranks < candidates
    table[of_source[order][chosen], ranks[chosen]] = of_target[order][chosen]
    totals = np.bincount(of_target, sums, targets) if len(keys) else np.zeros((targets,))
    return table, np.argsort(-totals, kind="stable")[:frequent]


def with_shortlist(model: keras.Model, config: Any, table: npt.ArrayLike, always: npt.ArrayLike) -> keras.Model:
    """A model of that config with the weights of `model`, and a shortlist."""
    made = build_seq2seq(config)
    for layer in model.layers:
        if layer.weights:
            made.get_layer(layer.name).set_weights(layer.get_weights())
    made.get_layer("shortlist").fill(table, always)
    return made


def coverage(run: RunDirectory, model: keras.Model) -> Coverage:
    """Share of the tokens of a run's references that its shortlist holds; NaN where it has none."""
    kept = covered = tokens = 0
    sizes = []
    for text, references in zip(run.samples(), run.references(), strict=False):
        source = np.asarray([[*run.source_tokenizer.encode(text), EOS_ID]], np.int32)
        mask = keras.ops.convert_to_numpy(model.get_layer("shortlist")(source))[0]
        ids = [i for one in references for i in run.target_tokenizer.encode(one)]
        kept, covered, tokens = kept + 1, covered + int(mask[ids].sum()), tokens + len(ids)
        sizes.append(int(mask.sum()))
    return Coverage(100.0 * covered / tokens, float(np.mean(sizes))) if tokens else Coverage(np.nan, np.nan)


def _read(source: Any, target: Any, tsv: Any) -> Pairs:
    if tsv is not None and source is None and target is None:
        return read_tsv(tsv)
    if tsv is None and source is not None and target is not None:
        return read_parallel(source, target)
    raise UserError("Expected: --source and --target, or --tsv: the text that the run was trained on")


def _links(translator: Translator, pairs: Pairs, kept: Sequence[int], on_batch: Callable[[int], None] | None) -> Any:
    """For each chunk of pairs the ids at both ends of a link, and its weight."""
    for start in range(0, len(kept), CHUNK):
        chunk = kept[start : start + CHUNK]
        texts, outputs = [pairs.sources[i] for i in chunk], [pairs.references[i][0] for i in chunk]
        parts = []
        for text, output, found in zip(texts, outputs, translator.score(texts, outputs), strict=True):
            ids = [
                np.asarray([*tokenizer.encode(one), EOS_ID], np.int64)
                for tokenizer, one in ((translator.source_tokenizer, text), (translator.target_tokenizer, output))
            ]
            written, read = np.nonzero(found.alignment >= LEAST)
            parts.append((ids[0][read], ids[1][written], found.alignment[written, read].astype(np.float64)))
        if on_batch is not None:
            on_batch(len(chunk))
        yield tuple(np.concatenate(side) for side in zip(*parts, strict=True))


def shortlist_and_print(run: str | pathlib.Path, output: str | pathlib.Path, **options: Any) -> None:
    """`shortlist` for people: a progress bar on a terminal, and what came of it."""
    bar = count_bar("align")
    with bar:
        row = bar.add_task("align", total=None)
        made, covered = shortlist(
            run,
            output,
            **options,
            on_start=lambda total: bar.update(row, total=total),
            on_batch=lambda number: bar.update(row, advance=number),
        )
    words = made.config.target_vocabulary
    print(f"wrote {made.model_path}: {options['candidates']} candidates of a word, {options['frequent']} frequent ones")
    if covered.tokens == covered.tokens:
        print(
            f"of the run's samples: {covered.size:.0f} of {words} words each, {covered.tokens:.2f} % of tokens in them"
        )
