"""One trained run in every format and precision: bytes, score, speed and memory, beside Keras and the stock route.

    python benchmarks/export.py RUN --sentences val.en --references val.de --output docs/images/export

Each contender is measured in a process of its own, one after the other and round by round: `Keras` is the run in a
`tf.function`; `SavedModel`, `LiteRT` and `ONNX Runtime` are artefacts, the latter two by `runtime.py`, without
TensorFlow; `stock Keras` is a network of the same sizes made of `keras.layers.LSTM` and `keras.layers.Attention`,
exported by `model.export` and searched by a loop in Python, the only way that Keras by itself offers. It has weights
drawn at random, and makes as many steps as the source has tokens.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from export_chart import draw
from tables import add_outputs, report

PRECISIONS = ("float32", "float16", "dynamic_int8", "int8")
NPU = "int8 for an NPU"
NAMES = {"saved_model": "SavedModel", "tflite": "LiteRT", "onnx": "ONNX Runtime", "npu": "LiteRT, host loop"}
BATCHES = (1, 32)
Translate = Callable[[np.ndarray], Any]


def load_runtime(artefact: str) -> Any:
    """The runtime that lies in an artefact."""
    spec = importlib.util.spec_from_file_location("runtime", pathlib.Path(artefact) / "runtime.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["runtime"] = module
    spec.loader.exec_module(module)
    return module


def of_artefact(artefact: str, format_: str, threads: int) -> Translate:
    backend = {"tflite": "litert", "onnx": "onnx", "npu": "npu"}[format_]
    opened = load_runtime(artefact).Artefact(artefact, backend, threads)
    return lambda source: opened.search(source)


def of_saved_model(artefact: str, threads: int) -> Translate:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    runtime = load_runtime(artefact)
    manifest = runtime.read_manifest(pathlib.Path(artefact))
    import tensorflow_text  # noqa: F401

    loaded = tf.saved_model.load(f"{artefact}/saved_model")
    translate = loaded.signatures["translate"]

    def run(source: np.ndarray) -> Any:
        inputs = {"source_ids": source, **runtime.knob_values(manifest, len(source), {})}
        found = translate(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in found.items()}

    return run


def of_keras(run: str, limits: dict[str, Any], threads: int) -> Translate:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from keras_attention import EncoderDecoder
    from keras_attention.run_directory import RunDirectory

    net = EncoderDecoder(RunDirectory.open(run).load_model())
    search = tf.function(
        lambda source: net.search(source, **limits), input_signature=[tf.TensorSpec([None, None], tf.int32)]
    )
    return lambda source: {name: value.numpy() for name, value in search(tf.constant(source)).items()}


def of_stock(run: str, artefact: str, beam: int, threads: int) -> Translate:
    import keras
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    from keras_attention.run_directory import RunDirectory

    config, layers = RunDirectory.open(run).config, keras.layers
    runtime, units = load_runtime(artefact), config.decoder_units
    source = keras.Input((None,), dtype="int32", name="source")
    memory = layers.Embedding(config.source_vocabulary, config.embedding_size)(source)
    for _ in range(config.encoder_layers):
        memory = layers.Bidirectional(layers.LSTM(config.encoder_units, return_sequences=True))(memory)
    keys = layers.Dense(units)(memory)
    first = layers.Dense(units, activation="tanh")(layers.GlobalAveragePooling1D()(memory))
    encode = keras.Model(source, [keys, first, layers.Dense(units)(first)])
    token = keras.Input((1,), dtype="int32")
    states = [keras.Input((units,)), keras.Input((units,))]
    read = keras.Input((None, units))
    embedded = layers.Embedding(config.target_vocabulary, config.embedding_size)(token)
    outputs, *new = layers.LSTM(units, return_sequences=True, return_state=True)(embedded, initial_state=states)
    context, weights = layers.Attention()([outputs, read], return_attention_scores=True)
    hidden = layers.Dense(units, activation="tanh")(layers.Concatenate()([outputs, context]))
    logits = layers.Dense(config.target_vocabulary, activation="log_softmax")(hidden)
    step = keras.Model([token, *states, read], [logits, *new, weights])
    loaded = []  # owners of the weights
    with tempfile.TemporaryDirectory() as folder:
        for name, model in (("encode", encode), ("step", step)):
            model.export(f"{folder}/{name}", format="tf_saved_model", verbose=False)
            loaded.append(tf.saved_model.load(f"{folder}/{name}"))
    graphs = [model.serve for model in loaded]
    special = runtime.read_manifest(pathlib.Path(artefact))["special_ids"]

    def run_once(ids: np.ndarray, owners: Any = loaded) -> Any:
        batch, length = ids.shape
        keys, *state = (np.repeat(value.numpy(), beam, axis=0) for value in graphs[0](tf.constant(ids)))
        keys = tf.constant(keys)

        def advance(tokens: np.ndarray, kept: dict[str, np.ndarray]) -> Any:
            inputs = [tf.constant(tokens[:, None]), tf.constant(kept["h"]), tf.constant(kept["c"]), keys]
            logits, h, c, weights = (value.numpy() for value in graphs[1](inputs))
            logits[:, 0, special["eos"]] = -1e9
            return logits[:, 0], {"h": h, "c": c}, weights[:, 0]

        knobs = {
            "min_length": np.array(0),
            "length_penalty": np.array(1.0),
            "allowed": np.ones(config.target_vocabulary, bool),
            "prefix": np.zeros((batch, 1), int),
        }
        limits, mask = np.full((batch,), length), np.ones((batch, length), bool)
        first = dict(zip("hc", state, strict=True))
        return runtime.beam_search(advance, first, (batch, beam, length), limits, knobs, mask, special)

    return run_once


def peak_resident() -> int:
    """Most bytes that this process had in memory. What `getrusage` says begins with the parent's."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("error: no VmHWM. Expected Linux")


def measure(translate: Translate, rows: Sequence[Sequence[int]], seconds: float) -> dict[str, float]:
    """Milliseconds of one sentence (median), sentences a second in batches, peak resident megabytes."""
    found: dict[str, float] = {}
    for batch in BATCHES:
        chunks = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)] or [rows]
        arrays = []
        for chunk in chunks:
            array = np.zeros((len(chunk), max(map(len, chunk))), np.int32)
            for line, row in zip(array, chunk, strict=True):
                line[: len(row)] = row
            arrays.append(array)
        for array in arrays[:2]:
            translate(array)
        times: list[float] = []
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            array = arrays[len(times) % len(arrays)]
            start = time.perf_counter()
            translate(array)
            times.append((time.perf_counter() - start) / len(array))
        found[f"batch_{batch}_ms"] = 1e3 * float(np.median(times))
    found["peak_megabytes"] = peak_resident() / 1e6
    return found


def work(task: dict[str, Any]) -> None:
    """What a process of its own does: open one contender, time it, print JSON."""
    threads, artefact = task["threads"], task["artefact"]
    if task["kind"] == "keras":
        translate = of_keras(task["run"], task["limits"], threads)
    elif task["kind"] == "stock":
        translate = of_stock(task["run"], artefact, task["limits"]["beam_size"], threads)
    elif task["kind"] == "saved_model":
        translate = of_saved_model(artefact, threads)
    else:
        translate = of_artefact(artefact, task["kind"], threads)
    print(json.dumps(measure(translate, task["rows"], task["seconds"])))


def export_all(options: argparse.Namespace, work: pathlib.Path) -> dict[tuple[str, int], pathlib.Path]:
    """Artefacts by precision and beam; those of the wide beam are verified on all sentences."""
    from keras_attention.export import export
    from keras_attention.export.commands import read_pairs, read_sentences

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
                progress=lambda message, name=folder.name: print(f"{name}: {message}", file=sys.stderr),
            )
            folders[precision, beam] = folder
    return folders


def kind_of(precision: str, options: argparse.Namespace, ranges: list[str] | None) -> dict[str, Any]:
    """The arguments of `export` that make a precision, or the files for an NPU."""
    if precision == NPU:
        return {"target": "npu", "source_length": options.source_length, "calibration": ranges}
    return {"precision": precision, **({"calibration": ranges} if precision == "int8" else {})}


def contenders(folders: dict[tuple[str, int], pathlib.Path], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Name, kind and artefact of what is compared, at each beam."""
    found = []
    for beam in (options.beam, 1):
        plain = str(folders[options.precisions[0], beam])
        for name, kind in (("Keras, tf.function", "keras"), ("stock Keras, loop in Python", "stock")):
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


def table(rows: Sequence[dict[str, Any]], beam: int) -> str:
    """Medians over the rounds, one line for each contender."""
    metric = next((row["metric"] for row in rows if row["metric"]), "score")
    keras_score = next((row["keras_score"] for row in rows if row["metric"]), "")
    heads = [f"beam {beam}, 1 thread", f"beam {beam}, 2 threads", f"beam {beam}, batch 32", "greedy, 2 threads"]
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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed", type=int, default=200, help="sentences that are timed")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each timing")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(json.load(sys.stdin))
        return
    if None in (options.run, options.sentences, options.references):
        parser.error("expected RUN, --sentences and --references")
    if options.precisions is None:
        options.precisions = [one for one in PRECISIONS if one != "int8" or options.calibration is not None]
    if "int8" in options.precisions and options.calibration is None:
        parser.error("int8 takes its ranges from text: expected --calibration, or --precisions without int8")
    if "int8" in options.precisions and "npu" in options.contenders:
        options.precisions.append(NPU)
    from keras_attention.export.commands import read_sentences

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = export_all(options, pathlib.Path(temporary))
        first = folders[options.precisions[0], options.beam]
        timed = read_sentences(options.sentences)[: options.timed]
        encoded = load_runtime(str(first)).Artefact(first).encode(timed)
        limits = {"max_length": options.max_length, "length_penalty": options.length_penalty}
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
                    done = subprocess.run(
                        [sys.executable, __file__, "--worker"],
                        input=json.dumps(task),
                        check=True,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    figures = {"bytes": "", "metric": "", "score": "", "keras_score": "", "same": ""}
                    if contender["kind"] in NAMES:
                        figures = static_figures(contender["artefact"], contender["kind"])
                    shown = {name: contender[name] for name in ("name", "precision", "beam")}
                    rows.append(
                        {
                            "round": number + 1,
                            **shown,
                            "threads": threads,
                            **json.loads(done.stdout.splitlines()[-1]),
                            **figures,
                        }
                    )
                    print(f"round {number + 1}: {shown} {threads} thread(s)", file=sys.stderr)
    report(options, options.name, table(rows, options.beam), rows)
    if options.output is not None:
        draw(rows, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
