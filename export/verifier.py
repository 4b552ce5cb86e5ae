"""Hold an artefact against what Keras computed: files, names, dtypes, axes, operators, values, tokens.

The float rule: a float32 artefact gives the same tokens as Keras, except in a sentence whose search came to a margin
below `tolerances.NEAR_TIE`, at some step between a candidate that was kept and one that was dropped, or at the end
between neighbours of the ranking. Such sentences are counted and shown; any other difference fails.

An artefact of lower precision gives other numbers, and other tokens now and then: these are counted, and what fails it
is a loss of the task's score above the limit (`quality`), or an output of another name, shape or type, or a NaN.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError

from . import integrity, runtime
from .errors import NOT_VERIFIED, VerificationError
from .formats.backends import SavedModel, open_backend
from .formats.to_npu import verify_npu as npu_verification
from .parity import cases as reference
from .parity import structure
from .parity.cases import Case, Reference
from .parity.parity import Parity
from .parity.quality import measure
from .parity.text import check_text, check_text_file
from .parity.tolerances import LARGEST_SHARE, NEAR_TIE, SMALL_OUTPUT, Tolerance, tolerance

HOST_LOOP_SENTENCES = 20
"""Sentences that the runtime also searches step by step on the host; more where knobs are turned."""
REFERENCE_FILE = "verification.npz"


def verify(directory: str | pathlib.Path, progress: Callable[[str], None] | None = None) -> list[Parity]:
    """Verify an artefact directory against the cases that lie in it.

    Args:
        directory: what `export` wrote.
        progress: told what is being done.

    Returns:
        One `Parity` for each format.

    Raises:
        VerificationError: with every difference found.
        UserError: if the directory is no artefact, a file of it is missing, cut or edited, or a runtime not installed.
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
    except runtime.ArtefactError as error:  # one of its runtimes is not installed, too
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
    for format_ in manifest["formats"]:
        if progress:
            progress(f"verifying {format_}")
        parity = Parity(format_)
        parities.append(parity)
        if format_ == "npu":
            check_npu(directory, manifest, cases, parity)
            continue
        check_structure(directory, manifest, parity)
        backend = open_backend(directory, manifest, format_)
        found = [check_case(backend, manifest, case, parity) for case in cases.cases]
        if manifest["kind"] == "translator":
            check_host_loop(backend, manifest, cases, parity)
            if manifest["precision"] != "float32" and not parity.failures:
                check_loss(directory, manifest, cases, found, parity)
            if "text_file" in manifest["formats"][format_]:
                check_text_file(directory, manifest, cases, found, parity)
            if format_ == "saved_model" and "translate_text" in manifest["signatures"]:
                check_text(backend, directory, manifest, cases, parity)
    failures = [failure for parity in parities for failure in parity.failures]
    if failures:
        raise VerificationError(failures)
    return parities


def check_npu(directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference, parity: Parity) -> None:
    """The int8 files of the NPU target: what is in them, and what their translations cost."""
    npu_verification.check_structure(directory, manifest, parity)
    backend = runtime.BACKENDS["npu"](directory, manifest, None)
    npu_verification.check_types(backend, parity)
    if parity.failures:
        return
    # Single graphs are of other shapes there, and a search for each turned knob takes long.
    asked = [case.margins is not None and case.counted for case in cases.cases]
    pairs = zip(cases.cases, asked, strict=True)
    found = [check_case(backend, manifest, case, parity) if ask else {} for case, ask in pairs]
    check_host_loop(backend, manifest, cases, parity)
    npu_verification.check_reset(backend, cases, parity)
    if parity.failures:
        return
    check_loss(directory, manifest, cases, found, parity)
    npu_verification.try_tools(directory, manifest, cases, parity)


def check_structure(directory: pathlib.Path, manifest: Mapping[str, Any], parity: Parity) -> None:
    """Names, dtypes, axes and operators."""
    format_, entry, configs = parity.format, manifest["formats"][parity.format], manifest.get("members", [])
    expected = {name: ports for name, ports in manifest["signatures"].items() if name in entry["signatures"]}
    received: dict[str, Any] = {}
    if format_ == "tflite":
        received = structure.tflite_signatures(directory / entry["file"])
        parity.operators = structure.tflite_operators(directory / entry["file"])
        parity.failures += structure.tflite_operator_failures(parity.operators)
    elif format_ == "onnx":
        import onnx

        for name, file in entry["files"].items():
            model = onnx.load(str(directory / file))
            onnx.checker.check_model(model, full_check=True)
            received[name] = structure.onnx_signature(model)
            parity.operators[name] = structure.onnx_operators(model)
            parity.failures += structure.onnx_operator_failures(
                name, parity.operators[name], configs, manifest["precision"]
            )
        if parity.operators.get("encode", {}).get("Loop"):
            parity.warnings.append(
                "onnx: `encode` holds a Loop (an LSTM with layer normalisation, or a copy bridge over features): slow, "
                "and not every ONNX runtime has it"
            )
    else:
        received = structure.saved_model_signatures(SavedModel(directory / entry["folder"]).loaded)
        received.pop("serving_default", None)
    if set(expected) != set(received):
        parity.failures.append(f"{format_}: signatures. Expected: {sorted(expected)}. Received: {sorted(received)}")
    for name in set(expected) & set(received):
        parity.failures += structure.differences(f"{format_} {name}", expected[name], received[name], format_ == "onnx")


def check_case(backend: Any, manifest: Mapping[str, Any], case: Case, parity: Parity) -> dict[str, np.ndarray]:
    """One call: shapes, dtypes, values; for a search also the tokens, by the float rule. Returns the outputs."""
    where = f"{parity.format} {case.graph} {'x'.join(map(str, next(iter(case.inputs.values())).shape))}"
    parity.cases += 1
    try:
        if case.graph == "translate":
            outputs = runtime.run_translate(backend, manifest, case.inputs)
        else:
            outputs = backend.run(case.graph, case.inputs)
    except Exception as error:  # the interpreters raise whatever they like; each becomes one failure among the others
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


def described(value: np.ndarray | None) -> str:
    return "nothing" if value is None else f"{value.dtype} {value.shape}"


def compare_tokens(
    where: str, case: Case, outputs: Mapping[str, np.ndarray], parity: Parity, exact: bool = True
) -> np.ndarray:
    """Count equal sentences and near-ties; any other difference fails, where tokens must be exact.

    Returns the rows whose tokens are equal.
    """
    assert case.margins is not None
    same = (outputs["ids"] == case.outputs["ids"]).all((1, 2)) & (outputs["lengths"] == case.outputs["lengths"]).all(1)
    near = case.margins < NEAR_TIE
    if case.counted:
        parity.sentences += len(same)
        parity.identical += int(same.sum())
        parity.near_ties += int((~same & near).sum())
    for row in np.flatnonzero(~same & ~near).tolist() if exact else ():
        parity.failures.append(
            f"{where}: tokens of row {row}, margin {case.margins[row]:.2g}. Expected: {best(case.outputs, row)}. "
            f"Received: {best(outputs, row)}"
        )
    return np.asarray(same)


def best(outputs: Mapping[str, np.ndarray], row: int) -> list[int]:
    return [int(i) for i in outputs["ids"][row, 0, : outputs["lengths"][row, 0]]]


def compare_values(
    where: str,
    graph: str,
    name: str,
    expected: np.ndarray,
    received: np.ndarray,
    parity: Parity,
    exact: bool = True,
    share: float | None = None,
) -> None:
    """Floats within their tolerance, infinities in the same places; anything else exactly.

    Where values need not be exact, a NaN fails, an infinity in place of a number, and a difference above a share of the
    largest number, where one is given.
    """
    if not expected.size:
        return
    if expected.dtype.kind != "f":
        if exact and not np.array_equal(expected, received):
            parity.failures.append(f"{where}: {name}. Expected: the same values. Received: other ones")
        return
    finite = np.isfinite(expected)
    if not exact:
        if np.isnan(received).any():
            parity.failures.append(f"{where}: {name}. Expected: numbers. Received: NaN")
        elif np.isinf(received[finite]).any():
            parity.failures.append(f"{where}: {name}. Expected: finite numbers. Received: infinite ones")
        finite &= np.isfinite(received)
    elif not np.array_equal(finite, np.isfinite(received)) or not np.array_equal(expected[~finite], received[~finite]):
        parity.failures.append(f"{where}: {name}. Expected: the same finite values. Received: others, or NaN")
        return
    difference = np.abs(expected[finite].astype(np.float64) - received[finite].astype(np.float64))
    allowed: Tolerance = tolerance(graph, name)
    excess = difference - (allowed.absolute + allowed.relative * np.abs(expected[finite]))
    key = f"{graph}/{name}"
    largest = float(difference.max(initial=0.0))
    parity.largest_difference[key] = max(parity.largest_difference.get(key, 0.0), largest)
    if exact and excess.max(initial=-1.0) > 0:
        parity.failures.append(
            f"{where}: {name} differs by {largest:.3g}. Expected: at most {allowed.absolute:.1g} + "
            f"{allowed.relative:.1g} of the value ({allowed.reason})"
        )
    if share is not None and largest > share * np.abs(expected[finite]).max(initial=SMALL_OUTPUT):
        parity.failures.append(
            f"{where}: {name} differs by {largest:.3g}. Expected: at most {100 * share:g} % of the largest number: a "
            "lower precision costs less"
        )


def check_host_loop(backend: Any, manifest: Mapping[str, Any], cases: Reference, parity: Parity) -> None:
    """The runtime's own search over `encode` and `decode_step` finds what Keras found, where it can do that search.

    Where a format has no other search, that is what its cases have shown. A search that stops early has the best
    hypothesis of one that does not, and is held to that one.
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
        width = outputs["ids"].shape[-1]  # as many positions as the longest row may have: all later ones are padding
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
    """What the precision costs, over all searches at the defaults; above the limit it fails."""
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
