"""Entry point of the command `keras-attention`.

`import keras_attention` loads Keras and a backend, which takes seconds. Help, versions and mistakes need neither, so
this module makes the package known without running it. `keras_attention.cli.process` runs it when a command begins.
"""

import importlib.util
import os
import signal
import sys
from types import FrameType

PACKAGE = "keras_attention"


def leave(number: int, frame: FrameType | None) -> None:
    """End the process at once: nothing was begun that would want an end of its own."""
    os._exit(128 + number)


def make_known() -> None:
    """Let modules of the package be imported without the package's own `__init__`."""
    if PACKAGE not in sys.modules:
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None  # it was installed together with this module
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)


def main() -> None:
    """Run the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    make_known()
    try:
        from keras_attention.cli import process
    except ModuleNotFoundError as error:
        sys.exit(f"error: the command line needs {error.name}. Install it: pip install 'keras-luong[train]'")
    process.run()


if __name__ == "__main__":
    main()
