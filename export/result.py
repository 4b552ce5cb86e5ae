"""The result of `export`."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from .integrity import files_of
from .parity.parity import Parity
from .report.benchmark import Latency
from .report.report import Report


@dataclasses.dataclass(frozen=True)
class ExportResult(os.PathLike[str]):
    """A verified artefact directory; usable wherever its path is expected.

    Attributes:
        path: the directory.
        formats: the paths of each format's files: one file, the folder of a SavedModel, or one file for each graph.
        report: results of verification and measurement, as in the directory's `report.json`.
    """

    path: pathlib.Path
    formats: Mapping[str, tuple[pathlib.Path, ...]]
    report: Report

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    @property
    def parities(self) -> list[Parity]:
        """The comparison of each format with Keras."""
        return self.report.parities

    @property
    def latencies(self) -> list[Latency]:
        """Size and latency of each format."""
        return self.report.latencies

    @property
    def warnings(self) -> list[str]:
        """The warnings of the report."""
        return self.report.warnings


def result(output: pathlib.Path, manifest: Mapping[str, Any], report: Report) -> ExportResult:
    """Return the result of an export to `output`."""
    formats = {}
    for name, entry in manifest["formats"].items():
        names = [entry["folder"]] if "folder" in entry else files_of(entry)
        formats[name] = tuple(output / one for one in names)
    return ExportResult(output, formats, report)
