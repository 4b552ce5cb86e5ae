"""Training throughput of `fit` on a processor: ours, stock Keras and PyTorch, side by side and in turn.

    python benchmarks/throughput.py --torch .venv-torch/bin/python --output docs/images/throughput

One network for all: embedding 256, bidirectional LSTM encoder 2 x 256, LSTM decoder 512, attention, attentional vector,
projection onto the vocabulary, Adam, float32. Each contender is a process of its own that builds the network once and
warms up; then all take turns, and the medians over the rounds are compared. Random ids: speed does not depend on them.
The share of the roofline is the time that the step's products would take at the measured peak over the time taken.
Steps are those of one epoch: what `fit` does at an epoch's ends is a part of them, a small one as in trainings.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tables import add_outputs, report

EMBEDDING, ENCODER, DECODER = 256, 256, 512
CONTENDERS = (
    "ours",
    "ours, bfloat16 products",
    "ours, input feeding",
    "ours, input feeding, bfloat16 products",
    "stock Keras",
    "PyTorch",
)


def step_flops(options: argparse.Namespace, feeding: bool) -> float:
    """Floating-point operations of the products of one training step: three times those of the forward pass."""
    positions, memory = options.batch * options.length, 2 * ENCODER
    encoder = 2 * (EMBEDDING + ENCODER) * 4 * ENCODER
    decoder = (EMBEDDING + (DECODER if feeding else 0) + DECODER) * 4 * DECODER
    attention = DECODER * memory + 2 * options.length * DECODER + (DECODER + memory) * DECODER
    products = encoder + decoder + attention + DECODER * options.vocabulary
    return 6.0 * float(positions * products)


def peak_flops(options: argparse.Namespace, size: int = 2048, seconds: float = 2.0) -> float:
    """Of a product of square float32 matrices by TensorFlow, in a process of its own with as many threads."""
    code = f"""
import time
import tensorflow as tf
one = tf.random.normal([{size}, {size}])
multiply = tf.function(lambda one: tf.matmul(one, one))
best = float("inf")
end = time.perf_counter() + {seconds}
while time.perf_counter() < end:
    started = time.perf_counter()
    multiply(one).numpy()
    best = min(best, time.perf_counter() - started)
print(best)
"""
    environment = thread_environment(options)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return 2.0 * size**3 / float(done.stdout.split()[-1])


def thread_environment(options: argparse.Namespace) -> dict[str, str]:
    """Environment variables of a contender."""
    variables = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(variables, str(options.threads)), "TF_CPP_MIN_LOG_LEVEL": "3"}


def draw_batch(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(1)
    shape = (options.batch, options.length)
    source, target, labels = (generator.integers(4, options.vocabulary, shape).astype("int32") for _ in range(3))
    return source, target, labels


def make_ours(options: argparse.Namespace, feeding: bool, products: str) -> Callable[[int], None]:
    from keras_attention import Seq2SeqConfig, build_seq2seq
    from keras_attention.training.hardware.cpu import keep_freed_memory
    from keras_attention.training.loop.adam import Adam
    from keras_attention.training.loop.assemble import set_products
    from keras_attention.training.losses.fused import fuse_loss

    keep_freed_memory()  # as every training here does
    model = build_seq2seq(
        Seq2SeqConfig(
            options.vocabulary,
            options.vocabulary,
            embedding_size=EMBEDDING,
            encoder_units=ENCODER,
            decoder_units=DECODER,
            attention="general",
            input_feeding=feeding,
        )
    )
    set_products(model, products)
    fused = fuse_loss(model, products=products)
    fused.compile(Adam(1e-3))
    source, target, labels = draw_batch(options)
    return fit_steps(fused, {"source": source, "target": target, "labels": labels}, None)


def make_stock(options: argparse.Namespace) -> Callable[[int], None]:
    import keras
    from keras import layers

    source, target = (keras.Input((None,), dtype="int32", name=name) for name in ("source", "target"))
    embedded = layers.Embedding(options.vocabulary, EMBEDDING)(source)
    memory = layers.Bidirectional(layers.LSTM(ENCODER, return_sequences=True))(embedded)
    first = layers.Dense(DECODER, activation="tanh")(layers.GlobalAveragePooling1D()(memory))
    hidden = layers.LSTM(DECODER, return_sequences=True)(
        layers.Embedding(options.vocabulary, EMBEDDING)(target), initial_state=[first, first]
    )
    context = layers.Attention()([layers.Dense(2 * ENCODER, use_bias=False)(hidden), memory])
    attentional = layers.Dense(DECODER, activation="tanh", use_bias=False)(layers.Concatenate()([context, hidden]))
    model = keras.Model({"source": source, "target": target}, layers.Dense(options.vocabulary)(attentional))
    model.compile(keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ids, inputs, labels = draw_batch(options)
    return fit_steps(model, {"source": ids, "target": inputs}, labels)


def fit_steps(model: Any, inputs: dict[str, Any], labels: Any) -> Callable[[int], None]:
    """`run(n)`: one epoch of `model.fit` with n batches, all alike, fed as training feeds its own."""
    import keras

    from keras_attention.training.data.tf_feed import feed

    class Batches(keras.utils.PyDataset):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def probe_shapes(self) -> None:
            """All batches have one shape."""

        def __len__(self) -> int:
            return self.number

        def __getitem__(self, index: int) -> Any:
            return (inputs,) if labels is None else (inputs, labels)

    return lambda number: model.fit(feed(Batches(number)), shuffle=False, verbose=0)


def make_torch(options: argparse.Namespace) -> Callable[[int], None]:
    import torch  # type: ignore[import-not-found, unused-ignore]
    from torch import nn  # type: ignore[import-not-found, unused-ignore]

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.source = nn.Embedding(options.vocabulary, EMBEDDING)
            self.target = nn.Embedding(options.vocabulary, EMBEDDING)
            self.encoder = nn.LSTM(EMBEDDING, ENCODER, batch_first=True, bidirectional=True)
            self.decoder = nn.LSTM(EMBEDDING, DECODER, batch_first=True)
            self.first = nn.Linear(2 * ENCODER, DECODER)
            self.key = nn.Linear(DECODER, 2 * ENCODER, bias=False)
            self.attentional = nn.Linear(DECODER + 2 * ENCODER, DECODER, bias=False)
            self.output = nn.Linear(DECODER, options.vocabulary)

        def forward(self, source: Any, target: Any) -> Any:
            memory, _ = self.encoder(self.source(source))
            first = torch.tanh(self.first(memory.mean(1)))[None]
            hidden, _ = self.decoder(self.target(target), (first, first))
            weights = torch.softmax(self.key(hidden) @ memory.transpose(1, 2), -1)
            return self.output(torch.tanh(self.attentional(torch.cat([weights @ memory, hidden], -1))))

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = Network().to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    source, target, labels = (torch.from_numpy(part).long().to(device) for part in draw_batch(options))

    def run(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            logits = network(source, target)
            nn.functional.cross_entropy(logits.reshape(-1, options.vocabulary), labels.reshape(-1)).backward()
            optimizer.step()

    return run


def make_contender(name: str, options: argparse.Namespace) -> Callable[[int], None]:
    """`run(n)`, which takes n training steps."""
    if name == "PyTorch":
        return make_torch(options)
    if name == "stock Keras":
        return make_stock(options)
    return make_ours(options, "feeding" in name, "bfloat16" if "bfloat16" in name else "float32")


def add_options(parser: argparse.ArgumentParser, contenders: Iterable[str], rounds: int) -> None:
    """Options of a comparison of contenders, each of which is a process with `--worker`."""
    add_outputs(parser)
    parser.add_argument("--only", nargs="+", choices=list(contenders), help="contenders")
    parser.add_argument("--rounds", type=int, default=rounds)
    add_sizes(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Options of one contender."""
    defaults = {"steps": 40, "batch": 64, "length": 16, "vocabulary": 8000, "threads": 2}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)


def work(options: argparse.Namespace) -> None:
    """A contender's process: a line with the seconds of its steps for each line that it reads."""
    run = make_contender(options.worker, options)
    run(3)
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(options.steps)
        print(time.perf_counter() - started, flush=True)


def measure(options: argparse.Namespace, names: list[str]) -> list[dict[str, Any]]:
    """Seconds for each round and contender, in turn."""
    passed = [f"--{key}={getattr(options, key)}" for key in ("threads", "steps", "batch", "length", "vocabulary")]
    workers = {}
    environment = thread_environment(options)
    for name in names:
        interpreter = options.torch if name == "PyTorch" else sys.executable
        try:
            workers[name] = subprocess.Popen(
                [interpreter, __file__, "--worker", name, *passed],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
            )
        except OSError as error:
            raise SystemExit(f"error: {name}: {interpreter} does not start ({error.strerror})") from error
        if read(workers[name]) != "ready":
            raise SystemExit(f"error: {name} did not start. Expected a working interpreter and its packages")
    rows = []
    for number in range(options.rounds):
        for name, worker in workers.items():
            assert worker.stdin is not None
            print("go", file=worker.stdin, flush=True)
            seconds = float(read(worker))
            tokens = options.steps * options.batch * options.length / seconds
            rows.append({"round": number + 1, "contender": name, "seconds": seconds, "tokens_per_second": tokens})
    for worker in workers.values():
        worker.communicate()
    return rows


def read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def summary(rows: list[dict[str, Any]], options: argparse.Namespace, peak: float) -> str:
    """A Markdown table of medians, ratios to ours (above 1: ours is faster), and shares of the roofline."""
    speeds = {
        name: statistics.median(row["tokens_per_second"] for row in rows if row["contender"] == name)
        for name in dict.fromkeys(row["contender"] for row in rows)
    }
    lines = ["| | target tokens/s | ours / it | share of the roofline |", "|---|---|---|---|"]
    for name, speed in speeds.items():
        bound = options.batch * options.length * peak / step_flops(options, "feeding" in name)
        lines.append(f"| {name} | {speed:,.0f} | {speeds['ours'] / speed:.2f} | {100 * speed / bound:.0f} % |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Training throughput against stock Keras and PyTorch.")
    parser.add_argument("--torch", help="a Python interpreter that has PyTorch; without it PyTorch is left out")
    add_options(parser, CONTENDERS, rounds=7)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options)
        return
    names = [name for name in options.only or CONTENDERS if name != "PyTorch" or options.torch]
    if "ours" not in names:
        names.insert(0, "ours")
    peak = peak_flops(options)
    rows = measure(options, names)
    head = f"float32 products: {peak / 1e9:.0f} GFLOP/s at most; {options.threads} threads, {options.rounds} rounds"
    report(options, f"throughput {options.threads}", f"{head}\n\n{summary(rows, options, peak)}", rows)


if __name__ == "__main__":
    main()
