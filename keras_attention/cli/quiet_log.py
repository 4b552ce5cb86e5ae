"""TensorFlow's log, kept off standard error: C++ code writes it there before any setting is read."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LOG_LINE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|[IWE]\d{4} \d\d:\d\d:\d\d"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    rb"|INFO: (Created|Initialized) TensorFlow Lite "
)
"""Lines of absl's and TensorFlow's log, up to level E: what is an error for the user comes as an exception."""

END = b"\0end\n"
KEPT = 20
"""Log lines that are shown if the process dies: then nothing else tells why."""


@contextlib.contextmanager
def quiet(wanted: bool = True) -> Iterator[Callable[[], None]]:
    """Keep log lines of C++ libraries off standard error, whoever writes there: Python, C++, child processes.

    Everything else passes. Python's own `sys.stderr` stays the terminal that it was. Where `TF_CPP_MIN_LOG_LEVEL` is
    set, the user wants to see the log, and nothing is changed.

    A process of its own reads the lines: it outlives a crash, whose last words are shown.

    Yields:
        What a process calls before it ends without leaving this context.
    """
    if not wanted or LEVEL in os.environ:
        yield _nothing
        return
    os.environ[LEVEL] = "3"
    try:
        real = os.dup(2)
    except OSError:  # standard error is closed
        yield _nothing
        return
    sys.stderr.flush()
    source, sink = os.pipe()
    reader = os.fork()
    if reader == 0:
        _read(source, real)
    os.close(source)
    os.dup2(sink, 2)
    os.close(sink)
    before = sys.stderr
    sys.stderr = os.fdopen(os.dup(real), "w", 1, encoding=before.encoding, errors="backslashreplace")

    ended = False

    def end() -> None:
        nonlocal ended
        if not ended:
            ended = True
            os.write(2, END)

    try:
        yield end
    finally:
        sys.stderr.flush()
        sys.stderr = before  # loggers may hold the other one, so that it stays open
        end()
        os.dup2(real, 2)
        os.close(real)
        os.waitpid(reader, 0)
        os.environ.pop(LEVEL, None)


def _nothing() -> None:
    pass


def _read(source: int, target: int) -> NoReturn:
    """Pass lines on in this process until the mark of the end; without it, show what was kept off at last."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(source, 0)
    os.dup2(target, 1)
    # Standard output, and whatever else was inherited, must end with the command and not with this process.
    os.closerange(2, 256)
    last: collections.deque[bytes] = collections.deque(maxlen=KEPT)
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            if line.endswith(END):
                os.write(1, line.removesuffix(END) and line.removesuffix(END) + b"\n")
                os._exit(0)
            if LOG_LINE.match(line):
                last.append(line)
            else:
                os.write(1, line)
    for line in last:
        os.write(1, line)
    os._exit(0)
