"""Child processes that end with their parent, however it ends.

A child is Python, begun by this file, which imports nothing of this package before it has tied the child to its parent:

    python -P child_process.py PARENT -m MODULE | -c PROGRAM | FILE ARGUMENTS...
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

SET_PARENT_DEATH_SIGNAL = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl."""
POLLING_SECONDS = 1.0

_running: set["subprocess.Popen[Any]"] = set()


def command(arguments: Sequence[str]) -> list[str]:
    """The command of a child that does what `python ARGUMENTS` does."""
    return [sys.executable, "-P", __file__, str(os.getpid()), *arguments]


def run(arguments: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Do what `subprocess.run([sys.executable, *arguments], capture_output=True, **options)` does, by such a child."""
    content = options.pop("input", None)
    given = subprocess.DEVNULL if content is None else subprocess.PIPE
    with subprocess.Popen(
        command(arguments), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        _running.add(process)
        try:
            out, err = process.communicate(content)
        except BaseException:
            process.kill()
            raise
        finally:
            _running.discard(process)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def end_all() -> None:
    """Kill every child: this process is about to end, and threads wait for them."""
    for process in list(_running):
        process.kill()


def tie_to(parent: int) -> None:
    """Have this process end when its parent does.

    Linux does it, even in the middle of a converter's own code; elsewhere a thread looks each second.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if not _lives(parent):  # it ended before that
        os._exit(1)


def _watch(parent: int) -> None:
    while _lives(parent):
        time.sleep(POLLING_SECONDS)
    os._exit(1)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main(arguments: Sequence[str]) -> None:
    parent, first, *rest = arguments
    tie_to(int(parent))
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, *rest]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
