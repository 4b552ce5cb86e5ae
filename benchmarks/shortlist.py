"""What a vocabulary shortlist gains: exported searches with it and without it, in turn, on random weights.

    python benchmarks/shortlist.py --output docs/images/shortlist --into docs/results/shortlist.md

A speed needs no training: tables are drawn at random, so that a sentence of 16 tokens has some 700 candidates.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from tables import add_outputs, report

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.export import export
from keras_attention.export.runtime import Artefact

NAMES = {"litert": "LiteRT", "onnx": "ONNX Runtime"}


def export_pair(
    folder: pathlib.Path, vocabulary: int, precision: str, options: argparse.Namespace
) -> dict[tuple[str, bool], Any]:
    """Opened artefacts by backend, and whether they have a shortlist."""
    opened = {}
    for short in (False, True):
        sizes = {"embedding_size": options.units // 2, "encoder_units": options.units // 2}
        config = Seq2SeqConfig(
            vocabulary,
            vocabulary,
            **sizes,
            decoder_units=options.units,
            bridge="dense",
            tie_embeddings="all",
            shortlist=40 if short else None,
        )
        model = build_seq2seq(config)
        if short:
            table = np.random.default_rng(0).integers(4, vocabulary, (vocabulary, 40))
            model.get_layer("shortlist").fill(table, np.arange(100))
        path = folder / f"{vocabulary}-{precision}-{short}"
        limits = {"max_length": 16, "loss_limit": 100.0, "samples": [[4, 5, 6, 2]]}
        export(model, path, to=["tflite", "onnx"], precision=precision, **limits)
        for backend in NAMES:
            opened[backend, short] = Artefact(path, backend, threads=1)
    return opened


def measure(opened: dict[tuple[str, bool], Any], vocabulary: int, rounds: int) -> dict[tuple[str, bool], float]:
    """Median milliseconds of one sentence, all contenders in turn."""
    source = np.random.default_rng(0).integers(4, vocabulary, (1, 16)).astype(np.int32)
    source[0, -1] = 2
    times: dict[tuple[str, bool], list[float]] = {key: [] for key in opened}
    for _ in range(rounds):
        for key, artefact in opened.items():
            start = time.perf_counter()
            artefact.search(source)
            times[key].append(time.perf_counter() - start)
    return {key: 1e3 * float(np.median(found)) for key, found in times.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_outputs(parser)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[6000, 32000])
    parser.add_argument("--precisions", nargs="+", default=["float32", "dynamic_int8"])
    parser.add_argument("--units", type=int, default=384, help="of the decoder; twice those of the rest")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    rows, lines = [], ["| ms a sentence | vocabulary | without | with |", "|---|---|---|---|"]
    for vocabulary in options.vocabularies:
        for precision in options.precisions:
            with tempfile.TemporaryDirectory() as folder:
                opened = export_pair(pathlib.Path(folder), vocabulary, precision, options)
                found = measure(opened, vocabulary, options.rounds)
            for backend, name in NAMES.items():
                without, short = found[backend, False], found[backend, True]
                lines.append(f"| {name}, {precision} | {vocabulary:,} | {without:.1f} | {short:.1f} |")
                rows.append(
                    {
                        "runtime": name,
                        "precision": precision,
                        "vocabulary": vocabulary,
                        "without_ms": without,
                        "with_ms": short,
                    }
                )
    report(options, "shortlist", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
