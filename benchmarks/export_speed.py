"""Speed of exported searches at one size, of random weights and lengths that never vary, beside the stock route.

    python benchmarks/export_speed.py --output docs/images/export-speed --into docs/results/exports.md

One sentence at a time, as many steps as the source has tokens, EOS suppressed until then. Each contender of
`contenders.py` is timed in a process of its own, in turn, round by round; medians over the rounds.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from contenders import KERAS, NAMES, STOCK, run_alone
from tables import add_outputs, report

PRECISIONS = ("float32", "dynamic_int8")


def make_run(path: pathlib.Path, options: argparse.Namespace) -> str:
    """A run directory of an untrained model, as training would have written it."""
    from keras_attention import Seq2SeqConfig, build_seq2seq
    from keras_attention.run_directory import RunDirectory
    from keras_attention.text.tokenizers import SPECIAL_TOKENS, WordTokenizer

    path.mkdir()
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *(f"w{number}" for number in range(4, options.vocabulary))])
    files = [tokenizer.save(path, side)[0] for side in ("source", "target")]
    config = Seq2SeqConfig(
        options.vocabulary,
        options.vocabulary,
        embedding_size=options.embedding,
        encoder_units=options.units // 2,
        decoder_units=options.units,
        attention="general",
    )
    build_seq2seq(config).save(path / "model.keras")
    (path / "samples.txt").write_text("w4 w5 w6\n", encoding="utf-8")
    metadata = {
        "task": "translation",
        "model": config.to_dict(),
        "source_tokenizer": files[0],
        "target_tokenizer": files[1],
        "training": {},
    }
    RunDirectory.create(path, metadata)
    return str(path)


def export_all(run: str, folder: pathlib.Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What is compared: name, kind and artefact of each."""
    from keras_attention.export import export

    found: list[dict[str, Any]] = []
    for precision in PRECISIONS:
        formats = ["tflite", "onnx"] if precision != "float32" else ["saved_model", "tflite", "onnx"]
        path, limits = folder / precision, {"max_length": options.steps, "min_length": options.steps}
        export(run, path, formats, precision=precision, beam_size=options.beam, loss_limit=100.0, **limits)
        found += [
            {"name": NAMES[kind], "kind": kind, "artefact": str(path)} | {"precision": precision} for kind in formats
        ]
    plain = {"artefact": found[0]["artefact"], "precision": "float32"}
    return [
        {"name": STOCK, "kind": "stock"} | plain,
        {"name": KERAS, "kind": "keras"} | plain,
        *found,
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds, sentences a second, and how many times the stock route's."""

    def median(name: str, precision: str, threads: int) -> float:
        wanted = (name, precision, threads)
        return statistics.median(
            row["batch_1_ms"] for row in rows if (row["name"], row["precision"], row["threads"]) == wanted
        )

    lines = [
        "| ms a sentence | precision | 1 thread | 2 threads | sentences/s, 2 threads | times the stock route |",
        "|---|---|---|---|---|---|",
    ]
    stock = median(STOCK, "float32", 2)
    for name, precision in dict.fromkeys((row["name"], row["precision"]) for row in rows):
        one, two = (median(name, precision, threads) for threads in (1, 2))
        lines.append(f"| {name} | {precision} | {one:.1f} | {two:.1f} | {1e3 / two:.0f} | {stock / two:.1f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_outputs(parser)
    defaults = {"units": 512, "embedding": 256, "vocabulary": 6000, "steps": 16, "beam": 5, "rounds": 3}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each timing")
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(0)
    source = [*generator.integers(4, options.vocabulary, options.steps - 1).tolist(), 2]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        run = make_run(pathlib.Path(temporary) / "run", options)
        compared = export_all(run, pathlib.Path(temporary), options)
        limits = {"max_length": options.steps, "min_length": options.steps, "beam_size": options.beam}
        for number in range(options.rounds):
            for contender in compared:
                for threads in (1, 2):
                    task = {**contender, "threads": threads, "run": run, "rows": [source], "batches": [1]}
                    found = run_alone(task | {"seconds": options.seconds, "limits": limits})
                    shown = {name: contender[name] for name in ("name", "precision")}
                    rows.append({"round": number + 1, **shown, "threads": threads, **found})
    sizes = f"hidden {options.units}, embedding {options.embedding}, vocabulary {options.vocabulary:,}"
    head = f"{sizes}, {options.steps} steps, beam {options.beam}; {options.rounds} rounds"
    report(options, "export speed", f"{head}\n\n{table(rows)}", rows)


if __name__ == "__main__":
    main()
