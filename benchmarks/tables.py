"""What the scripts here share: CSV logs, and tables put into a page between two marks."""

from __future__ import annotations

import argparse
import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Options `--output` and `--into`."""
    parser.add_argument("--output", type=pathlib.Path, metavar="PREFIX", help="write PREFIX.csv")
    parser.add_argument("--into", type=pathlib.Path, metavar="PAGE", help="put the table into this Markdown page")


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def report(options: argparse.Namespace, name: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table, put it into the page `--into`, and write the rows behind it to `--output`.csv."""
    print(table)
    if options.output is not None:
        write_csv(options.output.with_suffix(".csv"), rows)
    if options.into is not None:
        put(options.into, name, table)


def put(page: pathlib.Path, name: str, table: str) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in a page."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(first)
    _, ended, after = rest.partition(last)
    if not found or not ended:
        raise SystemExit(f"error: {page} has no place for the table. Expected the lines {first} and {last}")
    page.write_text(f"{before}{first}\n\n{table}\n\n{last}{after}", encoding="utf-8")
