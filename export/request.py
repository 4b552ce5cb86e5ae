"""An export request: model, search, samples and precision."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import Tokenizer

from .checks import check_both_ways, check_references
from .members import open_members
from .parity.quality import Task


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `export` that formats read."""

    model: Any
    settings: SearchPolicy
    tokenizers: tuple[Tokenizer, Tokenizer] | None
    samples: Sequence[Any] | None
    references: Sequence[Any] | None
    """Accepted outputs of each sample."""
    task: Task
    precision: str
    text: bool
    """Whether formats that can do so write a second file that takes sentences."""
    source_length: int
    """Maximum number of source tokens, EOS counted, of formats with graphs of static shapes."""
    calibration: Sequence[Any] | None
    members: Sequence[Any] = ()
    """Runs or models of an ensemble; a single one without an ensemble."""


def open_request(request: Request, combination: str) -> Request:
    """Open the run or the members of a request, and fill in what was not given from a run.

    Raises:
        UserError: for a run that cannot be read, members that form no ensemble, references that do not match.
    """
    model, tokenizers, samples, references = request.model, request.tokenizers, request.samples, request.references
    task = request.task
    if isinstance(model, (str, os.PathLike)):
        model = RunDirectory.open(os.fspath(model))
    several = isinstance(model, (list, tuple)) and model
    members, ensemble = open_members(model, combination) if several else ([model], None)
    check_both_ways(request.settings, members)
    model = members[0] if ensemble is None else ensemble
    run = members[0]
    if isinstance(run, RunDirectory):
        tokenizers = (run.source_tokenizer, run.target_tokenizer)
        if samples is None:
            samples = run.samples()
            if references is None and request.precision != "float32":
                references = run.references()
        task = dataclasses.replace(task, name=run.task, tokenize=run.tokenization)
        model = run.load_model() if ensemble is None else ensemble
    return dataclasses.replace(
        request,
        model=model,
        tokenizers=tokenizers,
        samples=samples,
        references=check_references(references, samples),
        task=task,
        members=members,
    )
