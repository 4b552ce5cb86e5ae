"""What is compared in the benchmarks of exports, each as a function from ids to translations; and how it is timed.

    python benchmarks/contenders.py < TASK

times one contender in a process of its own and prints JSON: `export.py` and `export_speed.py` start it so. `keras` is
the run in a `tf.function`; `saved_model`, `tflite`, `onnx` and `npu` are artefacts, but for the first by its runtime,
without TensorFlow; `stock` is a network of the same sizes made of `keras.layers.LSTM` and `keras.layers.Attention`,
exported by `model.export` and searched by a loop in Python, the only way that Keras by itself offers. It has weights
drawn at random, and makes as many steps as the source has tokens.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BATCHES = (1, 32)
NAMES = {"saved_model": "SavedModel", "tflite": "LiteRT", "onnx": "ONNX Runtime", "npu": "LiteRT, host loop"}
KERAS, STOCK = "Keras, tf.function", "stock Keras, loop in Python"
Translate = Callable[[np.ndarray], Any]


def load_runtime(artefact: str) -> Any:
    """Import the runtime that lies in an artefact, in place of one that was imported from another."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "runtime"]:
        del sys.modules[name]
    sys.path.insert(0, str(artefact))
    try:
        return importlib.import_module("runtime")
    finally:
        sys.path.remove(str(artefact))


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
    from keras_attention import Constraints, EncoderDecoder
    from keras_attention.run_directory import RunDirectory

    net = EncoderDecoder(RunDirectory.open(run).load_model())
    limits = dict(limits)
    constraints = Constraints(min_length=limits.pop("min_length", 0))
    way = net.agree if "backward_weight" in limits else net.search
    search = tf.function(
        lambda source: way(source, constraints=constraints, **limits),
        input_signature=[tf.TensorSpec([None, None], tf.int32)],
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


def measure(
    translate: Translate, rows: Sequence[Sequence[int]], seconds: float, batches: Sequence[int] = BATCHES
) -> dict[str, float]:
    """Milliseconds of one sentence (median) in batches of each size, peak resident megabytes."""
    found: dict[str, float] = {}
    for batch in batches:
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
    print(json.dumps(measure(translate, task["rows"], task["seconds"], task.get("batches", BATCHES))))


def run_alone(task: dict[str, Any]) -> dict[str, float]:
    """What `work` finds in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__], input=json.dumps(task), check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    work(json.load(sys.stdin))
