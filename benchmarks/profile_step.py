"""Where the time of a training step goes: TensorFlow's own trace of `fit`, summed by kind of operation.

    python benchmarks/profile_step.py "ours, bfloat16 products" --threads 1

The contenders and sizes are those of `throughput.py`. Time of an operation that waits for others (a loop, a call) is
left out; so the sum is the work of all threads, not the wall time.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import tempfile

from throughput import CONTENDERS, add_sizes, make_contender

WAITING = (
    "while",
    "StatefulPartitionedCall",
    "PartitionedCall",
    "While",
    "EagerExecute",
    "function",
    "__inference",
    "_Recv",
    "_Send",
)


def trace(folder: pathlib.Path) -> collections.Counter[str]:
    """Picoseconds for each kind of operation in the trace that was written below `folder`."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    total: collections.Counter[str] = collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace()
        space.ParseFromString(path.read_bytes())
        for plane in space.planes:
            names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
            for line in plane.lines:
                for event in line.events:
                    name = names[event.metadata_id]
                    # "gradient_tape/model/dense/MatMul:MatMul": an operation's name and its kind.
                    if ":" in name and "::" not in name:
                        kind = name.rsplit(":", 1)[1].split("#")[0].strip()
                        if kind and not kind.startswith(WAITING):
                            total[kind] += event.duration_ps
    return total


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time of a training step by kind of operation.")
    parser.add_argument("contender", choices=CONTENDERS[:-1])
    parser.add_argument("--rows", type=int, default=20, help="kinds to list")
    add_sizes(parser)
    options = parser.parse_args(arguments)
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    run = make_contender(options.contender, options)
    run(3)
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        run(options.steps)
        tf.profiler.experimental.stop()
        total = trace(pathlib.Path(folder))
    everything = sum(total.values())
    print(f"| {options.contender} | ms a step | share |\n|---|---|---|")
    for kind, duration in total.most_common(options.rows):
        print(f"| {kind} | {duration / 1e9 / options.steps:.1f} | {100 * duration / everything:.0f} % |")
    print(f"| all | {everything / 1e9 / options.steps:.1f} | |")


if __name__ == "__main__":
    main()
