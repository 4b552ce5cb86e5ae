"""BLEU by source length, for two trained runs or more: what attention buys on long sentences.

    python benchmarks/bleu_by_length.py --source test.en --target test.de --output docs/images/bleu-by-length \
        "attention=runs/multi30k" "no attention=runs/multi30k-plain"

Each run is a directory written by `keras-attention train`, with a label and "=" before it if you like. Sentences are
grouped by their number of whitespace-separated words. Writes OUTPUT.csv and OUTPUT.png, prints the table, then one JSON
object.
"""

import argparse
import csv
import json
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import matplotlib.pyplot as plt
import sacrebleu

COLOURS = ("#1f5fa8", "#c2571a", "#2b7d55", "#7a4a9e")


@dataclass(frozen=True)
class Group:
    """Figures of one run on the sentences of `shortest` to `longest` words (`None`: no limit)."""

    run: str
    shortest: int
    longest: int | None
    sentences: int
    bleu: float

    @property
    def label(self) -> str:
        return f"{self.shortest}+" if self.longest is None else f"{self.shortest}-{self.longest}"


def read_lines(path: pathlib.Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def bounds(edges: Sequence[int]) -> list[tuple[int, int | None]]:
    """Ranges of length from their inclusive upper ends.

    >>> bounds([8, 11])
    [(1, 8), (9, 11), (12, None)]
    """
    starts = [1, *(edge + 1 for edge in edges)]
    return list(zip(starts, [*edges, None], strict=True))


def group_bleu(
    run: str,
    sources: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[str],
    edges: Sequence[int],
    tokenize: str,
) -> list[Group]:
    """BLEU of each range of source length that has a sentence, then of all sentences (range 1 to no limit)."""
    groups = []
    for shortest, longest in [*bounds(edges), (1, None)]:
        chosen = [
            i for i, text in enumerate(sources) if shortest <= max(1, len(text.split())) <= (longest or len(text) + 1)
        ]
        if chosen:
            score = sacrebleu.corpus_bleu(
                [hypotheses[i] for i in chosen], [[references[i] for i in chosen]], tokenize=tokenize, force=True
            )
            groups.append(Group(run, shortest, longest, len(chosen), round(score.score, 2)))
    return groups


def write_csv(path: pathlib.Path, groups: Iterable[Group]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "source_words", "sentences", "bleu"])
        for group in groups:
            whole = (group.shortest, group.longest) == (1, None)
            writer.writerow([group.run, "all" if whole else group.label, group.sentences, group.bleu])


def draw(path: pathlib.Path, groups: Sequence[Group]) -> None:
    """One line a run over the groups of length, and how many sentences each group has."""
    parts = [group for group in groups if (group.shortest, group.longest) != (1, None)]
    labels = list(dict.fromkeys(group.label for group in parts))
    runs = list(dict.fromkeys(group.run for group in parts))
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for run, colour in zip(runs, [*COLOURS, *("black" for _ in runs)], strict=False):
        values = {group.label: group.bleu for group in parts if group.run == run}
        whole = next(g.bleu for g in groups if g.run == run and (g.shortest, g.longest) == (1, None))
        places = [labels.index(label) for label in values]
        axis.plot(places, list(values.values()), marker="o", color=colour, label=f"{run} (all: {whole:.1f})")
        for place, value in zip(places, values.values(), strict=True):
            axis.annotate(f"{value:.1f}", (place, value), (0, 7), textcoords="offset points", ha="center", color=colour)
    counts = {group.label: group.sentences for group in parts}
    axis.set_xticks(range(len(labels)), [f"{label}\n{counts[label]} sentences" for label in labels])
    axis.set_xlabel("words in the source sentence")
    axis.set_ylabel("BLEU")
    axis.set_ylim(0, max(group.bleu for group in parts) * 1.15 + 1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def translate_run(path: str, sources: Sequence[str], beam_size: int) -> list[str]:
    """The best translation of each source by a run."""
    from keras_attention.translation.translator import Translator

    return [found[0].text for found in Translator.load(path).translate(list(sources), beam_size=beam_size)]


def main(
    arguments: Sequence[str] | None = None, translate: Callable[[str, Sequence[str], int], list[str]] = translate_run
) -> None:
    parser = argparse.ArgumentParser(description="BLEU by source length, for two trained runs or more.")
    parser.add_argument("runs", nargs="+", metavar="[LABEL=]RUN")
    parser.add_argument("--source", type=pathlib.Path, required=True)
    parser.add_argument("--target", type=pathlib.Path, required=True)
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="path without ending: .csv and .png are added"
    )
    parser.add_argument("--edges", type=int, nargs="+", default=[8, 11, 14, 17], help="longest length of each group")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument(
        "--tokenize", default="none", help="of sacrebleu: none for text that is tokenised, 13a otherwise"
    )
    options = parser.parse_args(arguments)
    sources, references = read_lines(options.source), read_lines(options.target)
    if len(sources) != len(references):
        parser.error(f"{options.source} has {len(sources)} lines, {options.target} has {len(references)}")
    groups: list[Group] = []
    for name in options.runs:
        label, _, path = name.rpartition("=")
        hypotheses = translate(path, sources, options.beam)
        groups += group_bleu(
            label or pathlib.Path(path).name, sources, hypotheses, references, options.edges, options.tokenize
        )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table, picture = (options.output.with_name(options.output.name + ending) for ending in (".csv", ".png"))
    write_csv(table, groups)
    draw(picture, groups)
    print(table.read_text(encoding="utf-8"), end="")
    print(json.dumps({"csv": str(table), "png": str(picture), "groups": [asdict(group) for group in groups]}))


if __name__ == "__main__":
    main()
