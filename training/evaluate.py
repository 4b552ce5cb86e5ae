"""`keras-attention evaluate`: translate held-out text and score it."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from keras_attention.errors import UserError
from keras_attention.files import write_text
from keras_attention.metrics.output_scores import score_outputs
from keras_attention.models.pointer_generator import of_text
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.lines import read_parallel_lines
from keras_attention.text.tokenizers import Tokenizer
from keras_attention.translation.compiled import why_empty
from keras_attention.translation.translator import Translator

from .data.pairs import Pairs, read_tsv
from .progress_bar import count_bar

LENGTH_EDGES = (1, 6, 11, 16, 21, 31)


def evaluate(
    run: str | pathlib.Path,
    *,
    source: str | pathlib.Path | None = None,
    target: str | pathlib.Path | Sequence[str | pathlib.Path] | None = None,
    tsv: str | pathlib.Path | None = None,
    ensemble: Sequence[str | pathlib.Path] = (),
    combination: str = "probabilities",
    task: str | None = None,
    tokenize: str | None = None,
    policy: SearchPolicy | None = None,
    batch_size: int = 32,
    by_length: bool = False,
    output: str | pathlib.Path | None = None,
    skip_errors: bool = False,
    on_start: Callable[[int], None] | None = None,
    on_batch: Callable[[int], None] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Scores of a run on parallel text.

    Args:
        run: the run directory.
        source, target: parallel files; several targets are several references; or
        tsv: SOURCE<TAB>TARGET lines, equal sources being several references.
        ensemble, combination: more runs that answer with it, and how, see `Translator`.
        policy, batch_size, settings: of `Translator.translate`.
        task: "translation" (BLEU, chrF, exact match), "g2p" (word and phoneme error rate), "exact"; the run's own if
            None.
        tokenize: sacrebleu's tokenisation, "none" or "13a"; as in training if None.
        by_length: add "by_length", the scores of groups of like source length in words.
        output: file for the outputs, one per line; a pair that is left out has an empty line.
        skip_errors: cut sources that are longer than those of training, and leave pairs with an empty side out,
            instead of refusing them.
        on_start, on_batch: called with the number of sentences, and with that of those just done.

    Returns:
        The scores, the numbers of sentences and of sources with something never seen in training, and the speed.

    Raises:
        UserError: for files that are missing, not parallel, empty, not UTF-8; a source that is empty or too long; an
            unknown task.
    """
    policy = SearchPolicy.of(policy, **settings)
    whole = read_references(source, target, tsv, skip_errors)
    directory = RunDirectory.open(run)
    task = task or directory.task
    tokenize = tokenize or directory.metadata.get("training", {}).get("settings", {}).get("tokenize", "none")
    kept = filled(whole, [directory.source_tokenizer], skip_errors)
    pairs = whole.select(kept)
    translator = Translator.load(directory, *ensemble, combination=combination)
    unseen = check_sources(translator, pairs, skip_errors)
    if on_start is not None:
        on_start(len(pairs))
    started = time.monotonic()
    found = translator.translate(pairs.sources, policy=policy, batch_size=batch_size, on_batch=on_batch)
    seconds = time.monotonic() - started
    outputs = [hypotheses[0].text for hypotheses in found]
    if output is not None:
        lines = dict(zip(kept, outputs, strict=True))
        write_text(output, "".join(f"{lines.get(number, '')}\n" for number in range(len(whole))))
    result: dict[str, Any] = {
        "run": str(run),
        **({"ensemble": [str(one) for one in ensemble]} if ensemble else {}),
        "task": task,
        "sentences": len(pairs),
        **left_out(whole, pairs),
        "search": policy.to_dict(),
        **score_outputs(task, outputs, pairs.references, tokenize),
        "unfinished": sum(not hypotheses[0].finished for hypotheses in found),
        "sources_with_unseen": unseen,
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(pairs) / seconds, 2),
    }
    if by_length:
        result["by_length"] = scores_by_length(task, pairs, outputs, tokenize)
    return result


def read_references(
    source: str | pathlib.Path | None,
    target: str | pathlib.Path | Sequence[str | pathlib.Path] | None,
    tsv: str | pathlib.Path | None,
    skip_errors: bool = False,
) -> Pairs:
    """Sources with all their references, from parallel files, of which every line counts, or a TSV."""
    if tsv is not None and source is None and target is None:
        return read_tsv(tsv, skip_errors, "--skip-errors", warn_of_empty)
    if source is None or target is None or tsv is not None:
        raise UserError("Expected --source FILE and --target FILE (again for more references), or --tsv FILE alone")
    targets = [target] if isinstance(target, str | pathlib.Path) else list(target)
    sources, *columns = read_parallel_lines(source, *targets)
    references = [list(lines) for lines in zip(*columns, strict=True)]
    return Pairs(sources, references, [f"{source}:{number}" for number in range(1, len(sources) + 1)])


def filled(pairs: Pairs, tokenizers: Sequence[Tokenizer], skip_errors: bool) -> list[int]:
    """Which pairs have a reference, and a source of which every one of the tokenizers leaves something.

    Raises UserError at the first that has not, unless `skip_errors`: then there is a warning. And where none has.
    """
    kept = []
    for number, (text, references, origin) in enumerate(
        zip(pairs.sources, pairs.references, pairs.origins, strict=True)
    ):
        problem = next(filter(None, (why_empty(text, tokenizer) for tokenizer in tokenizers)), None)
        if problem is None and not references[0].strip():
            problem = "its reference is empty. Expected a sentence"
        if problem is None:
            kept.append(number)
        elif skip_errors:
            warn_of_empty(f"{origin}: {problem}")
        else:
            raise UserError(f"{origin}: {problem}. Remove the pair, or give --skip-errors to leave it out")
    if not kept:
        raise UserError(f"{pairs.origins[0]}: no pair is left. Expected at least one sentence with its reference")
    return kept


def warn_of_empty(problem: str) -> None:
    """Say on standard error that a pair is left out, and why."""
    print(f"warning: {problem}. The pair is left out", file=sys.stderr)


def left_out(whole: Pairs, pairs: Pairs) -> dict[str, int]:
    """The number of pairs that were left out, where there are any."""
    count = len(whole) - len(pairs)
    return {"left_out": count} if count else {}


def scores_by_length(task: str, pairs: Pairs, outputs: Sequence[str], tokenize: str = "none") -> list[dict[str, Any]]:
    """Scores of groups of sentences by the number of source words: `LENGTH_EDGES` are the smallest of each group."""
    lengths = [len(source.split()) for source in pairs.sources]
    groups = []
    for low, high in zip(LENGTH_EDGES, (*LENGTH_EDGES[1:], None), strict=True):
        rows = [i for i, length in enumerate(lengths) if length >= low and (high is None or length < high)]
        if rows:
            scores = score_outputs(task, [outputs[i] for i in rows], [pairs.references[i] for i in rows], tokenize)
            groups.append({"from": low, "to": None if high is None else high - 1, "sentences": len(rows), **scores})
    return groups


def check_sources(translator: Translator, pairs: Pairs, skip_errors: bool) -> int:
    """Refuse sources that are too long; warn of, and count, those with something that training never saw."""
    first, unseen = "", 0
    tokenizers = translator.source_tokenizer, translator.target_tokenizer
    limit = translator.max_source_length
    for text, origin in zip(pairs.sources, pairs.origins, strict=True):
        length = len(translator.source_tokenizer.encode(text))
        if limit is not None and length > limit and not skip_errors:
            raise UserError(
                f"{origin}: {length} tokens. Expected at most {limit}, the limit of training. "
                "Split the sentence, or give --skip-errors to cut it"
            )
        unknown = of_text(tokenizers, text, translator.copy_words)[0].unknown(text)
        if unknown:
            unseen += 1
            first = first or f"{origin}: {unknown[0]!r}"
    if unseen:
        print(f"warning: {unseen} sources hold what training never saw, the first at {first}", file=sys.stderr)
    return unseen


def evaluate_and_print(run: str | pathlib.Path, **options: Any) -> dict[str, Any]:
    """`evaluate` for people: a progress bar on a terminal, a table, and as the last line one JSON object."""
    from keras_attention.cli.tables import print_table

    bar = count_bar("evaluate")
    with bar:
        row = bar.add_task("evaluate", total=None)
        result = evaluate(
            run,
            **options,
            on_start=lambda total: bar.update(row, total=total),
            on_batch=lambda count: bar.update(row, advance=count),
        )
    scores = [[name.replace("_", " "), f"{value:.2f}"] for name, value in result.items() if isinstance(value, float)]
    title = f"{run}: {result['sentences']} sentences, beam {result['search']['beam_size']}"
    print_table(title, ["score", "value"], scores, right=["value"])
    for group in result.get("by_length", []):
        print(
            "  ".join(
                f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in group.items()
            )
        )
    print(json.dumps(result, ensure_ascii=False))
    return result
