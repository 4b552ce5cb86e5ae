"""The decoder's first state: what the bridge reads of the encoder, and what it makes of it."""

import numpy as np
import pytest

from keras_attention.models.bridge import Bridge
from tests.support.cell_reference import normal, numpy, source_mask

BATCH, POSITIONS, UNITS, DEPTH = 2, 5, 3, 7
MASK = source_mask(3, 5)
LAYERS = 11
"""So many that their order is not that of the alphabet: `h_10` comes before `h_2` there."""


@pytest.mark.parametrize("source", ["mean", "final"])
def test_a_dense_bridge_reads_one_summary(source: str) -> None:
    names = ["h_0", "c_0", "h_1", "c_1"]
    values = normal(BATCH, POSITIONS, DEPTH) * MASK[:, :, None]
    state = {f"h_{index}": normal(BATCH, DEPTH, seed=index) for index in range(LAYERS)}
    encoded = {"values": values, "mask": MASK, "state": state}
    bridge = Bridge("dense", source, names, UNITS)
    bridge.build({"values": values.shape, "mask": MASK.shape, "state": {name: (BATCH, DEPTH) for name in state}})
    for number, weight in enumerate(bridge.weights):
        weight.assign(normal(*weight.shape, seed=20 + number))
    summary = state[f"h_{LAYERS - 1}"]
    if source == "mean":
        summary = np.stack([row[:length].mean(axis=0) for row, length in zip(values, MASK.sum(axis=1), strict=True)])
    found = bridge(encoded)
    assert list(found) == names
    for number, name in enumerate(names):
        kernel, bias = (numpy(weight) for weight in bridge.weights[2 * number : 2 * number + 2])
        # float32 sums of seven products near 1
        np.testing.assert_allclose(numpy(found[name]), np.tanh(summary @ kernel + bias), rtol=1e-5, atol=1e-6)


def test_a_mean_of_more_positions_than_float16_counts() -> None:
    bridge = Bridge("dense", "mean", ["h_0"], 1, dtype="mixed_float16")
    shape = (1, 70_000, 1)
    bridge.build({"values": shape, "mask": shape[:2], "state": {}})
    bridge.weights[0].assign([[0.5]])
    found = bridge({"values": np.full(shape, 0.75, "float16"), "mask": np.ones(shape[:2], bool), "state": {}})
    assert numpy(found["h_0"])[0, 0] == pytest.approx(np.tanh(0.375), abs=1e-3)  # float16 keeps 11 bits


def test_a_copying_bridge_hands_states_over_by_name() -> None:
    state = {name: normal(BATCH, UNITS, seed=seed) for seed, name in enumerate(("c_0", "h_0", "c_1", "h_1"))}
    bridge = Bridge("copy", "mean", ["h_0", "c_0", "h_1", "c_1"], UNITS)
    found = bridge({"values": normal(BATCH, POSITIONS, UNITS), "mask": MASK, "state": state})
    for name, expected in state.items():
        np.testing.assert_array_equal(numpy(found[name]), expected)
