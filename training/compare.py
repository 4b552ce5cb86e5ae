"""`keras-attention compare`: runs against a first one on the same text, with the significance of the difference."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import TASK_METRIC, edit_distance, reference_columns, score_outputs
from keras_attention.run_directory import RunDirectory
from keras_attention.translation.translator import Translator

from .data.pairs import Pairs
from .evaluate import check_sources, filled, left_out, read_references
from .progress_bar import count_bar

SEED = 12345
"""Of the resampling, the one that sacrebleu has too."""


def compare(
    runs: Sequence[str | pathlib.Path],
    *,
    source: str | pathlib.Path | None = None,
    target: str | pathlib.Path | Sequence[str | pathlib.Path] | None = None,
    tsv: str | pathlib.Path | None = None,
    task: str | None = None,
    tokenize: str | None = None,
    samples: int = 1000,
    most: int = 5,
    skip_errors: bool = False,
    on_batch: Callable[[int], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Scores of runs on parallel text, and whether those behind the first differ from it by more than chance.

    Significance is that of paired bootstrap resampling (Koehn 2004, section 3): the share of `samples` draws of
    sentences, with replacement, in which a difference as great comes up where there is none. BLEU and chrF are those of
    sacrebleu.

    Args:
        runs: two run directories or more; the first is what the others are compared with.
        source, target, tsv, task, tokenize, skip_errors: see `evaluate`; task and tokenisation are the first run's.
        samples: number of draws.
        most: number of sentences shown, whose outputs' scores differ most.
        on_batch: called with the number of sentences just done.
        **options: of `Translator.translate`, the same for all runs.

    Returns:
        `systems`: for each run its name and, by metric, score, 95 % interval and, behind the first, p-value;
        `sentences`: source, references, outputs and their scores, where a run differs most from the first.

    Raises:
        UserError: for fewer than two runs, and what `evaluate` raises.
    """
    if len(runs) < 2:
        raise UserError(f"Expected two runs or more to compare. Received: {len(runs)}")
    if samples < 100:
        raise UserError(f"Expected 100 samples or more. Received: {samples}")
    whole = read_references(source, target, tsv, skip_errors)
    directories = [RunDirectory.open(run) for run in runs]
    first = directories[0]
    pairs = whole.select(filled(whole, [directory.source_tokenizer for directory in directories], skip_errors))
    task = task or first.task
    tokenize = tokenize or first.metadata.get("training", {}).get("settings", {}).get("tokenize", "none")
    outputs = []
    for directory in directories:
        translator = Translator.load(directory)
        check_sources(translator, pairs, skip_errors)
        found = translator.translate(pairs.sources, on_batch=on_batch, **options)
        outputs.append([hypotheses[0].text for hypotheses in found])
    names = [str(run) for run in runs]
    tests = _bleu_tests if task == "translation" else _error_tests
    return {
        "task": task,
        "sentences": len(pairs),
        **left_out(whole, pairs),
        "samples": samples,
        "systems": tests(task, names, outputs, pairs, tokenize or "none", samples),
        "differences": differences(task, outputs, pairs, most),
    }


def differences(task: str, outputs: Sequence[Sequence[str]], pairs: Pairs, most: int) -> list[dict[str, Any]]:
    """The sentences in which a run differs most from the first: chrF of a sentence, or edits from its reference."""
    score = _sentence_chrf if task == "translation" else _edits
    table = [
        [score(column[index], references, task) for column in outputs]
        for index, references in enumerate(pairs.references)
    ]
    gaps = [max(abs(score - scores[0]) for score in scores[1:]) for scores in table]
    order = sorted(range(len(table)), key=lambda index: -gaps[index])
    return [
        {
            "source": pairs.sources[index],
            "references": list(pairs.references[index]),
            "outputs": [column[index] for column in outputs],
            "scores": table[index],
        }
        for index in order[:most]
        if gaps[index] > 0
    ]


def _sentence_chrf(output: str, references: Sequence[str], task: str) -> float:
    import sacrebleu

    return round(float(sacrebleu.sentence_chrf(output, references[:1]).score), 2)


def _edits(output: str, references: Sequence[str], task: str) -> float:
    """Edits from the nearest reference: of symbols between blanks for pronunciations, else of characters."""

    def split(text: str) -> Sequence[str]:
        return text.split() if task == "g2p" else list(text)

    return float(min(edit_distance(split(output), split(reference)) for reference in references))


def _bleu_tests(
    task: str, names: Sequence[str], outputs: Sequence[Sequence[str]], pairs: Pairs, tokenize: str, samples: int
) -> list[dict[str, Any]]:
    try:
        from sacrebleu.metrics import BLEU, CHRF
        from sacrebleu.significance import PairedTest
    except ImportError as error:
        raise UserError(
            "BLEU needs sacrebleu, which is not installed. Install it: pip install 'keras-luong[train]'"
        ) from error
    columns = reference_columns(pairs.references)
    metrics = {
        "bleu": BLEU(tokenize=tokenize, force=True, references=columns),
        # chrF has no notion of an absent reference; the first one is what it compares with.
        "chrf": CHRF(references=columns[:1]),
    }
    systems: list[dict[str, Any]] = [{"run": name} for name in names]
    for metric, instance in metrics.items():
        test = PairedTest(list(zip(names, outputs, strict=True)), {metric: instance}, None, "bs", samples)
        _, scores = test()
        [results] = [column for name, column in scores.items() if name != "System"]
        for index, (system, result) in enumerate(zip(systems, results, strict=True)):
            # Of equal outputs sacrebleu would say that their difference, none, is significant.
            same = index > 0 and list(outputs[index]) == list(outputs[0])
            system[metric] = _entry(result.score, result.ci, 1.0 if same else result.p_value)
    return systems


def _error_tests(
    task: str, names: Sequence[str], outputs: Sequence[Sequence[str]], pairs: Pairs, tokenize: str, samples: int
) -> list[dict[str, Any]]:
    """The same test for a share of outputs: wrong ones (word error rate), or right ones (exact match)."""
    if task not in TASK_METRIC:
        raise UserError(f"Unknown task. Expected one of {', '.join(TASK_METRIC)}. Received: {task!r}")
    metric = TASK_METRIC[task]

    def plain(text: str) -> str:
        return (
            " ".join(text.split()) if metric == "wer" else text
        )  # how many blanks lie between symbols does not matter

    accepted = [{plain(reference) for reference in references} for references in pairs.references]
    right = np.array([[plain(text) in good for text, good in zip(column, accepted, strict=True)] for column in outputs])
    values = 100.0 * (~right if metric == "wer" else right)
    draws = np.random.default_rng(SEED).integers(0, len(pairs), (samples, len(pairs)))
    resampled = np.stack([row[draws].mean(axis=1) for row in values])
    systems = []
    for index, name in enumerate(names):
        score = score_outputs(task, outputs[index], pairs.references)[metric]
        spread = np.sort(resampled[index])
        cut = int(samples * 0.025)
        p_value = None
        if index:
            gaps = resampled[index] - resampled[0]
            seen = abs(values[index].mean() - values[0].mean())
            # Differences of the draws lie about the one that was seen; centred, about none, as they would by chance.
            p_value = (np.sum(np.abs(gaps - gaps.mean()) >= seen) + 1) / (samples + 1)
        systems.append({"run": name, metric: _entry(score, (spread[-cut - 1] - spread[cut]) / 2, p_value)})
    return systems


def _entry(score: float, interval: Any, p_value: Any) -> dict[str, float]:
    entry = {"score": round(float(score), 4), "interval": round(float(interval), 4)}
    return entry if p_value is None else {**entry, "p_value": round(float(p_value), 4)}


def compare_and_print(runs: Sequence[str | pathlib.Path], **options: Any) -> dict[str, Any]:
    """`compare` for people: a progress bar on a terminal, a table, sentences, and as the last line one JSON object."""
    from keras_attention.cli.tables import print_table

    bar = count_bar("compare")
    with bar:
        row = bar.add_task("compare", total=None)
        result = compare(runs, **options, on_batch=lambda count: bar.update(row, advance=count))
    metrics = [name for name in result["systems"][0] if name != "run"]
    title = f"{result['sentences']} sentences; p-values by {result['samples']} draws, against the first run"
    columns = ["run", *(name for metric in metrics for name in (metric, f"p of {metric}"))]
    rows = []
    for system in result["systems"]:
        cells = [system["run"]]
        for metric in metrics:
            entry = system[metric]
            cells += [
                f"{entry['score']:.2f} \u00b1 {entry['interval']:.2f}",
                f"{entry['p_value']:.3f}" if "p_value" in entry else "",
            ]
        rows.append(cells)
    print_table(title, columns, rows, right=columns[1:])
    for entry in result["differences"]:
        print(f"source     {entry['source']}")
        for reference in entry["references"]:
            print(f"reference  {reference}")
        for system, output, score in zip(result["systems"], entry["outputs"], entry["scores"], strict=True):
            print(f"{score:9.2f}  {output}  ({system['run']})")
        print()
    print(json.dumps(result, ensure_ascii=False))
    return result
