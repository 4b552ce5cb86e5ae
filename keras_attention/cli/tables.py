"""Tables on standard output, for people."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
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
    """Print a table; on a terminal too narrow for it, a line for each value.

    Args:
        title: one line above it.
        columns: headings, which may be wrapped.
        rows: a text for each column.
        right: headings of the columns that end on the right: numbers.
        console: where to, `output_console()` if None.
    """
    console = console or output_console()
    console.print(title, markup=False, soft_wrap=True)
    widths = [max((len(row[number]) for row in rows), default=0) for number in range(len(columns))]
    words = [max(map(len, column.split())) for column in columns]
    if sum(map(max, widths, words)) + 2 * len(columns) + 2 > console.width:
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                console.print(f"  {column}: {cell}", markup=False, soft_wrap=True)
            console.print()
        return
    table = Table(box=SIMPLE, pad_edge=False, collapse_padding=True)
    for column, width in zip(columns, widths, strict=True):
        # Headings wrap, values do not.
        table.add_column(column, min_width=width, overflow="fold", justify="right" if column in right else "left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
