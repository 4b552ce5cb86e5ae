"""Peak memory of one training step: the loss built into the model (`fuse_loss`) against the loss on full logits.

    python benchmarks/memory.py --output docs/images/memory --into docs/results/training-memory.md

Each is measured in a process of its own: resident memory after the model and its optimiser were made and one step on a
tiny batch was taken, then its peak during one step on the real batch. The rise is the difference.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import subprocess
import sys

import numpy as np
from tables import add_outputs, report

KINDS = ("stock loss", "fused loss")


def resident() -> int:
    """Bytes in memory now."""
    for line in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("error: no VmRSS. Expected Linux")


def rise(options: argparse.Namespace) -> int:
    """Bytes by which the peak during one step lies above the memory before it."""
    import keras

    from keras_attention import Seq2SeqConfig, build_seq2seq
    from keras_attention.training.hardware.cpu import keep_freed_memory
    from keras_attention.training.loop.adam import Adam
    from keras_attention.training.losses.cross_entropy import TokenCrossEntropy
    from keras_attention.training.losses.fused import fuse_loss

    words = options.vocabulary
    config = Seq2SeqConfig(words, words, embedding_size=256, encoder_units=256, decoder_units=512, attention="general")
    model = build_seq2seq(config)
    fused = options.worker == "fused loss"
    if fused:
        keep_freed_memory()
    fitted = fuse_loss(model) if fused else model
    fitted.compile((Adam if fused else keras.optimizers.Adam)(1e-3), loss=None if fused else TokenCrossEntropy())
    generator = np.random.default_rng(1)

    def step(batch: int, length: int) -> None:
        source, target, labels = (generator.integers(4, words, (batch, length)).astype("int32") for _ in range(3))
        inputs = {"source": source, "target": target}
        if fused:
            fitted.train_on_batch({**inputs, "labels": labels})
        else:
            fitted.train_on_batch(inputs, labels)

    for length in (2, 3):  # twice, for a graph of any length
        step(2, length)
    before = resident()
    step(options.batch, options.length)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Peak memory of a training step.")
    add_outputs(parser)
    for name, value in (("vocabulary", 32000), ("batch", 64), ("length", 50), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        print(rise(options))
        return
    sizes = [f"--{name}={getattr(options, name)}" for name in ("vocabulary", "batch", "length")]
    rows = []
    for number in range(options.rounds):
        for kind in KINDS:
            done = subprocess.run(
                [sys.executable, __file__, "--worker", kind, *sizes], check=True, stdout=subprocess.PIPE, text=True
            )
            rows.append({"round": number + 1, "loss": kind, "megabytes": int(done.stdout.split()[-1]) / 1e6})
    means = {kind: float(np.median([row["megabytes"] for row in rows if row["loss"] == kind])) for kind in KINDS}
    lines = ["| | peak rise, MB | of the stock loss |", "|---|---|---|"]
    lines += [f"| {kind} | {value:,.0f} | {100 * value / means[KINDS[0]]:.0f} % |" for kind, value in means.items()]
    report(options, "memory", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
