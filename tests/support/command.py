"""Runs the command line in this process, where TensorFlow is loaded already."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from typing import Any

from keras_attention.cli import app as cli


@dataclasses.dataclass(frozen=True)
class Done:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


class _Stream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


def run_command(*arguments: Any, stdin: bytes = b"") -> Done:
    """`keras-attention ARGUMENTS < stdin`."""
    out, err = (_Stream(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = sys.argv, sys.stdin
    sys.argv = ["keras-attention", *(str(argument) for argument in arguments)]
    sys.stdin = _Stream(io.BytesIO(stdin), encoding="utf-8")
    status = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv, sys.stdin = before
    texts = [stream.buffer.getvalue().decode("utf-8") for stream in (out, err)]
    return Done(status, *texts)
