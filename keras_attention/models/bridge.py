"""Bridge from the encoder to the decoder's initial state."""

from typing import Any

import keras
from keras import ops

from keras_attention.attention.choices import check_whole
from keras_attention.types import Tensor, TensorDict

BRIDGES = ("dense", "copy")
BRIDGE_INPUTS = ("mean", "final")


@keras.saving.register_keras_serializable(package="keras_attention")
class Bridge(keras.layers.Layer):
    """The decoder's initial state, computed from the encoder's result.

    `dense`: each state is `tanh(W x + b)`, with its own weights, of one summary `x` of the source: the mean of the
    memory over real positions, or the final h of the encoder's top layer. `copy`: the encoder's final states,
    unchanged, layer by layer (Sutskever et al. 2014, arXiv 1409.3215), which requires equal layers and sizes.

    Args:
        kind: `"dense"` or `"copy"`.
        source: `"mean"` or `"final"`, the summary that `dense` reads.
        state_names: names of the decoder's states.
        units: size of each state.

    Call arguments:
        encoded: result of `Encoder`.

    Returns:
        A flat dict, `state_names` to `(B, units)`.
    """

    def __init__(self, kind: str, source: str, state_names: list[str], units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole(units=units)
        if units < 1:
            raise ValueError(f"Expected: units >= 1. Received: {units=}")
        if kind not in BRIDGES or source not in BRIDGE_INPUTS:
            raise ValueError(f"Expected: kind in {BRIDGES} and source in {BRIDGE_INPUTS}. Received: {kind=}, {source=}")
        self.supports_masking = True  # states carry no mask
        self.kind = kind
        self.source = source
        self.state_names = list(state_names)
        self.units = units
        self.projections = [
            keras.layers.Dense(units, activation="tanh", name=name, dtype=self.dtype_policy)
            for name in self.state_names
            if kind == "dense"
        ]

    def build(self, encoded_shape: dict[str, Any]) -> None:
        state_shapes = encoded_shape["state"]
        if self.kind == "copy":
            received = {name: shape[-1] for name, shape in state_shapes.items()}
            expected = dict.fromkeys(self.state_names, self.units)
            if received != expected:
                raise ValueError(
                    "bridge='copy' hands the encoder's final states to the decoder as they are, so both need the same "
                    "cell, number of layers and size (a bidirectional encoder counts both directions). "
                    f"Expected: {expected}. Received: {received}"
                )
        depth = encoded_shape["values"][-1]
        for projection in self.projections:
            projection.build((None, depth))
        self.built = True

    def call(self, encoded: dict[str, Any]) -> TensorDict:
        if self.kind == "copy":
            return {name: encoded["state"][name] for name in self.state_names}
        summary = self._summary(encoded)
        return {name: layer(summary) for name, layer in zip(self.state_names, self.projections, strict=True)}

    def compute_mask(self, encoded: dict[str, Any], previous_mask: Any = None) -> None:
        """Return None: a state has no positions."""
        return

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "source": self.source,
            "state_names": self.state_names,
            "units": self.units,
        }

    def _summary(self, encoded: dict[str, Any]) -> Tensor:
        if self.source == "final":
            top = max((name for name in encoded["state"] if name[0] == "h"), key=lambda name: int(name[2:]))
            return encoded["state"][top]
        values = encoded["values"]  # zero at padding, so that the sum is over real positions
        # In float32, because float16 is exact only to 2048 and its sums overflow at 65504.
        count = ops.maximum(ops.sum(ops.cast(encoded["mask"], "float32"), axis=1, keepdims=True), 1)
        return ops.cast(ops.sum(ops.cast(values, "float32"), axis=1) / count, values.dtype)
