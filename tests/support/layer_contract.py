"""One helper that holds a layer to the whole contract of a Keras layer."""

import json

import keras
import numpy as np
from keras import ops

from tests.support.gradients import gradients

DTYPES = {"float16": 2e-2, "bfloat16": 1e-1, "mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}
"""Tolerances: 11 bits of mantissa, and 8."""

# The same float32 kernels, called eagerly and in a graph.
SAME = {"rtol": 1e-5, "atol": 1e-6}
# XLA fuses and re-orders float32 sums.
COMPILED = {"rtol": 1e-4, "atol": 1e-5}


def check_layer(
    make,
    call,
    arrays,
    tmp_path,
    dtypes=tuple(DTYPES),
    xla=True,
    masked=None,
    empty_is_zero=True,
    untaught=(),
    random=False,
):
    """Config, JSON and `.keras` round trips; symbolic, eager, compiled and XLA calls; masks; low precision; training.

    Args:
        make: `make(**kwargs)` gives a new layer, `dtype` and `name` among its arguments.
        call: `call(layer, tensors)` gives one output tensor.
        arrays: float arrays, the layer's inputs.
        tmp_path: where to save.
        dtypes: low precisions to check.
        xla: whether the layer has a form that XLA compiles.
        masked: `masked(layer, tensors, mask)` gives one output tensor, with a bool mask `(B, S)` of the last input;
            None for a layer without.
        empty_is_zero: whether a row that is wholly masked gives zeros.
        untaught: names of weights that get no gradient, by the layer's nature.
        random: whether training draws noise, so that two runs of it differ.
    """
    layer = make(name="under_test")
    eager = _numpy(call(layer, arrays))
    _check_config(layer, make, call, arrays)
    model = _model(layer, call, arrays)
    assert model.output_shape[1:] == eager.shape[1:]
    np.testing.assert_allclose(_numpy(model(arrays)), eager, **SAME)
    _check_dynamic(layer, call, arrays, eager)
    _check_fit(model, arrays, eager, xla, untaught, random)
    _check_file(model, arrays, tmp_path / "model.keras")
    _check_gradients(layer, call, arrays)
    if masked is not None:
        # A hard choice may stand before what is masked.
        _check_masks(layer, masked, arrays, eager, empty_is_zero, may_ignore=bool(untaught))
    for dtype in dtypes:
        low = make(dtype=dtype)
        call(low, arrays)
        low.set_weights(layer.get_weights())
        output = call(low, arrays)
        assert keras.backend.standardize_dtype(output.dtype) == low.compute_dtype
        np.testing.assert_allclose(_numpy(output), eager, rtol=DTYPES[dtype], atol=DTYPES[dtype])


def _model(layer, call, arrays):
    inputs = [keras.Input(array.shape[1:], dtype=array.dtype.name) for array in arrays]
    return keras.Model(inputs, call(layer, inputs))


def _check_config(layer, make, call, arrays):
    config = layer.get_config()
    for copy in (
        type(layer).from_config(config),
        type(layer).from_config(json.loads(json.dumps(config))),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)),
    ):
        assert copy.get_config() == config
        call(copy, arrays)
        copy.set_weights(layer.get_weights())
        np.testing.assert_array_equal(_numpy(call(copy, arrays)), _numpy(call(layer, arrays)))


def _check_dynamic(layer, call, arrays, eager):
    """A graph that knows neither the size of the batch nor any length."""
    inputs = [keras.Input((*[None] * (array.ndim - 2), array.shape[-1])) for array in arrays]
    keras.Model(inputs, call(layer, inputs))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec([*[None] * (array.ndim - 1), array.shape[-1]], "float32") for array in arrays]
        graph = tf.function(lambda *tensors: call(layer, list(tensors)), input_signature=signature)
        np.testing.assert_allclose(_numpy(graph(*arrays)), eager, **SAME)


def _check_fit(model, arrays, eager, xla, untaught, random):
    """A step of training moves every weight that it can, and alike with and without XLA."""
    start, trained = model.get_weights(), []
    # Keras compiles torch by another compiler, which a machine need not have.
    for jit in (False, True) if xla and keras.backend.backend() != "torch" else (False,):
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=jit)
        if all(weight.name in untaught for weight in model.weights):
            np.testing.assert_allclose(model.predict(arrays, verbose=0), eager, **COMPILED)
            continue
        history = model.fit(arrays, np.zeros_like(eager), batch_size=len(eager), verbose=0)
        if not random:
            np.testing.assert_allclose(history.history["loss"], [np.square(eager).mean()], rtol=1e-4)  # as `COMPILED`
        trained.append(model.get_weights())
        for weight, before, after in zip(model.weights, start, trained[-1], strict=True):
            assert np.isfinite(after).all()
            assert (before != after).any() == (weight.name not in untaught), weight.path
        model.set_weights(start)
    for weight, *values in zip(model.weights, *trained, strict=True):
        for one in values[1:] if not random else ():
            np.testing.assert_allclose(one, values[0], err_msg=weight.path, **COMPILED)


def _check_file(model, arrays, path):
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(_numpy(loaded(arrays)), _numpy(model(arrays)))


def _check_gradients(layer, call, arrays):
    """By every input and every weight, along a random direction, against a central difference."""
    rng = np.random.default_rng(17)
    weights = layer.trainable_weights
    readout = rng.normal(size=_numpy(call(layer, arrays)).shape).astype("float32")

    def loss(*tensors):
        values = list(zip(weights, tensors[len(arrays) :], strict=True))
        with keras.StatelessScope(state_mapping=values):
            return ops.sum(call(layer, list(tensors[: len(arrays)])) * ops.convert_to_tensor(readout))

    points = [*arrays, *(np.asarray(values, "float32") for values in layer.get_weights()[: len(weights)])]
    slopes = gradients(loss, points)
    for number, (point, slope) in enumerate(zip(points, slopes, strict=True)):
        direction = np.asarray(rng.normal(size=point.shape), "float32")
        direction /= np.linalg.norm(direction)
        step, ends = 5e-3, []
        for sign in (1, -1):
            moved = [*points[:number], point + np.float32(sign * step) * direction, *points[number + 1 :]]
            ends.append(float(loss(*(ops.convert_to_tensor(tensor) for tensor in moved))))
        # A central difference is off by step ** 2 / 6 of the third derivative, and by float32 noise, 1e-6 of a sum of
        # numbers near 1, over the step.
        name = f"input {number}" if number < len(arrays) else weights[number - len(arrays)].path
        found, expected = (ends[0] - ends[1]) / (2 * step), (slope * direction).sum()
        np.testing.assert_allclose(found, expected, 1e-2, 4e-3, err_msg=name)  # as said above


def _check_masks(layer, masked, arrays, eager, empty_is_zero, may_ignore):
    """A mask, as an input of a model: what it hides changes nothing, and a row of nothing but padding is finite."""
    *others, memory = arrays
    mask = np.ones(memory.shape[:2], bool)
    np.testing.assert_allclose(_numpy(masked(layer, arrays, mask)), eager, **SAME)
    mask[0, -2:] = False
    junk = np.where(mask[:, :, None], memory, 100.0).astype("float32")
    found = _numpy(masked(layer, [*others, junk], mask))
    np.testing.assert_allclose(found, _numpy(masked(layer, arrays, mask)), **SAME)
    assert may_ignore or (found[0] != eager[0]).any()
    np.testing.assert_allclose(found[1:], eager[1:], **SAME)
    model = _model(layer, lambda layer, tensors: masked(layer, tensors[:-1], tensors[-1]), [*arrays, mask])
    np.testing.assert_allclose(_numpy(model([*arrays, mask])), found, **SAME)
    mask[0] = False
    empty = _numpy(masked(layer, arrays, mask))
    assert np.isfinite(empty).all()
    assert not empty_is_zero or not empty[0].any()
    slopes = gradients(lambda *tensors: ops.sum(ops.square(masked(layer, list(tensors), mask))), arrays)
    assert all(np.isfinite(slope).all() for slope in slopes)


def _numpy(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
