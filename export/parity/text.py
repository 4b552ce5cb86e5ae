"""Comparison of files that read text with the searches over ids."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import runtime
from ..formats.base import Format
from .cases import Reference
from .parity import Parity
from .tolerances import NEAR_TIE

SAME_SCORE = 1e-4
"""Tolerance of scores: reordered float32 sums differ by less, other segmentations by far more."""
READ_SENTENCES = 20
"""Number of sentences that a text file of TFLite or ONNX translates; the SavedModel translates all of them."""


def check_text_file(
    format_: Format,
    directory: pathlib.Path,
    manifest: Mapping[str, Any],
    cases: Reference,
    found: Sequence[Mapping[str, np.ndarray]],
    parity: Parity,
) -> None:
    """Check that a file that reads sentences gives the text of the file for ids, and needs only its own operators.

    In a near-tie two files may round to another order, as in the other comparisons. A sentence with two equally likely
    segmentations, as ". .." and ".. .", may be segmented either way: each implementation of sentencepiece breaks that
    tie in its own way.

    Args:
        format_: the format of the file.
        directory, manifest: the artefact.
        cases: cases of the searches.
        found: outputs of the file for ids, of every case.
        parity: collects the differences.
    """
    reader, failures = format_.open_text(directory / manifest["formats"][format_.name]["text_file"])
    parity.failures += failures
    if reader is None:
        return
    source, target = tokenizers_of(directory, manifest)
    start = 0
    for case, outputs in cases.searched(found):
        sentences = cases.sentences[start : start + len(case.inputs["source_ids"])]
        start += len(sentences)
        if not sentences or not outputs or parity.texts >= READ_SENTENCES:
            return
        try:
            texts = reader.run(sentences)
        except Exception as error:  # as in `check_case`
            parity.failures.append(f"{parity.format} text: it does not run: {str(error)[:300]}")
            return
        for row, sentence in enumerate(sentences):
            wanted = [target.decode(ids) for ids in outputs["ids"][row]]
            parity.texts += 1
            parity.texts_identical += texts[row] == wanted
            near = case.margins is not None and case.margins[row] < NEAR_TIE
            if texts[row] != wanted and not near and not has_two_segmentations(source, sentence):
                parity.failures.append(f"{parity.format} text {sentence!r}. Expected: {wanted}. Received: {texts[row]}")


def tokenizers_of(directory: pathlib.Path, manifest: Mapping[str, Any]) -> list[runtime.Tokenizer]:
    """Return the tokenizers of the source and of the target of an artefact."""
    files = (directory / manifest["tokenizers"][side]["file"] for side in ("source", "target"))
    return [runtime.Tokenizer(file, manifest["special_ids"]) for file in files]


def has_two_segmentations(tokenizer: runtime.Tokenizer, sentence: str) -> bool:
    """Return whether the likeliest segmentation into subwords is no likelier than the next."""
    if tokenizer.kind != "subword":
        return False
    found = tokenizer.processor.nbest_encode(sentence, nbest_size=2)
    scores = [sum(tokenizer.processor.get_score(i) for i in ids) for ids in found]
    return len(scores) > 1 and abs(scores[0] - scores[1]) < SAME_SCORE


def check_text(
    backend: Any, directory: pathlib.Path, manifest: Mapping[str, Any], cases: Reference, parity: Parity
) -> None:
    """Check that `translate_text` gives the text of Keras' hypotheses, except in a tie, see `check_text_file`."""
    source, target = tokenizers_of(directory, manifest)
    start = 0
    for case in cases.of("translate"):
        count = len(case.inputs["source_ids"])
        sentences: Sequence[str] = cases.sentences[start : start + count]
        start += count
        if len(sentences) < count:
            return
        outputs = backend.run("translate_text", {"text": np.array([s.encode() for s in sentences], object)})
        for row, sentence in enumerate(sentences):
            expected = target.decode(case.outputs["ids"][row, 0, : case.outputs["lengths"][row, 0]])
            received = outputs["text"][row, 0].decode()
            parity.texts += 1
            parity.texts_identical += expected == received
            far = case.margins is not None and case.margins[row] >= NEAR_TIE
            if expected != received and far and not has_two_segmentations(source, sentence):
                parity.failures.append(
                    f"{parity.format} translate_text {sentence!r}. Expected: {expected!r}. Received: {received!r}"
                )
