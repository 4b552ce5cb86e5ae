"""Signatures and operators of an ONNX file, and the operators that were promised."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...graphs import lstm_lengths
from ...parity.structure import Ports


def signature(model: Any) -> Ports:
    """The one signature of an ONNX model, with the names of its axes."""
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
"""What ONNX Runtime makes of an LSTM with int8 weights: the one operator that is not of ONNX itself."""


def operator_failures(
    name: str, counts: Mapping[str, int], configs: Sequence[Mapping[str, Any]] = (), precision: str = "float32"
) -> list[str]:
    """Operators of one ONNX graph that break the promise made for it.

    `encode` and `decode_step` hold no loop, `encode` one `LSTM` or `GRU` node per layer and direction, but for an
    encoder that the converter can only express as a loop (`needs_loop`). `configs` are those of the model, or of the
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
    """Whether the ONNX encoder holds a loop: for the LSTM with norms, which has no node, and where cell states are
    wanted at ends of rows that `lstm_lengths` does not know."""
    copied = lstm_lengths.wants_cell_states(config) and not lstm_lengths.needed([config])
    return copied or bool(config["cell"] == "layer_norm_lstm")
