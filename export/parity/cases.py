"""Verification cases computed by Keras, against which every artefact is compared, and their file.

A case is one call of one graph: its inputs and Keras' outputs, computed eagerly. The cases are part of the artefact
(`verification.npz`), so that it can be verified again later, where it lies, without the run it came from.
"""

import dataclasses
import json
import pathlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.searching import run_search
from keras_attention.search_policy import SearchPolicy
from keras_attention.types import BOS_ID, PAD_ID, UNK_ID

from ..graphs.graph import Graph
from ..graphs.knobs import Net, knobs_of
from .quality import Task

BATCH_SIZES = (1, 3, 16, 32)
"""Batch sizes of the searches, in turn."""
STORED_ALIGNMENTS = 3
"""Number of batches whose alignments are saved: alignments dominate the file's size."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of a graph. A search has its `margins`; it is `counted` unless its sentences were searched before."""

    graph: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    margins: np.ndarray | None = None
    counted: bool = True


@dataclasses.dataclass(frozen=True)
class Reference:
    """All cases; if known, with the sentences that were searched, and their references."""

    cases: list[Case]
    sentences: list[str]
    references: list[list[str]] = dataclasses.field(default_factory=list)
    task: Task = dataclasses.field(default_factory=Task)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The manifest of the artefact when it was verified; empty before that."""

    def searched(self, found: Sequence[Mapping[str, np.ndarray]]) -> Iterator[tuple[Case, Mapping[str, np.ndarray]]]:
        """Yield all sentences' searches at the defaults, each with the artefact's result; `found`: of every case."""
        pairs = zip(self.cases, found, strict=True)
        return ((case, outputs) for case, outputs in pairs if case.margins is not None and case.counted)

    def of(self, graph: str) -> Iterator[Case]:
        return (case for case in self.cases if case.graph == graph)


def run(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph's function on arrays, eagerly."""
    with warnings.catch_warnings():
        # A source of one token gives a softmax over one position, which is intended.
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        return {name: np.asarray(value) for name, value in graph.function(*inputs.values()).items()}


def padded(rows: Sequence[Any], length: int | None = None) -> np.ndarray:
    """Return rows of ids, int32 `(B, S)`, or features, float32 `(B, S, F)`, 0-padded to the longest or `length`."""
    features = np.shape(rows[0])[1:]
    shape = (len(rows), length or max(len(row) for row in rows), *features)
    array: np.ndarray = np.zeros(shape, np.float32 if features else np.int32)
    for line, row in zip(array, rows, strict=True):
        line[: len(row)] = row
    return array


def batches(rows: Sequence[Any]) -> Iterator[np.ndarray]:
    """Yield all rows, in batches of `BATCH_SIZES` in turn."""
    start, turn = 0, 0
    while start < len(rows):
        size = BATCH_SIZES[turn % len(BATCH_SIZES)] if turn < len(BATCH_SIZES) else BATCH_SIZES[-1]
        yield padded(rows[start : start + size])
        start, turn = start + size, turn + 1


def translator_cases(net: Net, graphs: Sequence[Graph], rows: Sequence[Any], settings: SearchPolicy) -> list[Case]:
    """Compute the cases of an encoder-decoder: every row searched, and single graphs at two batch sizes and lengths.

    Args:
        net: the translator.
        graphs: its `encode`, `decode_step` and `translate`.
        rows: source ids, each with EOS; or features.
        settings: settings of the search.
    """
    encode, decode_step, translate = graphs
    by_length = sorted(rows, key=len)
    short, long = (by_length * 3)[:3], (by_length * 3)[-3:]
    cases = []
    for chosen in (short[:1], short, long[:1], long):
        inputs = {encode.inputs[0].name: padded(chosen)}
        encoded = run(encode, inputs)
        cases.append(Case("encode", inputs, encoded))
        tokens = np.full((len(chosen),), BOS_ID, np.int32)
        for _ in range(2):
            step_inputs = {"token_ids": tokens, **encoded}
            outputs = run(decode_step, step_inputs)
            cases.append(Case("decode_step", step_inputs, outputs))
            tokens = outputs["log_probs"].argmax(axis=-1).astype(np.int32)
            encoded = {name: outputs.get(f"next_{name}", value) for name, value in encoded.items()}
    cases += [search_case(net, translate, batch, settings) for batch in batches(rows)]
    for policy in policies(net, settings, padded(long), cases[-1]):
        cases.append(dataclasses.replace(search_case(net, translate, padded(long), settings, policy), counted=False))
    return cases


def policies(net: Net, settings: SearchPolicy, source: np.ndarray, found: Case) -> Iterator[dict[str, Any]]:
    """Yield other values of the knobs to verify with: short and unpenalised; and all of them changed at once.

    The second bans the first token of some translation that the defaults found, and begins with another one, so that
    its result differs.
    """
    names = {knob.port.name for knob in knobs_of(settings, net)}
    short = max(settings.max_length // 2, 1)
    least = {"min_length": min(settings.min_length, short)} if "min_length" in names else {}
    yield {"max_length": short, "length_penalty": 0.0, **least}
    words = [int(i) for i in np.unique(found.outputs["ids"]) if i > UNK_ID] or [UNK_ID]
    allowed = np.ones((net.config.output_vocabulary,), bool)
    allowed[words[0]] = len(words) == 1
    prefix = np.full((len(source), 2), PAD_ID, np.int32)
    prefix[:, 0] = words[-1]
    prefix[0] = PAD_ID  # a row without a prefix
    turned = {
        "min_length": min(4, settings.max_length),
        "length_penalty": 0.6,
        "coverage_penalty": 0.3,
        "allowed": allowed,
        "prefix": prefix,
        "repetition_penalty": 1.3,
        "diversity": 1.0,
        "temperature": 0.7,
        "top_p": 0.8,
        "alpha": 0.4,
        "backward_weight": 0.2,
    }
    if settings.phrases is not None:
        phrases = np.full((len(source), *settings.phrases), PAD_ID, np.int32)
        phrases[1:, 0, 0] = words[len(words) // 2]
        turned["phrases"] = phrases
    yield {name: value for name, value in turned.items() if name in names}


def search_case(
    net: Net,
    translate: Graph,
    source: np.ndarray,
    settings: SearchPolicy,
    policy: Mapping[str, Any] | None = None,
) -> Case:
    """Run one search in Keras, with its margins; knobs that the policy does not name are at their defaults."""
    knobs, given = knobs_of(settings, net), policy or {}
    values = {
        knob.port.name: np.asarray(given.get(knob.port.name, knob.filled(len(source))), knob.port.dtype)
        for knob in knobs
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")  # as in `run`
        result = run_search(settings, net, source, values)
    arrays = {name: np.asarray(value) for name, value in result.items()}
    outputs = {port.name: arrays[port.name] for port in translate.outputs}
    return Case("translate", {translate.inputs[0].name: source, **values}, outputs, arrays["margins"])


def model_cases(graph: Graph, samples: Sequence[Mapping[str, np.ndarray]]) -> list[Case]:
    """Compute the cases of a model's call on the given inputs."""
    return [Case(graph.name, dict(inputs), run(graph, inputs)) for inputs in samples]


def random_inputs(graph: Graph, vocabulary: int = 2, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Draw random inputs for a model without samples: two batch sizes, two sizes of every other named axis.

    Floats are standard normal; integers are below `vocabulary`, and, if possible, greater than 0, the padding id.
    """
    generator = np.random.default_rng(seed)
    names = list(dict.fromkeys(axis for port in graph.inputs for axis in port.axes if isinstance(axis, str)))
    samples = []
    for batch, length in ((1, 3), (1, 7), (5, 3), (5, 7)):
        sizes = {name: batch if name == "batch" else length + number for number, name in enumerate(names)}
        arrays = {}
        for port in graph.inputs:
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.axes]
            values: np.ndarray
            if "float" in port.dtype:
                values = generator.normal(size=shape)
            elif port.dtype == "bool":
                values = np.asarray(generator.random(shape) < 0.5)
            else:
                values = generator.integers(min(1, vocabulary - 1), vocabulary, size=shape)
            arrays[port.name] = values.astype(port.dtype)
        samples.append(arrays)
    return samples


def save(reference: Reference, path: pathlib.Path) -> None:
    """Write the cases as one compressed file, with the alignments of the first batches only."""
    arrays: dict[str, np.ndarray] = {}
    index, with_alignments = [], 0
    for number, case in enumerate(reference.cases):
        outputs = dict(case.outputs)
        if "alignments" in outputs:
            with_alignments += 1
            if with_alignments > STORED_ALIGNMENTS:
                del outputs["alignments"]
        entry = {"graph": case.graph, "inputs": list(case.inputs), "outputs": list(outputs), "counted": case.counted}
        index.append(entry)
        arrays |= {f"{number}/inputs/{name}": value for name, value in case.inputs.items()}
        arrays |= {f"{number}/outputs/{name}": value for name, value in outputs.items()}
        if case.margins is not None:
            arrays[f"{number}/margins"] = case.margins
    task = dataclasses.asdict(reference.task)
    told = {"sentences": reference.sentences, "references": reference.references, "facts": reference.facts}
    description = json.dumps({"cases": index, "task": task, **told})
    arrays["description"] = np.frombuffer(description.encode(), np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load(path: pathlib.Path) -> Reference:
    """Read the cases that `save` wrote.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            description = json.loads(arrays["description"].tobytes())
            cases = [
                Case(
                    entry["graph"],
                    {name: arrays[f"{number}/inputs/{name}"] for name in entry["inputs"]},
                    {name: arrays[f"{number}/outputs/{name}"] for name in entry["outputs"]},
                    arrays.get(f"{number}/margins"),
                    entry["counted"],
                )
                for number, entry in enumerate(description["cases"])
            ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged and cannot be read ({error}). Export again") from error
    task, facts = Task(**description["task"]), description.get("facts", {})
    return Reference(cases, description["sentences"], description["references"], task, facts)
