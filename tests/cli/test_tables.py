"""Tables for people: nothing of them is cut, wherever they go."""

import io
import re

import pytest
import rich.console

from keras_attention.cli import tables

COLUMNS = ["runtime and where it runs", "sentences a second, one at a time", "size"]
ROWS = [
    ["tflite, " + "translate" * 9, "123.4 (batch 16)", "1.2 MB"],
    ["onnx [int8]", "5678.9 (batch 8)", "345 kB"],
]


def test_a_pipe_gets_each_row_on_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    tables.print_table("a title" * 30, COLUMNS, ROWS, right=["size"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[0] == "a title" * 30
    assert re.split(r" {2,}", lines[1].strip()) == COLUMNS
    assert [re.split(r" {2,}", line.strip()) for line in lines[3:]] == ROWS


@pytest.mark.parametrize("width", [140, 80, 40])
def test_a_terminal_gets_all_of_it(width: int) -> None:
    out = io.StringIO()
    console = rich.console.Console(file=out, width=width, force_terminal=True, no_color=True)
    tables.print_table("title", COLUMNS, ROWS, console=console)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "…" not in text
    for word in " ".join(["title", *COLUMNS, *ROWS[0], *ROWS[1]]).split():
        assert word in text, word
