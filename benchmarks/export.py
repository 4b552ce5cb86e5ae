"""One trained run in every format and precision: bytes, score, speed and memory, beside Keras and the stock route.

    python benchmarks/export.py RUN --sentences val.en --references val.de --output docs/images/export

Each contender is measured in a process of its own, one after the other and round by round; what they are is said in
`contenders.py`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from contenders import KERAS, NAMES, STOCK, load_runtime, run_alone
from export_chart import draw
from tables import add_outputs, report

PRECISIONS = ("float32", "float16", "dynamic_int8", "int8")
NPU = "int8 for an NPU"


def export_all(options: argparse.Namespace, work: pathlib.Path) -> dict[tuple[str, int], pathlib.Path]:
    """Artefacts by precision and beam; those of the wide beam are verified on all sentences."""
    from keras_attention.export import export
    from keras_attention.export.console import read_pairs, read_sentences

    ranges = None if options.calibration is None else read_sentences(options.calibration)
    sentences, references = read_pairs(options.sentences, options.references)
    folders = {}
    for precision in options.precisions:
        for beam in (options.beam, 1):
            folder = work / f"{precision}-{beam}"
            many = beam == options.beam
            export(
                options.run,
                folder,
                samples=sentences if many else sentences[:8],
                references=references if many else references[:8],
                loss_limit=100.0,
                **kind_of(precision, options, ranges),
                beam_size=beam,
                max_length=options.max_length,
                length_penalty=options.length_penalty,
                **({} if options.agreement is None else {"method": "agreement", "backward_weight": options.agreement}),
                progress=lambda message, name=folder.name: print(f"{name}: {message}", file=sys.stderr),
            )
            folders[precision, beam] = folder
    return folders


def kind_of(precision: str, options: argparse.Namespace, ranges: list[str] | None) -> dict[str, Any]:
    """The arguments of `export` that make a precision, or the files for an NPU."""
    if precision == NPU:
        return {"to": "npu", "source_length": options.source_length, "calibration": ranges}
    return {"precision": precision, **({"calibration": ranges} if precision == "int8" else {})}


def contenders(folders: dict[tuple[str, int], pathlib.Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Name, kind and artefact of what is compared, at each beam."""
    found = []
    for beam in (options.beam, 1):
        plain = str(folders[options.precisions[0], beam])
        for name, kind in ((KERAS, "keras"), (STOCK, "stock")):
            found.append({"name": name, "kind": kind, "artefact": plain, "beam": beam, "precision": "float32"})
        for (precision, width), folder in folders.items():
            formats = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["formats"]
            for format_ in formats if width == beam else ():
                name = NAMES[format_]
                entry = {"name": name, "kind": format_, "artefact": str(folder), "beam": beam, "precision": precision}
                found.append(entry)
    return [entry for entry in found if entry["kind"] in options.contenders]


def static_figures(folder: str, kind: str) -> dict[str, Any]:
    """Bytes of a format, and what its precision costs, from the artefact's own report."""
    content = json.loads((pathlib.Path(folder) / "report.json").read_text(encoding="utf-8"))
    latency = next(entry for entry in content["latencies"] if entry["format"] == kind)
    parity = next(entry for entry in content["parities"] if entry["format"] == kind)
    loss = parity["loss"] or {}
    same = loss.get("same", parity["identical"])
    return {
        "bytes": latency["bytes"],
        "metric": loss.get("metric", ""),
        "score": loss.get("artefact", ""),
        "keras_score": loss.get("keras", ""),
        "same": f"{same} of {parity['sentences']}",
    }


def table(rows: Sequence[dict[str, Any]], beam: int, narrow: str = "greedy") -> str:
    """Medians over the rounds, one line for each contender; `narrow`: what a beam of 1 is called."""
    metric = next((row["metric"] for row in rows if row["metric"]), "score")
    keras_score = next((row["keras_score"] for row in rows if row["metric"]), "")
    heads = [f"beam {beam}, 1 thread", f"beam {beam}, 2 threads", f"beam {beam}, batch 32", f"{narrow}, 2 threads"]
    lines = [
        f"| sentences a second | precision | {' | '.join(heads)} | peak MB | file MB | {metric} | same translations |",
        "|" + "---|" * (len(heads) + 6),
    ]
    keys = list(dict.fromkeys((row["name"], row["precision"]) for row in rows))
    for name, precision in keys:
        own = [row for row in rows if (row["name"], row["precision"]) == (name, precision)]

        def median(field: str, width: int, threads: int, own: list[dict[str, Any]] = own) -> float:
            chosen = [row[field] for row in own if row["beam"] == width and row["threads"] == threads]
            return float(np.median(chosen))

        speeds = [
            1e3 / median("batch_1_ms", beam, 1),
            1e3 / median("batch_1_ms", beam, 2),
            1e3 / median("batch_32_ms", beam, 2),
            1e3 / median("batch_1_ms", 1, 2),
        ]
        first = next(row for row in own if row["beam"] == beam)
        size = f"{first['bytes'] / 1e6:.1f}" if first["bytes"] else ""
        score = first["score"] if first["metric"] else keras_score if first["same"] else ""
        cells = [
            name,
            precision,
            *(f"{speed:.0f}" for speed in speeds),
            f"{median('peak_megabytes', beam, 2):.0f}",
            size,
            f"{score:.2f}" if isinstance(score, float) else "",
            first["same"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="run directory")
    add_outputs(parser)
    parser.add_argument("--sentences", type=pathlib.Path, help="text to translate, one sentence per line")
    parser.add_argument("--references", type=pathlib.Path, help="what they may become, separated by tabs")
    parser.add_argument("--name", default="export", help="of the table in --into")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="all; int8 with --calibration alone")
    parser.add_argument("--calibration", type=pathlib.Path, help="other text, that int8 takes its ranges from")
    parser.add_argument("--source-length", type=int, default=40, help="of the files for an NPU: most source tokens")
    kinds = ("keras", "stock", "saved_model", "tflite", "onnx", "npu")
    parser.add_argument("--contenders", nargs="+", default=list(kinds), choices=kinds)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=100)
    parser.add_argument("--length-penalty", type=float, default=1.0)
    parser.add_argument("--agreement", type=float, metavar="WEIGHT", help="a beam in each direction, ranked by both")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed", type=int, default=200, help="sentences that are timed")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each timing")
    options = parser.parse_args(arguments)
    if None in (options.run, options.sentences, options.references):
        parser.error("expected RUN, --sentences and --references")
    if options.precisions is None:
        options.precisions = [one for one in PRECISIONS if one != "int8" or options.calibration is not None]
    if "int8" in options.precisions and options.agreement is not None:
        parser.error("int8 files are searched on the host, by one direction: expected --precisions without int8")
    if options.agreement is not None:  # of which the stock route knows nothing
        options.contenders = [kind for kind in options.contenders if kind != "stock"]
    if "int8" in options.precisions and options.calibration is None:
        parser.error("int8 takes its ranges from text: expected --calibration, or --precisions without int8")
    if "int8" in options.precisions and "npu" in options.contenders:
        options.precisions.append(NPU)
    from keras_attention.export.console import read_sentences

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = export_all(options, pathlib.Path(temporary))
        first = folders[options.precisions[0], options.beam]
        timed = read_sentences(options.sentences)[: options.timed]
        encoded = load_runtime(str(first)).Artefact(first).encode(timed)
        if NPU in options.precisions:  # the same sentences for all
            encoded = [row for row in encoded if len(row) <= options.source_length]
        limits = {"max_length": options.max_length, "length_penalty": options.length_penalty}
        limits |= {} if options.agreement is None else {"backward_weight": options.agreement}
        compared = contenders(folders, options)
        for number in range(options.rounds):
            for contender in compared:
                for threads in (1, 2):
                    task = {
                        **contender,
                        "threads": threads,
                        "run": options.run,
                        "rows": encoded,
                        "seconds": options.seconds,
                        "limits": {**limits, "beam_size": contender["beam"]},
                    }
                    found = run_alone(task)
                    figures = {"bytes": "", "metric": "", "score": "", "keras_score": "", "same": ""}
                    if contender["kind"] in NAMES:
                        figures = static_figures(contender["artefact"], contender["kind"])
                    shown = {name: contender[name] for name in ("name", "precision", "beam")}
                    rows.append(
                        {
                            "round": number + 1,
                            **shown,
                            "threads": threads,
                            **found,
                            **figures,
                        }
                    )
                    print(f"round {number + 1}: {shown} {threads} thread(s)", file=sys.stderr)
    narrow = "greedy" if options.agreement is None else "beam 1"
    report(options, options.name, table(rows, options.beam, narrow), rows)
    if options.output is not None:
        draw(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
