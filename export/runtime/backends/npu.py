"""NPU target: its static int8 graphs as `encode` and `decode_step`, in LiteRT."""

import pathlib
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ArtefactError, require
from ..inputs import Arrays, source_lengths
from ..manifest import check_file


class Npu:
    """The host part of the NPU target: all that a device does around its graphs.

    It looks tokens up, reverses a row within its length for the backward direction, and zeroes padding. It computes the
    mean or the final state that the bridge reads, and the log-softmax. It takes one row of a batch at a time. `call` is
    the one method to replace where other graphs run.
    """

    name, format = "npu", "npu"

    def __init__(self, directory: pathlib.Path, manifest: Mapping[str, Any], threads: int | None):
        self.entry = manifest["formats"]["npu"]
        paths = {name: check_file(directory, manifest, file) for name, file in self.entry["files"].items()}
        module = require("ai_edge_litert.interpreter", "ai-edge-litert")
        self.interpreters = {
            name: module.Interpreter(model_path=str(path), num_threads=threads) for name, path in paths.items()
        }
        for interpreter in self.interpreters.values():
            interpreter.allocate_tensors()
        self.runners = {name: one.get_signature_runner(name) for name, one in self.interpreters.items()}
        self.turn = threading.Lock()
        tables = np.load(check_file(directory, manifest, self.entry["embeddings"]), allow_pickle=False)
        self.tables = {side: tables[side] * tables[f"{side}_scale"][:, None] for side in ("source", "target")}

    def call(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run one graph on float arrays, quantised to int8 by each input's scale and zero point, and back."""
        runner, given = self.runners[graph], self.quantised(graph, inputs)
        with self.turn:  # as in `LiteRT`
            if graph.startswith("encode"):  # the fused LSTM keeps its last state: each row starts from zeros
                self.interpreters[graph].reset_all_variables()
            details, found = runner.get_output_details(), runner(**given)
        scales = {name: detail["quantization"] for name, detail in details.items()}
        return {
            name: (value.astype(np.float32) - scales[name][1]) * np.float32(scales[name][0])
            for name, value in found.items()
        }

    def quantised(self, graph: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Return float arrays as a graph's int8 inputs: `round(x / scale) + zero point`, within -128 .. 127."""
        given = {}
        for name, detail in self.runners[graph].get_input_details().items():
            scale, zero = detail["quantization"]
            given[name] = np.clip(np.rint(inputs[name] / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        return given

    def run(self, signature: str, inputs: Arrays) -> dict[str, np.ndarray]:
        each = self._encode if signature == "encode" else self._step
        first = next(iter(inputs.values()))
        rows = [each({name: value[row] for name, value in inputs.items()}) for row in range(len(first))]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _encode(self, inputs: Arrays) -> dict[str, np.ndarray]:
        ids = inputs["source_ids"]
        length, room = int(source_lengths(ids[None])[0]), self.entry["source_length"]
        if length > room:
            raise ArtefactError(f"A sentence is too long. Expected: at most {room} tokens with EOS. Received: {length}")
        values = np.zeros((room, self.tables["source"].shape[1]), np.float32)
        values[:length] = self.tables["source"][ids[:length]]
        top: list[np.ndarray] = []
        for layer in range(self.entry["encoder_layers"]):
            rows = {"forward": values[None]}
            if self.entry["bidirectional"]:
                rows["backward"] = reversed_within(values, length)[None]
            found = self.call(f"encode_{layer}", rows)
            top = [found[f"{name}_states"][0] for name in rows]
            both = [top[0], *(reversed_within(one, length) for one in top[1:])]
            below, values = values, np.concatenate(both, axis=1)
            if self.entry["residual"] and layer:
                values += below
            values[length:] = 0.0
        summary = values.sum(axis=0) / np.float32(length)
        if self.entry["bridge_input"] == "final":
            summary = np.concatenate([one[length - 1] for one in top])
        started = self.call("start", {"summary": summary[None], "values": values[None]})
        real = np.arange(len(ids)) < length
        memory = {"mask": real, "values": values, **({"keys": started["keys"][0]} if "keys" in started else {})}
        state = {name: value[0] for name, value in started.items() if name != "keys"}
        if self.entry["feeding"]:
            state["state_attentional"] = np.zeros((self.entry["feeding"],), np.float32)
        if not self.entry["attends"]:
            memory = {"mask": real}
        return {**state, **{f"memory_{name}": value for name, value in memory.items()}}

    def _step(self, inputs: Arrays) -> dict[str, np.ndarray]:
        mask = inputs["memory_mask"]
        bias = np.full((1, self.entry["source_length"]), self.entry["mask_bias"], np.float32)
        bias[0, : len(mask)][mask[: bias.shape[1]]] = 0.0
        given = {"embedded": self.tables["target"][int(inputs["token_ids"])][None], "mask_bias": bias}
        given |= {name.removeprefix("memory_"): v[None] for name, v in inputs.items() if name != "token_ids"}
        found = self.call("decode_step", given)
        logits = found["logits"][0]
        shifted = logits - logits.max()
        alignment: np.ndarray = np.zeros(mask.shape, np.float32)
        if "alignment" in found:
            shown = found["alignment"][0, : len(mask)] * mask[: bias.shape[1]]
            alignment[: len(shown)] = shown / max(float(shown.sum()), 1e-6)
        state = {name: value[0] for name, value in found.items() if name.startswith("next_")}
        return {"log_probs": shifted - np.log(np.exp(shifted).sum()), "alignment": alignment, **state}


def reversed_within(row: np.ndarray, length: int) -> np.ndarray:
    """Return a row `(S, D)` with its first `length` positions in reverse."""
    return np.concatenate([row[:length][::-1], row[length:]])
