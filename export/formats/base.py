"""Contract of an export format: its contents, limits, conversion, and interpreters."""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from keras_attention.text.tokenizers import Tokenizer

from .. import runtime
from ..parity.cases import Case, Reference
from ..parity.parity import Parity
from ..parity.structure import Ports
from ..plan import Plan
from ..request import Request

Progress = Callable[[str], None]


class Backend(Protocol):
    """An interpreter of one format."""

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]: ...


class TextReader(Protocol):
    """An interpreter of a file that reads sentences; each sentence's texts are best first."""

    def run(self, sentences: Sequence[str]) -> list[list[str]]: ...


@dataclasses.dataclass
class Conversion:
    """One artefact during conversion."""

    plan: Plan
    request: Request
    stage: pathlib.Path
    """Folder of the artefact."""
    work: pathlib.Path
    """Folder for intermediate files."""
    say: Progress
    start: Callable[..., None]
    """Starts a converter in the background, as `start(function, *arguments)`."""
    manifest: dict[str, Any]
    layers: pathlib.Path | None = None
    """A SavedModel of only the plan's graphs, once a format has written one that others may read."""


@dataclasses.dataclass
class Contents:
    """The contents of a format's files, as structure verification reads them."""

    operators: dict[str, Any]
    signatures: dict[str, Ports] | None = None
    """Signatures to compare with those of the manifest; None if the files hold others."""
    failures: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    runnable: bool = True
    """Whether the files may be given to an interpreter."""


class Format(abc.ABC):
    """A format of an artefact.

    Attributes:
        name: key in manifests, value of `to`.
        aliases: other names that `to` takes.
        precisions: precisions that its files support.
        interpreter: the interpreter's name in tables.
        by_default: whether it is exported if no format is named.
        static: whether graphs have a source length fixed at export.
        names_axes: whether its files hold the names of axes.
        text_file: path of the file that reads sentences; None without such an option.
        order: formats with a lower number are converted first.
    """

    name: str
    aliases: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    interpreter: str
    by_default: bool = True
    static: bool = False
    names_axes: bool = False
    text_file: str | None = None
    order: int = 2

    def check(self, request: Request) -> None:  # noqa: B027  optional
        """Raise `UserError` for a model or a search that the format does not support, before any work."""

    def check_tokenizers(self, tokenizers: tuple[Tokenizer, Tokenizer] | None) -> None:  # noqa: B027  optional
        """Raise `UserError` for tokenizers that `text_file` does not support."""

    def warnings(self, output: pathlib.Path) -> list[str]:
        """Return warnings about the path that the artefact is published to."""
        return []

    @abc.abstractmethod
    def describe(self, plan: Plan, request: Request) -> dict[str, Any]:
        """Return the format's entry in the manifest: `file`, `files` or `folder`, and `signatures`."""

    @abc.abstractmethod
    def convert(self, conversion: Conversion) -> None:
        """Write the files of the entry; converters may continue in the background."""

    def finish(self, conversion: Conversion) -> None:  # noqa: B027  optional
        """Write files derived from converted ones, when all background converters have ended."""

    @abc.abstractmethod
    def contents(self, directory: pathlib.Path, manifest: Mapping[str, Any]) -> Contents:
        """Read the signatures and operators of the files."""

    def open(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None = None) -> Backend:
        """Open the files in the standalone runtime's first interpreter of the format."""
        first = next(one for one in runtime.BACKENDS.values() if one.format == self.name)
        opened: Backend = first(directory, manifest, threads)
        return opened

    def open_text(self, path: pathlib.Path) -> tuple[TextReader | None, list[str]]:
        """Open the file that reads sentences; None, and the failures, if it cannot be run."""
        raise NotImplementedError(f"{self.name} has no file that reads sentences")

    def compares(self, case: Case) -> bool:
        """Return whether the format's files can run a case."""
        return True

    def try_out(  # noqa: B027  optional
        self, directory: pathlib.Path, manifest: Mapping[str, Any], backend: Any, cases: Reference, parity: Parity
    ) -> None:
        """Verify guarantees of this format only, after every comparison with Keras has passed."""

    @abc.abstractmethod
    def summary(self, operators: Mapping[str, Any]) -> str:
        """Return a short summary of the operators, for the report's table."""

    def operator_counts(self, operators: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
        """Return operator counts for the report, by a title for each list."""
        return {f"{self.name} {graph}": counts for graph, counts in operators.items()}


def graph_names(plan: Plan) -> list[str]:
    return [graph.name for graph in plan.graphs]
