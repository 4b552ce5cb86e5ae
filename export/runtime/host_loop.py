"""The host loop: beam search over the graphs `encode` and `decode_step`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .beam_search import beam_search
from .errors import ArtefactError
from .inputs import Arrays, source_lengths, source_name


def only_in_graph(manifest: Mapping[str, Any]) -> str:
    """Name the part of the search that only the graph `translate` can do; empty if there is none."""
    search = manifest["search"]
    if search["method"] != "beam":
        return f"method {search['method']}"
    if search["groups"] > 1:
        return "groups of a diverse beam"
    if search["stop"] != "all":
        return "early stop"
    return "phrases" if search["phrases"] else ""


def search_on_host(
    backend: Any, manifest: Mapping[str, Any], source_ids: np.ndarray, beam_size: int, knobs: Arrays
) -> dict[str, np.ndarray]:
    """Run `beam_search` over the graphs: `encode` once, `decode_step` once for each position.

    Raises:
        ArtefactError: for a search that only the graph `translate` can do.
    """
    missing, fixed = only_in_graph(manifest), manifest["search"]
    if missing:
        raise ArtefactError(
            f"The host loop knows no {missing}: only the graph does. Expected: no host loop, and the exported beam size"
        )
    batch, source_length = source_ids.shape[:2]
    encoded = backend.run("encode", {source_name(source_ids): source_ids})
    tiled = {name: np.repeat(value, beam_size, axis=0) for name, value in encoded.items()}
    updates: dict[str, str] = manifest["state_updates"]
    memory = {name: value for name, value in tiled.items() if name not in updates}

    def step(tokens: np.ndarray, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        outputs = backend.run("decode_step", {"token_ids": tokens, **state, **memory})
        return outputs["log_probs"], {name: outputs[new] for name, new in updates.items()}, outputs["alignment"]

    state = {name: tiled[name] for name in updates}
    lengths = source_lengths(source_ids)
    limits = np.full((batch,), int(knobs["max_length"]))
    if manifest["max_length_factor"] is not None:
        relative = np.floor(lengths.astype(np.float32) * np.float32(manifest["max_length_factor"]))
        limits = np.maximum(np.minimum(limits, relative.astype(int) + manifest["max_length_offset"]), 1)
    mask = np.arange(source_length) < lengths[:, None]
    shape, special = (batch, beam_size, source_length), manifest["special_ids"]
    rules = fixed["length_penalty_kind"], fixed["no_repeat_ngram"], fixed.get("finished_first", False)
    return beam_search(step, state, shape, limits, knobs, mask, special, *rules)


def has_translate(backend: Any, manifest: Mapping[str, Any]) -> bool:
    """Whether the format of a backend holds the graph `translate`, or only the two that the host loop runs."""
    return "translate" in manifest["formats"][backend.format]["signatures"]


def run_translate(backend: Any, manifest: Mapping[str, Any], inputs: Arrays) -> dict[str, np.ndarray]:
    """Run `translate` with all of its inputs; the host loop gives the same outputs where there is no such graph."""
    if has_translate(backend, manifest):
        found: dict[str, np.ndarray] = backend.run("translate", inputs)
        return found
    source = next(inputs[name] for name in ("source_ids", "source_features") if name in inputs)
    knobs = {name: inputs[name] for name in manifest["knobs"]}
    found = search_on_host(backend, manifest, source, manifest["beam_size"], knobs)
    more = manifest["signatures"]["translate"]["outputs"]["ids"]["axes"][2] - found["ids"].shape[2]
    padded = np.pad(found["ids"], ((0, 0), (0, 0), (0, more)), constant_values=manifest["special_ids"]["pad"])
    return {**found, "ids": padded, "alignments": np.pad(found["alignments"], ((0, 0), (0, 0), (0, more), (0, 0)))}
