"""Commands as forks of this process, which has imported TensorFlow and not used it: half a second each, watched."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fault_inputs import Case

LONGEST = 60.0
"""Seconds after which a command hangs: the slowest of a campaign needs ten."""
MEMORY = 6 << 30
"""Bytes that none of these small models can need."""


@dataclasses.dataclass
class Outcome:
    """The end of one command: its exit status (minus the signal that killed it), its output, why it was stopped."""

    case: Case
    status: int
    out: bytes
    err: str
    stopped: str = ""

    def fault(self, right: Mapping[str, bytes]) -> str:
        """A word for what is wrong with it; empty where nothing is. `right`: the output on pristine files."""
        if self.stopped:
            return self.stopped
        if "Traceback (most recent call last)" in self.err:
            return "traceback"
        if self.status < 0:
            return f"killed by signal {-self.status}"
        if self.status == 0:
            same = not self.case.right or without_times(self.out) == without_times(right[self.case.right])
            return "" if same else "wrong"
        return "" if any(mark in self.err.lower() for mark in ("error:", "error ", "usage:")) else "no message"


def without_times(out: bytes) -> bytes:
    """Output without the seconds that a command took."""
    return re.sub(rb'("?s(?:econds|entences)[a-z_ ]*"?:? +)[0-9.]+', rb"\1", out)


@dataclasses.dataclass
class _Child:
    case: Case
    process: int
    folder: pathlib.Path
    started: float
    stopped: str = ""


def import_everything() -> None:
    """Import the modules that each child needs, once; nothing of TensorFlow runs before the forks."""
    for name in (
        *("tensorflow", "keras", "sacrebleu", "sentencepiece", "matplotlib.pyplot", "rich.table", "rich.progress"),
        *("onnxruntime", "ai_edge_litert.interpreter", "keras_attention.cli", "keras_attention.translation.stream"),
        *("keras_attention.training", "keras_attention.export.console", "keras_attention.export.verifier"),
    ):
        __import__(name)


def run(cases: Iterable[Case], pristine: pathlib.Path, workers: int) -> Iterator[Outcome]:
    """Run each case in a folder of its own, a copy of `pristine` with the case's damage; outcomes as they come."""
    waiting, running = iter(cases), []
    done = False
    while running or not done:
        while not done and len(running) < workers:
            case = next(waiting, None)
            if case is None:
                done = True
            else:
                running.append(_start(case, pristine))
        time.sleep(0.01)
        for child in list(running):
            outcome = _ended(child)
            if outcome is not None:
                running.remove(child)
                shutil.rmtree(child.folder, ignore_errors=True)
                yield outcome


def _start(case: Case, pristine: pathlib.Path) -> _Child:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="faults"))
    shutil.copytree(pristine, folder / "work", copy_function=os.link)
    if case.damage is not None:
        case.damage(folder / "work")
    (folder / "in").write_bytes(case.stdin)
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        _become(case, folder)
    return _Child(case, process, folder, time.monotonic())


def _ended(child: _Child) -> Outcome | None:
    found, status = os.waitpid(child.process, os.WNOHANG)
    if not found:
        if time.monotonic() - child.started > LONGEST:
            child.stopped = "hang"
        elif _resident(child.process) > MEMORY:
            child.stopped = "memory"
        if child.stopped:
            os.killpg(child.process, signal.SIGKILL)
        return None
    out, err = ((child.folder / name).read_bytes() for name in ("out", "err"))
    return Outcome(child.case, os.waitstatus_to_exitcode(status), out, err.decode(errors="replace"), child.stopped)


def _resident(process: int) -> int:
    try:
        pages = pathlib.Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _become(case: Case, folder: pathlib.Path) -> None:
    """The rest of the child's life: the command, as a fresh interpreter would run it."""
    for number, (name, mode) in enumerate((("in", os.O_RDONLY), ("out", os.O_WRONLY), ("err", os.O_WRONLY))):
        os.dup2(os.open(folder / name, mode | (os.O_CREAT if number else 0), 0o600), number)
    os.chdir(folder / "work")
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", errors="surrogateescape", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    status: Any = 1
    try:
        _command(case.arguments)
        status = 0
    except SystemExit as end:
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        os._exit(status)


def _command(arguments: list[str]) -> None:
    sys.argv = arguments
    if arguments[0] == "keras-attention":
        from keras_attention.cli import app as cli

        cli.main()
    else:
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")
