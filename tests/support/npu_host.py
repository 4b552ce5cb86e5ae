"""A host of the NPU format's files, written after nothing but what their manifest says."""

import json
import pathlib

import numpy as np


def follow_the_protocol(folder: pathlib.Path, source: list[int], steps: int) -> list[int]:
    """Greedy search by nothing but the manifest, written after its `protocol`."""
    from ai_edge_litert.interpreter import Interpreter

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    entry, special = manifest["formats"]["npu"], manifest["special_ids"]
    tables = dict(np.load(folder / entry["embeddings"]))
    n, room = len(source), entry["source_length"]
    interpreters = {name: Interpreter(str(folder / file)) for name, file in entry["files"].items()}
    for interpreter in interpreters.values():
        interpreter.allocate_tensors()

    def call(name: str, **given: np.ndarray) -> dict[str, np.ndarray]:
        ports, numbers = entry["graphs"][name], {}
        for port, about in ports["inputs"].items():
            q = np.round(given[port] / np.float32(about["scale"])) + about["zero_point"]
            numbers[port] = np.clip(q, -128, 127).astype(about["dtype"]).reshape(about["shape"])
        interpreters[name].reset_all_variables()
        found = interpreters[name].get_signature_runner(name)(**numbers)
        outputs = {}
        for port, about in ports["outputs"].items():
            assert found[port].shape == tuple(about["shape"])
            outputs[port] = ((found[port].astype(np.float32) - about["zero_point"]) * np.float32(about["scale"]))[0]
        return outputs

    def vector(side: str, token: int) -> np.ndarray:
        return tables[side][token] * tables[f"{side}_scale"][token]

    def turned(rows: np.ndarray) -> np.ndarray:
        return np.concatenate([rows[:n][::-1], rows[n:]])

    values = np.zeros((room, tables["source"].shape[1]), np.float32)
    values[:n] = [vector("source", token) for token in source]
    for layer in range(entry["encoder_layers"]):
        found = call(f"encode_{layer}", forward=values, backward=turned(values))
        directions = [found["forward_states"]]
        if entry["bidirectional"]:
            directions.append(found["backward_states"])
        new = np.concatenate([directions[0], *(turned(rows) for rows in directions[1:])], axis=1)
        values = new + values if entry["residual"] and layer else new
        values[n:] = 0
    last = np.concatenate([rows[n - 1] for rows in directions])
    started = call("start", summary=last if entry["bridge_input"] == "final" else values.sum(0) / n, values=values)
    state = {name: value for name, value in started.items() if name != "keys"}
    if entry["feeding"]:
        state["state_attentional"] = np.zeros(entry["feeding"], np.float32)
    bias = np.where(np.arange(room) < n, 0, entry["mask_bias"]).astype(np.float32)
    memory = {"values": values, "keys": started.get("keys"), "mask_bias": bias}
    tokens = [special["bos"]]
    while len(tokens) <= steps and tokens[-1] != special["eos"]:
        found = call("decode_step", embedded=vector("target", tokens[-1]), **memory, **state)
        state = {name: found[f"next_{name}"] for name in state}
        found["logits"][special["pad"]] = -np.inf
        tokens.append(int(found["logits"].argmax()))
    return tokens[1:]
