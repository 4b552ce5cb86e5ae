"""Train the toy task in a process of its own on two devices of one processor: `python -m tests.support.distributed`.

Arguments: a folder with the toy pairs, the run directory, the distribution, the number of epochs.
"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

from keras_attention.training.hardware.devices import HOSTS, PROCESS, PROCESSES
from tests.support import toy

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEVICES = 2


def train_in_process(folder: pathlib.Path, output: pathlib.Path, distribute: str, epochs: int = 2) -> str:
    """What the training printed. Raises CalledProcessError, with its standard error, if it failed."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.distributed", str(folder), str(output), distribute, str(epochs)],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags.strip()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def train_in_processes(folder: pathlib.Path, output: pathlib.Path, epochs: int, count: int = 2) -> list[str]:
    """What each of `count` processes printed that share every batch over loopback, on one device each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    running = []
    for number in range(count):
        names = {HOSTS: address, PROCESSES: str(count), PROCESS: str(number)}
        running.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.distributed",
                    str(folder),
                    str(output),
                    "data_parallel",
                    str(epochs),
                ],
                cwd=ROOT,
                env={**os.environ, **names},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    printed = []
    for one in running:
        out, errors = one.communicate()
        assert one.returncode == 0, errors[-3000:]
        printed.append(out)
    return printed


def main(folder: str, output: str, distribute: str, epochs: str) -> None:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * DEVICES
        )
    from keras_attention.training import train

    settings = {**toy.SETTINGS, "epochs": int(epochs), "distribute": distribute}
    # Without dropout: devices draw numbers of their own. The bound on the norm is one that many gradients exceed.
    model = {**toy.MODEL, "dropout": 0.0}
    paths = pathlib.Path(folder) / "source.txt", pathlib.Path(folder) / "target.txt"
    train(output, source=paths[0], target=paths[1], model=model, **settings, clip_norm=0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
