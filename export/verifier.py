"""Verification of an artefact against Keras: files, names, dtypes, axes, operators, values, tokens.

A float32 artefact generates the same tokens as Keras, by the float rule of `parity.compare`.

An artefact of lower precision gives other numbers, and sometimes other tokens: these are counted. It fails for a
loss of the task's score above the limit (`quality`), an output of another name, shape or dtype, or a NaN.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError

from . import integrity, runtime
from .errors import NOT_VERIFIED, VerificationError
from .formats.base import Format
from .formats.table import by_name
from .parity import cases as reference
from .parity.cases import Case, Reference
from .parity.compare import best, compare_tokens, compare_values, described
from .parity.parity import Parity
from .parity.quality import measure
from .parity.structure import differences
from .parity.text import check_text, check_text_file
from .parity.tolerances import LARGEST_SHARE

HOST_LOOP_SENTENCES = 20
"""Sentences that the runtime also searches step by step on the host; more where knobs are changed."""
REFERENCE_FILE = "verification.npz"


def verify(directory: str | pathlib.Path, progress: Callable[[str], None] | None = None) -> list[Parity]:
    """Verify an artefact directory against the cases in it.

    Args:
        directory: result of `export`.
        progress: called with a description of each step.

    Returns:
        One `Parity` for each format.

    Raises:
        VerificationError: with every difference found.
        UserError: if the directory is no artefact, a file is missing, truncated or edited, or a runtime not installed.
    """
    directory = pathlib.Path(directory)
    try:
        manifest = runtime.read_manifest(directory)
        for name in manifest["files"]:
            runtime.check_file(directory, manifest, name)
        cases = reference.load(runtime.check_file(directory, manifest, REFERENCE_FILE))
        if failures := integrity.differences(directory, manifest, cases):
            raise VerificationError(failures)
        return compare(directory, manifest, cases, progress)
    except VerificationError as error:
        raise VerificationError(error.failures, NOT_VERIFIED) from None
    except runtime.ArtefactError as error:  # also for a runtime that is not installed
        raise UserError(str(error)) from None


def compare(
    directory: pathlib.Path,
    manifest: Mapping[str, Any],
    cases: Reference,
    progress: Callable[[str], None] | None = None,
) -> list[Parity]:
    """Compare every format of an artefact with the cases.

    Raises:
        VerificationError: with every difference found in any format.
    """
    parities = []
    for name in manifest["formats"]:
        if progress:
            progress(f"verifying {name}")
        parities.append(compare_format(by_name(name), directory, manifest, cases))
    failures = [failure for parity in parities for failure in parity.failures]
    if failures:
        raise VerificationError(failures)
    return parities


def compare_format(format_: Format, directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference) -> Parity:
    """Compare one format of an artefact with the cases."""
    parity, entry = Parity(format_.name), manifest["formats"][format_.name]
    if not check_structure(format_, directory, manifest, parity):
        return parity
    backend = format_.open(directory, manifest)
    pairs = [(case, format_.compares(case)) for case in cases.cases]
    found = [check_case(backend, manifest, case, parity) if asked else {} for case, asked in pairs]
    if manifest["kind"] == "translator":
        check_host_loop(backend, manifest, cases, parity)
        if manifest["precision"] != "float32" and not parity.failures:
            check_loss(directory, manifest, cases, found, parity)
        if "text_file" in entry:
            check_text_file(format_, directory, manifest, cases, found, parity)
        if "translate_text" in entry["signatures"]:
            check_text(backend, directory, manifest, cases, parity)
    if not parity.failures:
        format_.try_out(directory, manifest, backend, cases, parity)
    return parity


def check_structure(format_: Format, directory: pathlib.Path, manifest: Mapping[str, Any], parity: Parity) -> bool:
    """Check names, dtypes, axes and operators; returns whether the files can be run."""
    contents, entry = format_.contents(directory, manifest), manifest["formats"][format_.name]
    parity.operators = contents.operators
    parity.failures += contents.failures
    parity.warnings += contents.warnings
    received = contents.signatures
    if received is None:
        return contents.runnable
    expected = {name: ports for name, ports in manifest["signatures"].items() if name in entry["signatures"]}
    if set(expected) != set(received):
        parity.failures.append(
            f"{format_.name}: signatures. Expected: {sorted(expected)}. Received: {sorted(received)}"
        )
    for name in set(expected) & set(received):
        where = f"{format_.name} {name}"
        parity.failures += differences(where, expected[name], received[name], format_.names_axes)
    return contents.runnable


def check_case(backend: Any, manifest: Mapping[str, Any], case: Case, parity: Parity) -> dict[str, np.ndarray]:
    """Check one call: shapes, dtypes, values; for a search also the tokens, by the float rule. Returns the outputs."""
    where = f"{parity.format} {case.graph} {'x'.join(map(str, next(iter(case.inputs.values())).shape))}"
    parity.cases += 1
    try:
        if case.graph == "translate":
            outputs = runtime.run_translate(backend, manifest, case.inputs)
        else:
            outputs = backend.run(case.graph, case.inputs)
    except Exception as error:  # interpreters raise any type; each error becomes one failure among the others
        parity.failures.append(f"{where}: it does not run: {str(error).strip().splitlines()[0][:300]}")
        return {}
    wrong = [
        f"{where}: {name}. Expected: {described(value)}. Received: {described(outputs.get(name))}"
        for name, value in case.outputs.items()
        if described(outputs.get(name)) != described(value)
    ]
    if wrong:
        parity.failures += wrong
        return {}
    precision = manifest["precision"]
    exact = precision == "float32"
    rows, share = None, LARGEST_SHARE.get(precision)
    if case.margins is not None:
        rows, share = compare_tokens(where, case, outputs, parity, exact), None
    for name, expected in case.outputs.items():
        received = outputs[name]
        if rows is not None:
            expected, received = expected[rows], received[rows]
        compare_values(where, case.graph, name, expected, received, parity, exact, share)
    return dict(outputs)


def check_host_loop(backend: Any, manifest: Mapping[str, Any], cases: Reference, parity: Parity) -> None:
    """Check that the runtime's host loop over `encode` and `decode_step` finds Keras' tokens, if it can.

    A format without another search has been checked by its cases. A search that stops early has the best
    hypothesis of one that does not, and is compared with that one.
    """
    if not runtime.has_translate(backend, manifest):
        parity.host_loop_sentences, parity.host_loop_identical = parity.sentences, parity.identical
        return
    slots = slice(1) if manifest["search"]["stop"] == "best" else slice(None)
    manifest = {**manifest, "search": {**manifest["search"], "stop": "all"}}
    if runtime.only_in_graph(manifest):
        return
    for case in cases.of("translate"):
        if case.counted and parity.host_loop_sentences >= HOST_LOOP_SENTENCES:
            continue
        source = next(case.inputs[name] for name in ("source_ids", "source_features") if name in case.inputs)
        knobs = {name: case.inputs[name] for name in manifest["knobs"]}
        try:
            outputs = runtime.search_on_host(backend, manifest, source, manifest["beam_size"], knobs)
        except Exception as error:  # as in `check_case`
            parity.failures.append(f"{parity.format} host loop: it does not run: {str(error).strip()[:300]}")
            return
        width = outputs["ids"].shape[-1]  # the longest row's maximum length: all later positions are padding
        cut = {"ids", "alignments"}
        expected = {name: value[:, :, :width] if name in cut else value for name, value in case.outputs.items()}
        expected, outputs = ({name: one[:, slots] for name, one in side.items()} for side in (expected, outputs))
        counted = Parity(parity.format)
        where = f"{parity.format} host loop {source.shape[0]}x{source.shape[1]}"
        exact = manifest["precision"] == "float32"
        rows = compare_tokens(where, dataclasses.replace(case, outputs=expected), outputs, counted, exact)
        for name in expected.keys() & outputs.keys():
            compare_values(where, "translate", name, expected[name][rows], outputs[name][rows], counted, exact)
        parity.failures += counted.failures
        parity.host_loop_sentences += counted.sentences
        parity.host_loop_identical += counted.identical


def check_loss(
    directory: pathlib.Path,
    manifest: Mapping[str, Any],
    cases: Reference,
    found: Sequence[Mapping[str, np.ndarray]],
    parity: Parity,
) -> None:
    """Measure the loss of a lower precision, over all searches at the defaults; above the limit it fails."""
    searched = [(case.outputs, outputs) for case, outputs in cases.searched(found)]
    sides = [
        [best(outputs, row) for pair in searched for outputs in [pair[side]] for row in range(len(outputs["ids"]))]
        for side in (0, 1)
    ]
    texts: Any = None
    if "target" in manifest["tokenizers"]:
        source, target = (
            runtime.Tokenizer(directory / manifest["tokenizers"][side]["file"], manifest["special_ids"])
            for side in ("source", "target")
        )
        most = manifest.get("copy_words", 0)
        copied = [source.copied(sentence, most) for sentence in cases.sentences] or [[]] * len(sides[0])
        texts = tuple([target.decode(*both) for both in zip(ids, copied, strict=True)] for ids in sides)
    parity.loss = loss = measure(sides[0], sides[1], texts, cases.references, cases.task)
    if not loss.metric:
        parity.warnings.append(
            f"{parity.format}: no references were given, so that the loss of the task's score was not measured"
        )
    elif not loss.points <= cases.task.limit:
        parity.failures.append(
            f"{parity.format} translate: {manifest['precision']} loses too much. Expected: at most "
            f"{cases.task.limit:g} points of {loss.metric}. Received: {loss.points:.2f} ({loss})"
        )
