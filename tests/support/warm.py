"""Child processes in half a second: forks of a server that has imported TensorFlow, but nothing of this project.

`run` takes the arguments of a Python command and gives what `subprocess.run` would; `shims` is a folder for PATH in
which `keras-attention` is such a child. Each is a process of its own, with its own working folder, environment and
streams. tensorflow_text is not imported beforehand: whether a program imports it itself is what some tests ask.
"""

from __future__ import annotations

import atexit
import functools
import importlib.metadata
import json
import os
import pathlib
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = "keras-attention"
IMPORTED = (
    *("tensorflow", "keras", "numpy", "rich", "typer", "matplotlib.pyplot", "sacrebleu", "sentencepiece"),
    *("onnx", "tf2onnx", "onnxruntime", "ai_edge_litert.interpreter"),
)


@functools.cache
def server() -> str:
    """The socket of this process's server, which starts with the first call and ends with the process."""
    folder = tempfile.TemporaryDirectory(prefix="warm")
    path = os.path.join(folder.name, "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        command = [sys.executable, "-m", "tests.support.warm", "serve", str(listening.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listening.fileno()], stdin=subprocess.DEVNULL)
    atexit.register(folder.cleanup)
    atexit.register(process.kill)
    return path


def run(arguments: list[Any], **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run([sys.executable, *arguments], **options)`, in a warm child if the backend is TensorFlow.

    JAX and PyTorch start threads when they are imported, which a fork loses.
    """
    start = client() if os.environ["KERAS_BACKEND"] == "tensorflow" else [sys.executable]
    return subprocess.run([*start, *map(str, arguments)], **options)


def client() -> list[str]:
    return [sys.executable, "-I", "-S", __file__, "connect", server()]


def shims(folder: pathlib.Path) -> pathlib.Path:
    """Write the commands for PATH into a folder."""
    script = folder / SCRIPT
    script.write_text(f'#!/bin/sh\nexec {shlex.join(client())} {SCRIPT} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


def connect(path: str, arguments: list[str]) -> int:
    """Have the server run a command with this process's streams, folder and environment."""
    request = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        status = int(connection.makefile().read() or "-9")
    if status < 0:
        os.kill(os.getpid(), -status)
    return status


def serve(listening: socket.socket) -> None:
    """Fork for each connection, until this process is killed."""
    for name in IMPORTED:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    parent = os.getppid()
    listening.settimeout(1.0)
    while os.getppid() == parent:
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            connection.setblocking(True)
            answer(connection)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run one request in a child of this process, and send its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, *_ = socket.recv_fds(connection, 8, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os._exit(execute(**request))
    _, status = os.waitpid(child, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def execute(arguments: list[str], folder: str, environment: dict[str, str]) -> int:
    """Run a command as a fresh interpreter would; its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.path[0] = folder
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    status = 0
    try:
        start(arguments)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
    except OSError:
        status = 120  # CPython's own for a stream that cannot be flushed
    return status


def start(arguments: list[str]) -> None:
    first, *rest = arguments
    if first == SCRIPT:
        sys.argv = arguments
        (entry,) = importlib.metadata.entry_points(group="console_scripts", name=SCRIPT)
        sys.exit(entry.load()())
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(first))
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        sys.exit(connect(sys.argv[2], sys.argv[3:]))
    serve(socket.socket(fileno=int(sys.argv[2])))
