"""One helper that holds a layer to the whole contract of a Keras layer."""

import json

import keras
import numpy as np
from keras import ops

DTYPES = {"float16": 2e-2, "bfloat16": 1e-1, "mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}
"""Tolerances: 11 bits of mantissa, and 8."""


def check_layer(make, call, arrays, tmp_path, dtypes=tuple(DTYPES), xla=True):
    """Config, JSON and `.keras` round trips; symbolic, eager, compiled and XLA calls; low precision; a fit step.

    Args:
        make: `make(**kwargs)` gives a new layer, `dtype` and `name` among its arguments.
        call: `call(layer, tensors)` gives one output tensor.
        arrays: float arrays, the layer's inputs.
        tmp_path: where to save.
        dtypes: low precisions to check.
        xla: whether the layer has a form that XLA compiles.
    """
    layer = make(name="under_test")
    eager = _numpy(call(layer, arrays))
    _check_config(layer, make, call, arrays)
    inputs = [keras.Input(array.shape[1:]) for array in arrays]
    model = keras.Model(inputs, call(layer, inputs))
    assert model.output_shape[1:] == eager.shape[1:]
    np.testing.assert_allclose(_numpy(model(arrays)), eager, rtol=1e-5, atol=1e-6)  # the same float32 kernels
    for jit in (False, True) if xla else (False,):
        if jit and keras.backend.backend() == "torch":
            continue  # Keras compiles torch by another compiler, which this machine need not have
        model.compile("sgd", "mse", jit_compile=jit)
        # XLA fuses and re-orders float32 sums
        np.testing.assert_allclose(model.predict(arrays, verbose=0), eager, rtol=1e-4, atol=1e-5)
        if not model.weights:
            continue
        before = [weight.copy() for weight in model.get_weights()]
        history = model.fit(arrays, np.zeros_like(eager), verbose=0, epochs=2)
        assert np.isfinite(history.history["loss"]).all()
        assert all((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))
        model.set_weights(before)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(_numpy(loaded(arrays)), _numpy(model(arrays)))
    for dtype in dtypes:
        low = make(dtype=dtype)
        call(low, arrays)
        low.set_weights(layer.get_weights())
        output = call(low, arrays)
        assert keras.backend.standardize_dtype(output.dtype) == low.compute_dtype
        np.testing.assert_allclose(_numpy(output), eager, rtol=DTYPES[dtype], atol=DTYPES[dtype])


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


def _numpy(tensor):
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
