"""Child processes that end with their parent, however it ends.

A child is a Python process started through this file, which ties it to its parent before it imports anything else:

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
    """Return the command of a child equivalent to `python ARGUMENTS`."""
    return [sys.executable, "-P", __file__, str(os.getpid()), *arguments]


def run(arguments: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[Any]":
    """Run `subprocess.run([sys.executable, *arguments], capture_output=True, **options)` as such a child."""
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
    """Kill every child, because this process is about to end and its threads wait for them."""
    for process in list(_running):
        process.kill()


def tie_to(parent: int) -> None:
    """Make this process end when its parent does.

    On Linux the kernel does it, even during native code of a converter; elsewhere a thread polls each second.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if not _lives(parent):  # the parent ended before the request
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
