"""Signatures and operators of an ONNX file, and checks of its guaranteed operators."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...graphs import lstm_lengths
from ...parity.structure import Ports


def signature(model: Any) -> Ports:
    """Return the signature of an ONNX model, with the names of its axes."""
    import onnx

    def ports(infos: Any) -> dict[str, Any]:
        return {
            info.name: {
                "dtype": onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name,
                "axes": [dim.dim_param or dim.dim_value for dim in info.type.tensor_type.shape.dim],
            }
            for info in infos
        }

    return {"inputs": ports(model.graph.input), "outputs": ports(model.graph.output)}


QUANTISED_LSTM = "com.microsoft.DynamicQuantizeLSTM"
"""ONNX Runtime's LSTM with int8 weights: the only operator outside of standard ONNX."""


def operator_failures(
    name: str, counts: Mapping[str, int], configs: Sequence[Mapping[str, Any]] = (), precision: str = "float32"
) -> list[str]:
    """Return operators of one ONNX graph that break its guarantee.

    `encode` and `decode_step` hold no loop. `encode` has one `LSTM` or `GRU` node per layer and direction, except for
    an encoder that the converter can only express as a loop (`needs_loop`). `configs` are those of the model, or of the
    members of an ensemble.
    """
    failures = [
        f"onnx {name}: operators. Expected: standard ones. Received: {operator}"
        for operator in counts
        if "." in operator and not (precision == "dynamic_int8" and operator == QUANTISED_LSTM)
    ]
    looping = any(needs_loop(config) for config in configs)
    if configs and (name == "decode_step" or (name == "encode" and not looping)):
        loops = sum(counts.get(kind, 0) for kind in ("Loop", "Scan", "If"))
        if loops:
            failures.append(f"onnx {name}: loops. Expected: 0. Received: {loops}")
    for kind in ("LSTM", "GRU") if name == "encode" else ():
        ours = [config for config in configs if config["cell"] == kind.lower() and not needs_loop(config)]
        expected = sum(config["encoder_layers"] * (2 if config["bidirectional"] else 1) for config in ours)
        received = counts.get(QUANTISED_LSTM if (kind, precision) == ("LSTM", "dynamic_int8") else kind, 0)
        if ours and received != expected:
            failures.append(f"onnx {name}: {kind} nodes. Expected: {expected}. Received: {received}")
    return failures


def needs_loop(config: Mapping[str, Any]) -> bool:
    """Return whether the ONNX encoder has a loop.

    It has one for the layer-normalised LSTM, which has no node, and for cell states at ends of rows that
    `lstm_lengths` does not support.
    """
    copied = lstm_lengths.wants_cell_states(config) and not lstm_lengths.needed([config])
    return copied or bool(config["cell"] == "layer_norm_lstm")
