"""Lines of UTF-8 text from files and streams, with messages that name file and line."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator

from keras_attention.errors import UserError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: str | pathlib.Path) -> list[str]:
    r"""Return the lines of a UTF-8 file, without line ends (\n or \r\n) and without a byte order mark.

    Raises UserError, naming file and line, for a file that is missing, empty or not UTF-8.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Expected a UTF-8 text file, one sentence per line") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}. Expected a UTF-8 text file") from error
    if not content.removeprefix(BYTE_ORDER_MARK).strip():
        raise UserError(f"{path}: the file is empty. Expected one sentence per line")
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return list(decode_lines(lines, str(path)))


def read_parallel_lines(first: str | pathlib.Path, *others: str | pathlib.Path) -> list[list[str]]:
    """Return the lines of parallel files.

    Raises UserError where a file's number of lines differs from the first's, and as `read_lines`.
    """
    texts = [read_lines(path) for path in (first, *others)]
    count = len(texts[0])
    for other, lines in zip(others, texts[1:], strict=True):
        if len(lines) != count:
            raise UserError(
                f"{first} and {other} are not parallel. Expected as many lines in both. "
                f"Received: {count} lines and {len(lines)} lines; line {min(count, len(lines)) + 1} "
                f"has no partner in {first if count < len(lines) else other}"
            )
    return texts


def decode_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode lines of bytes one by one. Raises UserError with file and line at a byte that is not UTF-8."""
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        try:
            yield line.rstrip(b"\r\n").decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}:{number}: not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}). "
                "Expected UTF-8 text. Convert it, for example: iconv -f LATIN1 -t UTF-8"
            ) from error
