"""The NPU format: int8 files of static graphs, embedding tables for the host, and their description."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.searching import run_search
from keras_attention.search_policy import SearchPolicy

from ...errors import VerificationError
from ...graphs.knobs import knobs_of
from ...parity import cases as reference
from ...parity.compare import best
from ...parity.tolerances import NEAR_TIE
from ...plan import Plan
from .. import converter as conversion
from ..calibration import Recorder, check_rows, record
from ..int8_rows import quantised_rows
from ..saved_model import write_saved_model
from ..to_tflite import int8 as litert_int8
from . import graphs as npu_graphs

FOLDER = "npu"
EMBEDDINGS = f"{FOLDER}/embeddings.npz"
PROTOCOL = (
    "A number x goes into a graph as int8 q = round(x / scale) + zero_point, within -128 and 127, and comes out as "
    "x = (q - zero_point) * scale; scale and zero_point of each input and output are in `graphs`.",
    "`embeddings` holds the tables `source` and `target` in int8, and `source_scale` and `target_scale`, a number for "
    "each row: the vector of word i is table[i] * scale[i].",
    "S is `source_length`, n the number of source tokens, the last of which is eos. values: the vectors of the source "
    "tokens, (S, D), zeros from n on.",
    "For each layer L from 0 to `encoder_layers` - 1: reset all variables of encode_L, where its LSTM keeps its last "
    "state; call it with forward = values and, if `bidirectional`, backward = values with the first n rows in reverse. "
    "values = forward_states, and beside them backward_states with the first n rows in reverse; if `residual` and "
    "L > 0, plus the former values; zeros from n on.",
    "summary: if `bridge_input` is mean, the sum of values over n; if final, row n - 1 of forward_states and beside it "
    "row n - 1 of backward_states, as they came. start(summary, values) gives the first state_... and, where the score "
    "has them, keys. If `feeding` is not 0, state_attentional begins with so many zeros.",
    "decode_step: embedded = the vector of the last target token, bos at first; state_...; values and keys; mask_bias, "
    "(S): 0 before n, the number `mask_bias` from there on. What it does not list among its inputs it does not want. "
    "next_X becomes X. log-probabilities: log softmax of logits; pad is never chosen, a hypothesis ends with eos.",
    "A hypothesis of m tokens scores its summed log-probabilities / ((5 + m) / 6) ** length_penalty, or / m ** "
    "length_penalty where `search` says average.",
)
"""The host's work around the graphs, for implementers who have only the manifest."""


def check(model: Any, settings: SearchPolicy) -> None:
    """Raise UserError unless the format supports the model and the search."""
    try:
        net = EncoderDecoder(model)
    except ValueError:
        raise UserError("npu is for one translator. Expected: a model of build_seq2seq") from None
    npu_graphs.check_model(net, settings)


def describe(plan: Plan, source_length: int) -> dict[str, Any]:
    """Return the manifest's entry; `mask_bias` is known after calibration."""
    assert isinstance(plan.net, EncoderDecoder)
    config = plan.net.config
    names = [graph.name for graph in npu_graphs.npu_graphs(plan.net, source_length)]
    attends = config.attention != "none"
    feeding = 0
    if attends and config.input_feeding:
        feeding = config.attentional_size or config.decoder_units
    return {
        "files": {name: f"{FOLDER}/{name}.tflite" for name in names},
        "signatures": ["encode", "decode_step"],
        "protocol": list(PROTOCOL),
        "embeddings": EMBEDDINGS,
        "source_length": source_length,
        "encoder_layers": config.encoder_layers,
        "bidirectional": config.bidirectional,
        "residual": config.residual,
        "bridge_input": config.bridge_input,
        "attends": attends,
        "feeding": feeding,
    }


def write(
    plan: Plan,
    rows: Sequence[Sequence[int]],
    manifest: Mapping[str, Any],
    stage: pathlib.Path,
    work: pathlib.Path,
) -> float:
    """Calibrate on rows of source ids and write the files; returns the bias that excludes padding.

    Raises:
        VerificationError: if the host part over float graphs does not find Keras' tokens.
        ConversionError: if the converter fails.
    """
    assert isinstance(plan.net, EncoderDecoder)
    entry = manifest["formats"]["npu"]
    check_rows(rows, entry["source_length"], "Give more, or a greater --source-length")
    graphs = npu_graphs.npu_graphs(plan.net, entry["source_length"])
    recorder = Recorder(plan.net, graphs, entry)
    check_host_part(plan, rows, record(recorder, manifest, rows))
    (work / "calibration").mkdir()
    (stage / FOLDER).mkdir()
    for name, arrays in recorder.calibration().items():
        np.savez(work / "calibration" / f"{name}.npz", allow_pickle=False, **arrays)
    write_saved_model(work / "npu", graphs)
    arguments = [work / "npu", stage / FOLDER, work / "calibration", *(graph.name for graph in graphs)]
    conversion.run_converter("TFLite", litert_int8.__name__, [str(argument) for argument in arguments], stage / FOLDER)
    np.savez(stage / EMBEDDINGS, allow_pickle=False, **tables(recorder.tables))
    return recorder.mask_bias


def describe_graphs(entry: Mapping[str, Any], stage: pathlib.Path) -> dict[str, Any]:
    """Return shape, dtype, scale and zero point of every input and output of the files, for the manifest."""
    from ai_edge_litert.interpreter import Interpreter

    found = {}
    for name, file in entry["files"].items():
        runner = Interpreter(model_path=str(stage / file)).get_signature_runner(name)
        sides = {"inputs": runner.get_input_details(), "outputs": runner.get_output_details()}
        found[name] = {side: {port: _quantised(one) for port, one in ports.items()} for side, ports in sides.items()}
    return found


def _quantised(detail: Mapping[str, Any]) -> dict[str, Any]:
    scale, zero_point = detail["quantization"]
    shape, dtype = [int(size) for size in detail["shape"]], np.dtype(detail["dtype"]).name
    return {"shape": shape, "dtype": dtype, "scale": float(scale), "zero_point": int(zero_point)}


def tables(embeddings: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return embedding tables in int8 with a scale for each row; `source` and `target`, and the scales."""
    found = {}
    for side, table in embeddings.items():
        found[side], found[f"{side}_scale"] = quantised_rows(table)
    return found


def check_host_part(plan: Plan, rows: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> None:
    """Apply the float rule to the graphs before quantisation: greedy search must give Keras' tokens."""
    assert isinstance(plan.net, EncoderDecoder)
    greedy = dataclasses.replace(plan.settings, beam_size=1)
    source = reference.padded(rows)
    knobs = {knob.port.name: knob.filled(len(rows)) for knob in knobs_of(greedy, plan.net)}
    result = {name: np.asarray(value) for name, value in run_search(greedy, plan.net, source, knobs).items()}
    failures = []
    for row, ids in enumerate(found):
        expected = best(result, row)
        if list(ids) != expected and result["margins"][row] >= NEAR_TIE:
            failures.append(
                f"npu host part, before int8: tokens of sentence {row}. Expected: {expected}. Received: {list(ids)}"
            )
    if failures:
        raise VerificationError(failures)
