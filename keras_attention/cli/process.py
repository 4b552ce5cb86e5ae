"""The command line as a process: signals, the backend's log, and when the library is loaded."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, TypeVar

import typer

from keras_attention.cli.quiet_log import quiet
from keras_attention.errors import UserError

Result = TypeVar("Result")

SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
SHOW_CURSOR = "\x1b[?25h"


class Interruption(KeyboardInterrupt):
    """SIGINT or SIGTERM, on its way out of a running command."""


class Stopper:
    """Signal handler: an exception in a running command, the end of the process before, after, and the second time.

    An exception while modules load would be of no use: C extensions turn it into an `ImportError`.
    """

    def __init__(self) -> None:
        self.running = False
        self.number: int | None = None
        self.end_log: Callable[[], None] = lambda: None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.running and self.number is None:
            self.number = number
            raise Interruption
        if self.number is None:
            self.number = number
            _say(SIGNALS[signal.Signals(number)])
        self.leave()

    def leave(self) -> NoReturn:
        """End the process at once, with the exit status that a shell gives to its signal."""
        self.end_log()
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            if sys.stdout.isatty():
                sys.stdout.write(SHOW_CURSOR)  # a progress bar hides it
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(128 + (self.number or signal.SIGINT))


def run() -> None:
    """Run the command line as the program of this process."""
    stopper = Stopper()
    for number in SIGNALS:
        signal.signal(number, stopper)
    before = sys.unraisablehook

    def unraisable(lost: Any) -> None:
        # Raised where Python cannot pass it on, e.g. in a destructor: the command would go on.
        if isinstance(lost.exc_value, Interruption):
            _say(SIGNALS[signal.Signals(stopper.number or signal.SIGINT)])
            stopper.leave()
        before(lost)

    sys.unraisablehook = unraisable
    take_closed_streams()
    from keras_attention.cli import app as cli

    try:
        cli.main()
    except SystemExit:
        if stopper.number is not None:
            # Threads that an interrupted library left behind may wait for what never comes.
            stopper.leave()
        raise


def take_closed_streams() -> None:
    """Keep the numbers of streams that the caller closed, which the next file to be opened would get.

    Standard error becomes a stream to nowhere, standard input stays `None`. Without standard output nothing is done.
    """
    without_output = sys.stdout is None
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if without_output:
        print("error: standard output is closed. Expected a place for what is written, e.g. > FILE", file=sys.stderr)
        os._exit(1)


def run_command(work: Callable[[], Result], hint: str = "") -> Result:
    """Load the library, then do the work of a command; an interruption becomes one line and its exit status.

    Args:
        work: the command.
        hint: what to tell about going on after an interruption.

    Raises:
        typer.Exit: with 130 after SIGINT, 143 after SIGTERM.
    """
    handler = signal.getsignal(signal.SIGINT)
    stopper = handler if isinstance(handler, Stopper) else Stopper()
    with quiet(stopper is handler) as stopper.end_log:
        load_library()
        stopper.running = True
        try:
            return work()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and stopper.number is None:
                stopper.number = signal.SIGINT
            if stopper.number is None:
                raise
            # Whatever an interrupted library raised, the interruption is its cause.
            _say(SIGNALS[signal.Signals(stopper.number)] + hint)
            raise typer.Exit(128 + stopper.number) from None
        finally:
            stopper.running = False


def load_library() -> None:
    """Run the package's own `__init__`, which registers the layers, if the start of this process put it off.

    Raises UserError if the backend of Keras is not installed.
    """
    package = sys.modules["keras_attention"]
    if hasattr(package, "__all__"):
        return
    spec = package.__spec__
    assert spec is not None
    assert spec.loader is not None
    try:
        spec.loader.exec_module(package)
    except ModuleNotFoundError as error:
        backends = ("tensorflow", "jax", "torch")
        if error.name not in (*backends, "keras"):
            raise
        there = [name for name in backends if importlib.util.find_spec(name)]
        other = f", or choose one that is installed: KERAS_BACKEND={there[0]}" if there else ""
        raise UserError(
            f"Keras needs {error.name}, which is not installed. Run: pip install 'keras-luong[tensorflow]'{other}"
        ) from error


def _say(line: str) -> None:
    print(line, file=sys.stderr)
