"""What each attention mechanism costs beside Keras' own: time and memory of a forward and backward pass, and of a step.

    python benchmarks/attention.py --output docs/images/attention-cost

One pass is `tf.function` over a batch of 16 sentences, 32 queries and 32 to 2048 positions of depth 256, with the
gradients of query, value (and key) and weights. Each mechanism is timed in turn with its reference, pass by pass, in
one process: `keras.layers.Attention`, or for the additive scores `keras.layers.AdditiveAttention` with the same two
projections before it, and for several heads `keras.layers.MultiHeadAttention`. A figure is the median of the ratios of
neighbouring passes. Memory is the rise of a fresh process's peak in its first pass (Linux), beside that of the
reference. A step is one query over cached keys, forward alone, without returning weights; steps are timed 20 in a row,
as a search takes them. Writes OUTPUT.csv, OUTPUT.md and OUTPUT.png, prints the tables, then one JSON object. `--only`
measures one kind anew and keeps the other kind's rows of OUTPUT.csv.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from keras_attention import LuongAttention, MultiHeadLuongAttention

BATCH, QUERIES, DEPTH, HALF_WIDTH = 16, 32, 256, 10
LENGTHS = (32, 128, 512, 2048)
FEWEST_ROUNDS, ENOUGH_SECONDS = 5, 5.0

MECHANISMS: dict[str, Callable[[int], keras.Layer]] = {
    "dot": lambda length: LuongAttention("dot"),
    "general, cached keys": lambda length: LuongAttention("general"),
    "general": lambda length: LuongAttention("general"),
    "cosine": lambda length: LuongAttention("cosine"),
    "location": lambda length: LuongAttention("location", max_source_length=length),
    "additive": lambda length: LuongAttention("additive"),
    "normalized additive": lambda length: LuongAttention("normalized_additive"),
    "sparsemax": lambda length: LuongAttention("dot", alignment="sparsemax"),
    "monotonic": lambda length: LuongAttention("dot", alignment="monotonic"),
    "local-m": lambda length: LuongAttention("dot", window="local_m", half_width=HALF_WIDTH),
    "local-p": lambda length: LuongAttention("dot", window="local_p", half_width=HALF_WIDTH),
    "local-m, additive": lambda length: LuongAttention("additive", window="local_m", half_width=HALF_WIDTH),
    "multi-head (4)": lambda length: MultiHeadLuongAttention(4),
}
STEPPED = ("dot", "general, cached keys", "additive", "local-m", "local-p", "local-m, additive")


@dataclass(frozen=True)
class Row:
    """One mechanism at one source length."""

    kind: str
    mechanism: str
    length: int
    milliseconds: float
    ratio: float
    memory_mb: float | None
    reference_memory_mb: float | None


class ProjectedAdditive(keras.layers.Layer):
    """`keras.layers.AdditiveAttention` behind the two projections that it leaves to the user."""

    def __init__(self) -> None:
        super().__init__()
        self.query_projection = keras.layers.Dense(DEPTH, use_bias=False)
        self.key_projection = keras.layers.Dense(DEPTH, use_bias=False)
        self.attention = keras.layers.AdditiveAttention()

    def call(self, query: Any, value: Any) -> Any:
        return self.attention([self.query_projection(query), value, self.key_projection(value)])


class MultiHead(keras.layers.Layer):
    """`keras.layers.MultiHeadAttention` without biases, called with query and value."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(4, DEPTH // 4, use_bias=False)

    def call(self, query: Any, value: Any) -> Any:
        return self.attention(query, value)


def reference_name(name: str) -> str:
    """Which Keras layer a mechanism is compared with."""
    if "multi-head" in name:
        return "MultiHeadAttention"
    return "AdditiveAttention" if "additive" in name else "Attention"


def training_pass(call: Callable[..., Any], layer: keras.Layer, tensors: Sequence[Any]) -> Callable[[], Any]:
    """Forward and backward, compiled; the gradients are those of the mean square of the result."""

    @tf.function
    def run() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_mean(tf.square(call(*tensors)))
        gradients = tape.gradient(loss, [*tensors, *(weight.value for weight in layer.trainable_weights)])
        return [gradient for gradient in gradients if gradient is not None]  # cached keys leave their kernel unused

    return run


def make_pass(name: str, length: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The pass of a mechanism, and of its reference on the same tensors."""
    random = np.random.default_rng(0)
    query = tf.constant(random.normal(size=(BATCH, QUERIES, DEPTH)).astype("float32"))
    value = tf.constant(random.normal(size=(BATCH, length, DEPTH)).astype("float32"))
    layer = MECHANISMS[name](length)
    layer.build(query.shape, value.shape)
    tensors = [query, value]
    if name == "general, cached keys":
        tensors.append(layer.project_keys(value))
    ours = training_pass(lambda q, v, k=None: layer(q, v, key=k), layer, tensors)
    if reference_name(name) != "Attention":
        reference: Any = MultiHead() if reference_name(name) == "MultiHeadAttention" else ProjectedAdditive()
        reference(query[:1, :1], value[:1, :1])  # makes its weights; small, so that it leaves no memory behind
        return ours, training_pass(reference, reference, tensors)
    reference = keras.layers.Attention()
    return ours, training_pass(lambda *given: reference(list(given)), reference, tensors)


def make_step(name: str, length: int) -> Callable[[], Any]:
    """One query over a memory whose keys were projected before."""
    random = np.random.default_rng(0)
    query = tf.constant(random.normal(size=(BATCH, 1, DEPTH)).astype("float32"))
    value = tf.constant(random.normal(size=(BATCH, length, DEPTH)).astype("float32"))
    layer = MECHANISMS[name](length)
    layer.build(query.shape, value.shape)
    key, state = layer.project_keys(value), layer.initial_state(value)

    @tf.function
    def run() -> Any:
        return layer(query, value, key=key, state=state)

    return run


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    keras.tree.map_structure(lambda tensor: tensor.numpy().ravel()[:1], run())
    return time.perf_counter() - started


def compare(
    ours: Callable[[], Any], reference: Callable[[], Any], rounds: int, in_a_row: int = 1
) -> tuple[float, float]:
    """Median seconds of `ours`, and the median ratio to `reference`, in turn; which goes first alternates."""
    for run in (ours, reference, ours, reference):
        run()
    times: list[float] = []
    ratios = []
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and sum(times) > ENOUGH_SECONDS:
            break
        first, second = (ours, reference) if number % 2 else (reference, ours)
        pair = {run: sum(seconds(run) for _ in range(in_a_row)) / in_a_row for run in (first, second)}
        times.append(pair[ours])
        ratios.append(pair[ours] / pair[reference])
    return statistics.median(times), statistics.median(ratios)


def peak_rise(name: str, length: int, part: str) -> float:
    """MB by which the first compiled pass raises a fresh process's resident memory; NaN off Linux."""
    if not pathlib.Path("/proc/self/status").exists():
        return float("nan")
    line = [sys.executable, __file__, "--memory-of", name, part, str(length)]
    return float(subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.split()[-1])


def print_peak_rise(name: str, part: str, length: int) -> None:
    """What the child process of `peak_rise` does."""
    run: Any = make_pass(name, length)[part == "reference"]
    run.get_concrete_function()
    before = _status("VmRSS")
    run()
    print(max(0.0, (_status("VmHWM") - before) / 1024))


def _status(name: str) -> int:
    lines = pathlib.Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int({line.split(":")[0]: line.split()[1] for line in lines if line.split()[1:]}[name])


def measure_training(length: int, rounds: int) -> list[Row]:
    rows = []
    memory: dict[str, float] = {}
    for name in MECHANISMS:
        reference = reference_name(name)
        if reference not in memory:
            memory[reference] = round(peak_rise(name, length, "reference"), 1)
        elapsed, ratio = compare(*make_pass(name, length), rounds)
        used = round(peak_rise(name, length, "ours"), 1)
        rows.append(Row("training", name, length, round(elapsed * 1e3, 2), round(ratio, 3), used, memory[reference]))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def measure_steps(length: int, rounds: int) -> list[Row]:
    rows, dot = [], make_step("dot", length)
    for name in STEPPED:
        elapsed, ratio = compare(make_step(name, length), dot, rounds, in_a_row=20)
        rows.append(Row("step", name, length, round(elapsed * 1e3, 3), round(ratio, 3), None, None))
    return rows


def read_rows(path: pathlib.Path, kind: str) -> list[Row]:
    """The rows of one kind that an earlier run wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["kind"] == kind]
    return [
        Row(
            kind,
            line["mechanism"],
            int(line["length"]),
            float(line["milliseconds"]),
            float(line["ratio"]),
            float(line["memory_mb"]) if line["memory_mb"] else None,
            float(line["reference_memory_mb"]) if line["reference_memory_mb"] else None,
        )
        for line in lines
    ]


def markdown(rows: Sequence[Row], kind: str) -> str:
    """One line a mechanism, one column a length."""
    chosen = [row for row in rows if row.kind == kind]
    lengths = sorted({row.length for row in chosen})
    lines = [
        "| mechanism | " + " | ".join(f"S = {length}" for length in lengths) + " |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    for name in dict.fromkeys(row.mechanism for row in chosen):
        cells = {row.length: row for row in chosen if row.mechanism == name}
        texts = [
            f"{row.milliseconds:.2f} ms"
            if kind == "step"
            else f"{row.ratio:.2f} ({_shown(row.memory_mb)} / {_shown(row.reference_memory_mb)} MB)"
            for row in (cells[length] for length in lengths)
        ]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def _shown(megabytes: float | None) -> str:
    return "?" if megabytes is None or megabytes != megabytes else f"{megabytes:.0f}"


def draw(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """Ratios of training passes on the left, milliseconds of a step on the right, over the length of the source."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    colours = plt.get_cmap("tab20")
    names = list(MECHANISMS)
    for axis, kind, value in ((left, "training", "ratio"), (right, "step", "milliseconds")):
        for name in names:
            points = [(row.length, getattr(row, value)) for row in rows if (row.kind, row.mechanism) == (kind, name)]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=colours(names.index(name)), label=name)
        axis.set(xscale="log", yscale="log", xlabel="positions of the source")
        axis.set_xticks(LENGTHS, [str(length) for length in LENGTHS])
        axis.spines[["top", "right"]].set_visible(False)
    left.axhline(1.0, color="black", linewidth=0.8)
    left.set_ylabel("time of a training pass / Keras'")
    right.set_ylabel("milliseconds of one step")
    left.legend(frameon=False, fontsize=7, ncols=2)
    right.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Cost of each attention mechanism beside Keras' own.")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("docs/images/attention-cost"), help="path without ending"
    )
    parser.add_argument(
        "--memory-of", nargs=3, metavar=("NAME", "PART", "S"), help="one pass in this process: its memory"
    )
    parser.add_argument("--only", choices=("training", "step"), help="measure one kind, keep the other of OUTPUT.csv")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=101, help="passes of each mechanism")
    options = parser.parse_args(arguments)
    if options.memory_of:
        print_peak_rise(options.memory_of[0], options.memory_of[1], int(options.memory_of[2]))
        return
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table, text, picture = (options.output.with_name(options.output.name + end) for end in (".csv", ".md", ".png"))
    rows = []
    for kind, measure in {"training": measure_training, "step": measure_steps}.items():
        if options.only in (None, kind):
            rows += [row for length in options.lengths for row in measure(length, options.rounds)]
        else:
            rows += read_rows(table, kind)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(rows[0])))
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text.write_text(f"{markdown(rows, 'training')}\n{markdown(rows, 'step')}", encoding="utf-8")
    draw(picture, rows)
    print(text.read_text(encoding="utf-8"), end="")
    print(json.dumps({"csv": str(table), "md": str(text), "png": str(picture), "rows": len(rows)}))


if __name__ == "__main__":
    main()
