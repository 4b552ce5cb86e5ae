"""What is inside each format's files: names, dtypes and axes of every signature, and the operators."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..formats.to_onnx import convert as to_onnx
from ..formats.to_tflite import convert as litert
from ..graphs import lstm_lengths

Ports = Mapping[str, Mapping[str, Any]]
"""A signature as the manifest describes it: `{"inputs": {name: {"dtype", "axes"}}, "outputs": {...}}`."""


def sizes(axes: list[Any]) -> list[int | None]:
    """Axes as a format without axis names knows them: None for any size."""
    return [axis if isinstance(axis, int) else None for axis in axes]


def differences(where: str, expected: Ports, received: Ports, named: bool) -> list[str]:
    """What differs between a signature of the manifest and one found in a file.

    Args:
        where: words that name the file and signature.
        named: whether the format has names of axes; if not, sizes are compared, and an output of any size may stand for
            a size that the format could not infer.
    """
    found = []
    for direction in ("inputs", "outputs"):
        if set(expected[direction]) != set(received[direction]):
            found.append(
                f"{where}: {direction}. Expected: {sorted(expected[direction])}. "
                f"Received: {sorted(received[direction])}"
            )
        for name in set(expected[direction]) & set(received[direction]):
            wanted, got = expected[direction][name], received[direction][name]
            if wanted["dtype"] != got["dtype"]:
                found.append(f"{where}: dtype of {name}. Expected: {wanted['dtype']}. Received: {got['dtype']}")
            axes, got_axes = wanted["axes"], got["axes"]
            if not named:
                axes = sizes(axes)
            unknown = not named and direction == "outputs"
            same = got_axes is None or (
                len(axes) == len(got_axes)
                and all(a == b or (unknown and b is None) for a, b in zip(axes, got_axes, strict=True))
            )
            if not same:
                found.append(f"{where}: axes of {name}. Expected: {axes}. Received: {got_axes}")
    return found


def tflite_signatures(path: pathlib.Path) -> dict[str, Ports]:
    """The signatures of a TFLite file. Output sizes are known only once it has run, so their axes are None."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    signatures: dict[str, Ports] = {}
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        signatures[name] = {
            "inputs": {
                port: {
                    "dtype": np.dtype(detail["dtype"]).name,
                    "axes": [None if size < 0 else int(size) for size in detail["shape_signature"]],
                }
                for port, detail in runner.get_input_details().items()
            },
            "outputs": {
                port: {"dtype": np.dtype(detail["dtype"]).name, "axes": None}
                for port, detail in runner.get_output_details().items()
            },
        }
    return signatures


def onnx_signature(model: Any) -> Ports:
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


def saved_model_signatures(loaded: Any) -> dict[str, Ports]:
    """The signatures of a loaded SavedModel."""

    def ports(specs: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {"dtype": spec.dtype.name, "axes": None if spec.shape.rank is None else spec.shape.as_list()}
            for name, spec in specs.items()
        }

    return {
        name: {
            "inputs": ports(signature.structured_input_signature[1]),
            "outputs": ports(signature.structured_outputs),
        }
        for name, signature in loaded.signatures.items()
    }


def tflite_operator_failures(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Operators that a plain TFLite interpreter lacks."""
    if not counts["custom"]:
        return []
    return [f"tflite: operators. Expected: built-in ones only. Received: {', '.join(counts['custom'])}"]


QUANTISED_LSTM = "com.microsoft.DynamicQuantizeLSTM"
"""What ONNX Runtime makes of an LSTM with int8 weights: the one operator that is not of ONNX itself."""


def onnx_operator_failures(
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


def tflite_operators(path: pathlib.Path) -> dict[str, dict[str, int]]:
    """Operators of a TFLite file."""
    return litert.operators(path.read_bytes())


def onnx_operators(model: Any) -> dict[str, int]:
    """Operators of an ONNX model."""
    return to_onnx.operators(model.graph)
