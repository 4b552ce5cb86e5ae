"""Calibration of int8 graphs: their inputs during real decoding, recorded from the host loop over float graphs.

The recorder is the host part of the artefact's own runtime, with each graph computed by TensorFlow in place of the
int8 file. So states, attentional vectors and alignments are those of real decoding. The same pass verifies the host
part: its tokens must be those of Keras.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder

from .. import runtime
from ..graphs.graph import Graph
from ..request import Request
from ..runtime.backends.npu import Npu
from .saved_model import tensor_spec
from .to_npu.graphs import decode_step_graph

SEQUENCES = 100
"""Minimum number of calibration sentences: with fewer the ranges of an int8 LSTM are fragile."""
CLEAR = 8.0
"""Distance of padding below the best score: exp(-8) is less than one step of an int8 softmax."""
FIRST_BIAS = -100.0
STEPS = 6
"""Maximum number of recorded steps per sentence, evenly spaced."""
CALIBRATED = 128
"""Number of a run's samples used for calibration, if no other text is given."""


def split_samples(samples: Sequence[Any] | None, calibration: Sequence[Any] | None) -> tuple[list[Any], int, list[Any]]:
    """Return the verification samples, their number, and the calibration samples, which are disjoint.

    Raises:
        UserError: for too few calibration samples.
    """
    known = list(samples or ())
    if calibration is None:
        known, calibration = known[:-CALIBRATED], known[-CALIBRATED:]
    if len(calibration) < SEQUENCES or not known:
        raise UserError(
            f"int8 takes its ranges from sentences. Expected: at least {SEQUENCES} of them (--calibration FILE), and "
            f"others to verify with. Received: {len(calibration)} and {len(known)}"
        )
    return known, len(known), list(calibration)


def set_apart(request: Request) -> Request:
    """Split the samples of an int8 export into calibration and verification samples.

    Raises:
        UserError: for too few calibration samples.
    """
    if request.precision != "int8":
        return request
    samples, kept, calibration = split_samples(request.samples, request.calibration)
    references = (request.references or [])[:kept]
    return dataclasses.replace(request, samples=samples, references=references, calibration=calibration)


def check_rows(rows: Sequence[Sequence[int]], most: int | None, remedy: str = "Give more") -> None:
    """Raise UserError, with a remedy, if too few sentences are short enough for calibration."""
    if len(rows) < SEQUENCES:
        raise UserError(
            f"Too few sentences to calibrate with fit into {most} tokens. "
            f"Expected: at least {SEQUENCES}. Received: {len(rows)}. {remedy}"
        )


class Recorder(Npu):
    """The host part over float graphs, which records the inputs of each."""

    def __init__(self, net: EncoderDecoder, graphs: Sequence[Graph], entry: Mapping[str, Any]):
        self.entry = {**entry, "mask_bias": FIRST_BIAS}
        self.graphs = {graph.name: graph for graph in graphs}
        step = decode_step_graph(net, entry["source_length"], with_scores=bool(entry["attends"]))
        self.functions = {
            name: tf.function(graph.function, input_signature=[tensor_spec(port) for port in graph.inputs])
            for name, graph in (self.graphs | {"decode_step": step}).items()
        }
        tables = {"source": net.source_embedding, "target": net.target_embedding}
        self.tables = {side: np.asarray(layer.embeddings, np.float32) for side, layer in tables.items()}
        self.records: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in self.graphs}
        self.gap = 0.0
        """Largest distance of a step's best score above the best score of a real position."""

    def call(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {port.name: np.asarray(inputs[port.name], np.float32) for port in self.graphs[graph].inputs}
        self.records[graph].append(given)
        found = {name: value.numpy() for name, value in self.functions[graph](*given.values()).items()}
        if "scores" in found:
            scores, real = found.pop("scores")[0], given["mask_bias"][0] == 0
            self.gap = max(self.gap, float(scores.max() - scores[real].max()))
        return found

    @property
    def mask_bias(self) -> float:
        """Bias that excluded padding at every recorded step."""
        return -(CLEAR + self.gap)

    def calibration(self) -> dict[str, dict[str, np.ndarray]]:
        """Return each graph's inputs, `(N, 1, ...)`, with the final bias; of steps a sample per sentence."""
        return {name: self._stacked(records) for name, records in self.records.items()}

    def _stacked(self, records: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        stacked = {name: np.stack([record[name] for record in records]) for name in records[0]}
        if "mask_bias" in stacked:
            stacked["mask_bias"] = np.where(stacked["mask_bias"] < 0, np.float32(self.mask_bias), np.float32(0))
        return stacked


def record(recorder: Any, manifest: Mapping[str, Any], rows: Sequence[Any]) -> list[list[int]]:
    """Translate rows of ids, or of features, greedily one by one, and return the hypotheses' ids.

    The inputs of each graph are then in the recorder's `records`, of steps a sample per sentence.
    """
    found = []
    for row in rows:
        source = np.asarray([row])
        source = source.astype(np.int32 if source.ndim == 2 else np.float32)
        begin = len(recorder.records["decode_step"])
        outputs = runtime.search_on_host(recorder, manifest, source, 1, runtime.knob_values(manifest, 1, {}))
        found.append([int(i) for i in outputs["ids"][0, 0, : outputs["lengths"][0, 0]]])
        steps = recorder.records["decode_step"][begin:]
        kept = np.unique(np.linspace(0, len(steps) - 1, STEPS).round().astype(int))
        recorder.records["decode_step"][begin:] = [steps[place] for place in kept]
    return found
