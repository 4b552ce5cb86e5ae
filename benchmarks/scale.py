"""Time and memory of a training step against the size of a streamed corpus: generated pairs in shards on the disk.

    python benchmarks/scale.py --output docs/images/scale --into docs/results/corpus-size.md

All sizes take turns, in processes of their own. The time of a step is that of `fit` with everything around it: reading
shards, shuffling, batching. Random ids of real lengths (5 to 20 words): speed does not depend on what they mean.
"""

from __future__ import annotations

import argparse
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
from tables import add_outputs, report

PAIRS_OF_A_SHARD = 10_000
WORDS = 8000


def generate(folder: pathlib.Path, pairs: int) -> None:
    """Shards as `train --shards` encodes them."""
    from keras_attention.training.data.pairs import Encoded
    from keras_attention.training.data.shards import Rows, write_shard

    folder.mkdir(parents=True)
    for number in range(-(-pairs // PAIRS_OF_A_SHARD)):
        generator = np.random.default_rng(number)
        sides = []
        lengths = generator.integers(5, 21, PAIRS_OF_A_SHARD)
        for _ in range(2):
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            sides.append(Rows(generator.integers(4, WORDS, int(offsets[-1])).astype("int32"), offsets))
        write_shard(folder / f"{number:05d}.npz", Encoded(sides[0], sides[1]))


def work(folder: str, steps: int) -> None:
    """Prints seconds and target tokens of `steps` steps after 20 to warm up, and the peak memory in bytes."""
    import keras

    from keras_attention import Seq2SeqConfig, build_seq2seq
    from keras_attention.training.data.shards import ShardedDataset
    from keras_attention.training.data.tf_feed import feed
    from keras_attention.training.losses.fused import fuse_loss

    config = Seq2SeqConfig(WORDS, WORDS, embedding_size=64, encoder_units=64, decoder_units=128, attention="general")
    model = fuse_loss(build_seq2seq(config))
    model.compile(keras.optimizers.Adam(1e-3))
    dataset = ShardedDataset(
        sorted(pathlib.Path(folder).glob("*.npz")), batch_size=64, seed=1, multiple=4, labels_as_input=True
    )
    dataset.start_epoch(1)

    class Timer(keras.callbacks.Callback):
        tokens = 0
        started = 0.0

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            dataset.start_epoch(epoch)

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if batch == WARM_UP - 1:
                self.started = time.perf_counter()
            elif batch >= WARM_UP:
                self.tokens += dataset.target_tokens(batch)
            if batch == WARM_UP + steps - 1:
                self.seconds = time.perf_counter() - self.started
                self.model.stop_training = True

    timer = Timer()
    model.fit(feed(dataset), shuffle=False, verbose=0, callbacks=[timer])
    print(timer.seconds, timer.tokens, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


WARM_UP = 20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Training time against the size of a streamed corpus.")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    add_outputs(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work(options.worker, options.steps)
        return
    rows = []
    folder = pathlib.Path(tempfile.mkdtemp())
    try:
        for pairs in options.pairs:
            generate(folder / str(pairs), pairs)
        for number in range(options.rounds):
            for pairs in options.pairs:
                command = [sys.executable, __file__, "--worker", str(folder / str(pairs)), f"--steps={options.steps}"]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                seconds, tokens, peak = map(float, done.stdout.split()[-3:])
                rows.append(
                    {
                        "round": number + 1,
                        "pairs": pairs,
                        "microseconds_per_token": 1e6 * seconds / tokens,
                        "peak": peak,
                    }
                )
        disk = {pairs: sum(p.stat().st_size for p in (folder / str(pairs)).iterdir()) for pairs in options.pairs}
    finally:
        shutil.rmtree(folder)
    lines = ["| pairs | on the disk, MB | microseconds a token | of the smallest | peak memory, MB |"]
    lines.append("|---|---|---|---|---|")
    first = None
    for pairs in options.pairs:
        own = [row for row in rows if row["pairs"] == pairs]
        cost = statistics.median(row["microseconds_per_token"] for row in own)
        first = first or cost
        memory = statistics.median(row["peak"] for row in own) / 1e6
        lines.append(f"| {pairs:,} | {disk[pairs] / 1e6:,.0f} | {cost:.1f} | {cost / first:.2f} | {memory:,.0f} |")
    report(options, "scale", "\n".join(lines), rows)


if __name__ == "__main__":
    main()
