"""Files of an artefact: those of every format, the tokenizers, the runtimes, and the manifest."""

import pathlib
from collections.abc import Sequence
from typing import Any

from .. import manifest as artefact
from .. import runtime
from ..plan import Plan
from ..request import Request
from . import converter
from .base import Conversion, Format, Progress
from .runtime_copy import copy_runtime


def begin_manifest(plan: Plan, request: Request, formats: Sequence[Format], stage: pathlib.Path) -> dict[str, Any]:
    """Return the manifest without its files; writes the tokenizers and the runtime of a translator."""
    graphs = list(plan.graphs)
    manifest: dict[str, Any] = {
        "format_version": runtime.FORMAT_VERSION,
        "kind": "model" if plan.net is None else "translator",
        "precision": request.precision,
        "versions": artefact.versions(),
        "formats": {one.name: one.describe(plan, request) for one in formats},
        "signatures": {graph.name: graph.to_dict() for graph in graphs},
    }
    if plan.net is not None:
        files = {}
        for side, tokenizer in zip(("source", "target"), plan.tokenizers or (), strict=False):
            files[side] = tokenizer.save(stage, side)
        manifest |= artefact.describe_translator(plan.net, graphs, plan.settings, plan.tokenizers, files)
        copy_runtime(stage, [one.name for one in formats])
    return manifest


def convert(
    plan: Plan,
    request: Request,
    formats: Sequence[Format],
    stage: pathlib.Path,
    work: pathlib.Path,
    say: Progress,
) -> dict[str, Any]:
    """Write the files of every format, the tokenizers and the runtime; returns the complete manifest."""
    manifest = begin_manifest(plan, request, formats, stage)
    ordered = sorted(formats, key=lambda one: one.order)
    with converter.background() as start:
        conversion = Conversion(plan, request, stage, work, say, start, manifest)
        for one in ordered:
            one.convert(conversion)
    for one in ordered:
        one.finish(conversion)
    return artefact.complete(manifest, stage)
