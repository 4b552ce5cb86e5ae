"""Int8 weights with a scale for each row, the form of embeddings and recurrent kernels."""

import numpy as np


def quantised_rows(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`q = round(x / s)`, int8 `(..., D)`, and `s = max |x| / 127` of each row, float32 `(...)`: `x` is about `s q`."""
    scale = np.maximum(np.abs(weights).max(axis=-1), 1e-12).astype(np.float32) / np.float32(127)
    return np.rint(weights / scale[..., None]).astype(np.int8), scale
