"""Tables on standard output, for people."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

UNBOUNDED = 100_000


def output_console() -> Console:
    """Standard output: as wide as a terminal is, and as wide as need be elsewhere, where nothing may be cut."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=UNBOUNDED)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Collection[str] = (),
    console: Console | None = None,
) -> None:
    """Print a table; on a terminal too narrow for it, cells go on below.

    Args:
        title: one line above it.
        columns: headings, which may be wrapped.
        rows: a text for each column.
        right: headings of the columns that end on the right: numbers.
        console: where to, `output_console()` if None.
    """
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        # Headings wrap, values do not.
        width = max((len(row[number]) for row in rows), default=0)
        table.add_column(column, min_width=width, overflow="fold", justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escaped(cell) for cell in row))
    console = console or output_console()
    console.print(title, markup=False, soft_wrap=True)
    console.print(table)


def escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
