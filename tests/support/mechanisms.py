"""Every attention mechanism that the constructor allows, with inputs at prime sizes, for the tests of attention."""

import itertools

import numpy as np
from keras import ops

from keras_attention import LuongAttention
from tests.support import reference

BATCH, STEPS, POSITIONS, DEPTH, VALUE_DEPTH, UNITS, LONGEST = 2, 3, 7, 11, 13, 17, 19
HALF_WIDTH = 1
"""Narrow enough that a window is gathered (3 of 7 positions), where the layer sees fit."""

SAME_DEPTH = ("dot", "scaled_dot", "cosine")
ADDITIVE = ("concat", "additive", "normalized_additive")
SCORES = (*SAME_DEPTH, "general", "location", *ADDITIVE)
WINDOWS = (None, "local_m", "local_p")
NORMALISERS = ("softmax", "sparsemax", "hardmax")
MONOTONIC = ("monotonic", "hard_monotonic")

# The reference runs in float64; float32 sums of at most 17 products of numbers near 1 round to about 1e-6.
FLOAT32 = {"rtol": 1e-5, "atol": 2e-6}


def is_allowed(score, window, alignment, use_coverage, use_scale):
    """The rules that the documentation states, in their own words."""
    if alignment in MONOTONIC and (window or use_coverage):
        return False  # it walks over the whole source, and remembers by itself
    if use_coverage and score not in ADDITIVE:
        return False  # coverage enters a hidden layer
    return not (use_scale and score == "normalized_additive")  # which has a factor already


def every_choice():
    """All arguments that have names or are switches: score, window, alignment, coverage, scale."""
    return itertools.product(SCORES, WINDOWS, (*NORMALISERS, *MONOTONIC), (False, True), (False, True))


def arguments_of(score, window=None, alignment="softmax", use_coverage=False, use_scale=False):
    """The constructor's arguments for these choices."""
    arguments = {"score": score, "alignment": alignment, "use_coverage": use_coverage, "use_scale": use_scale}
    if window:
        arguments |= {"window": window, "half_width": HALF_WIDTH}
    if score in ADDITIVE:
        arguments["units"] = UNITS
    if score == "location":
        arguments["max_source_length"] = LONGEST
    return arguments


def name_of(choice):
    return "-".join(["scaled"] * choice[4] + [choice[0], choice[1] or "global", choice[2]] + ["coverage"] * choice[3])


EVERY = {name_of(choice): arguments_of(*choice) for choice in every_choice() if is_allowed(*choice)}
"""All mechanisms, by name."""

LAWFUL = {
    name: arguments
    for name, arguments in EVERY.items()
    if (arguments["use_scale"] or "normalized" in name) and "concat" not in name
}
"""One for each score, window, alignment and coverage; scaled where it may be: the laws do not depend on a factor.
`concat` is the formula of `additive`, which the comparison with the reference proves."""


def make(arguments, value_depth=None, dtype="float32", seed=3):
    """The layer, built, with weights none of which is at its first value: zeros and ones would hide mistakes."""
    layer = LuongAttention(**arguments, dtype=dtype)
    depth = DEPTH if arguments["score"] in SAME_DEPTH else value_depth or VALUE_DEPTH
    layer.build((BATCH, STEPS, DEPTH), (BATCH, POSITIONS, depth))
    randomise(layer, seed)
    return layer


SCALARS = {"scale": 1.75, "factor": 1.5, "score_bias": 0.125}


def randomise(layer, seed=3):
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        # Numbers that float16 and bfloat16 hold exactly, so that a lower precision starts from the same weights.
        values = np.round(rng.normal(scale=0.5, size=tuple(weight.shape)) * 64) / 64
        weight.assign(SCALARS.get(weight.name, np.clip(values, -1.9, 1.9)))


def weights_of(layer):
    """Name to float64 array; a multi-head layer has those of its head under `head`."""
    inner = layer.head.weights if hasattr(layer, "head") else []
    pairs = zip(layer.weights, layer.get_weights(), strict=True)
    own = {
        weight.name: values.astype("float64") for weight, values in pairs if all(weight is not other for other in inner)
    }
    return {**own, "head": weights_of(layer.head)} if inner else {**own, "head": {}}


def inputs(arguments, seed=0, steps=STEPS, positions=POSITIONS):
    """Queries, values and their mask: a row shorter than the queries, and one with a hole. Multiples of 1 / 32."""
    rng = np.random.default_rng(seed)
    depth = DEPTH if arguments["score"] in SAME_DEPTH else VALUE_DEPTH
    query, value = rng.normal(size=(BATCH, steps, DEPTH)), rng.normal(size=(BATCH, positions, depth))
    query, value = (np.clip(np.round(array * 16) / 32, -1.9, 1.9).astype("float32") for array in (query, value))
    mask = np.ones((BATCH, positions), bool)
    mask[0, 2:] = mask[1, 1] = False
    return query, value, mask


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def attend(layer, query, value, mask=None, **arguments):
    """Contexts, weights and state of one call, as NumPy arrays."""
    found = layer(query, value, value_mask=mask, return_attention_scores=True, return_state=True, **arguments)
    return numpy(found[0]), numpy(found[1]), {name: ops.convert_to_numpy(tensor) for name, tensor in found[2].items()}


def expect(layer, query, value, mask, **arguments):
    """What the NumPy reference says for a `LuongAttention` of these arguments."""
    return reference.attend(
        layer.score,
        query.astype("float64"),
        value.astype("float64"),
        weights_of(layer),
        np.ones(value.shape[:2], bool) if mask is None else mask,
        window=layer.window,
        half_width=layer.half_width,
        alignment=layer.alignment,
        use_coverage=layer.use_coverage,
        **arguments,
    )


def assert_same(found, expected, **tolerance):
    """Contexts, weights and state, all three."""
    tolerance = tolerance or FLOAT32
    np.testing.assert_allclose(found[0], expected[0], err_msg="contexts", **tolerance)
    np.testing.assert_allclose(found[1], expected[1], err_msg="weights", **tolerance)
    assert set(found[2]) == set(expected[2])
    for name, tensor in expected[2].items():
        np.testing.assert_allclose(found[2][name], tensor, err_msg=name, **tolerance)
