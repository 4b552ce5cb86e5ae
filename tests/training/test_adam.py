"""Adam: the algorithm's numbers on every backend, Keras' checkpoints, one kernel where TensorFlow has it."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention.training.loop.adam import Adam

WORDS, DEPTH = 11, 4

OPTIONS = [
    {},
    {"global_clipnorm": 0.1},
    {"use_ema": True, "ema_momentum": 0.7},
    {"gradient_accumulation_steps": 2},
    {"amsgrad": True},
    {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2, "weight_decay": 0.1},
]


class Lookup(keras.layers.Layer):
    """An embedding whose gradient comes as one matrix: a product with one-hot rows."""

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(WORDS, DEPTH), name="embeddings")

    def call(self, ids: Any) -> Any:
        return ops.matmul(ops.one_hot(ids, WORDS), self.table)


def fitted(
    optimizer: keras.optimizers.Optimizer, as_rows: bool = True, **how: Any
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    """A model with an embedding after six updates; each batch reads its words several times."""
    ids = keras.Input((5,), dtype="int32")
    table = keras.layers.Embedding(WORDS, DEPTH, name="words") if as_rows else Lookup(name="words")
    model = keras.Model(ids, keras.layers.Dense(3, name="out")(keras.layers.Flatten()(table(ids))))
    generator = np.random.default_rng(1)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    model.compile(optimizer, "mse", **how)
    for _ in range(6):
        inputs, wanted = generator.integers(0, WORDS, (8, 5)), generator.normal(size=(8, 3))
        model.train_on_batch(inputs.astype("int32"), wanted.astype("float32"))
    return model, optimizer


def assert_alike(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        # Float32, added up in another order; Adam divides by roots of squares near epsilon.
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_updates_are_those_of_keras(options) -> None:
    """Weights, and all that a checkpoint keeps, in Keras' order and under its names.

    Keras' own is given the embedding's gradient as a matrix: of rows it makes something else under TensorFlow.
    """
    model, ours = fitted(Adam(0.05, **options))
    twin, theirs = fitted(keras.optimizers.Adam(0.05, **options), as_rows=False)
    assert_alike(model.get_weights(), twin.get_weights())
    names = [[variable.path.split("/", 1)[1] for variable in one.variables] for one in (ours, theirs)]
    assert names[0] == names[1]
    assert_alike(*([variable.value for variable in one.variables] for one in (ours, theirs)))


def test_compiled_updates_are_the_same() -> None:
    if keras.backend.backend() == "torch":
        pytest.skip("PyTorch compiles by a C++ compiler, which a machine need not have")
    models = [fitted(Adam(0.05, global_clipnorm=0.1), jit_compile=compiled)[0] for compiled in (True, False)]
    assert_alike(*(model.get_weights() for model in models))


def test_a_config_makes_the_same_optimizer() -> None:
    again = Adam.from_config(Adam(0.05, beta_1=0.8, global_clipnorm=2.0).get_config())
    assert (type(again), again.beta_1, again.global_clipnorm) == (Adam, 0.8, 2.0)


def averages_of(weights: list[np.ndarray], largest: float, accumulation: int = 1) -> np.ndarray:
    """The average after the weights of each update, by the formula."""
    average = weights[0]
    for step, weight in enumerate(weights):
        update = step // accumulation
        momentum = min(largest, (1 + update) / (10 + update)) if update else 0.0
        average = momentum * average + (1 - momentum) * weight
    return average


@pytest.mark.parametrize(
    ("largest", "accumulation", "compiled"), [(0.999, 1, True), (0.6, 1, False), (0.999, 2, False)]
)
def test_the_momentum_of_averages_grows_with_the_updates(largest, accumulation, compiled) -> None:
    """0.6 is the largest from the 13th update on: (1 + 12) / (10 + 12) < 0.6 < (1 + 13) / (10 + 13)."""
    given = keras.Input((1,))
    model = keras.Model(given, keras.layers.Dense(1, use_bias=False)(given))
    steps = accumulation if accumulation > 1 else None
    how = {"use_ema": True, "ema_momentum": largest, "ema_warmup": True, "gradient_accumulation_steps": steps}
    model.compile(Adam(0.3, **how), "mse", jit_compile=compiled and keras.backend.backend() != "torch")
    weights = []
    for _ in range(20):
        model.train_on_batch(np.ones((2, 1), "float32"), np.full((2, 1), 9.0, "float32"))
        weights.append(model.get_weights()[0])
    average = next(variable for variable in model.optimizer.variables if variable.name.endswith("_average"))
    expected = averages_of(weights, largest, accumulation)
    np.testing.assert_allclose(ops.convert_to_numpy(average), expected, rtol=1e-5)  # twenty sums in float32


def test_a_growing_momentum_is_part_of_the_config() -> None:
    config = Adam(0.1, use_ema=True, ema_momentum=0.7, ema_warmup=True).get_config()
    assert (config["ema_momentum"], config["ema_warmup"]) == (0.7, True)
    assert Adam.from_config(config).get_config() == config


def test_a_saved_model_goes_on_as_it_would_have(tmp_path) -> None:
    model, _ = fitted(Adam(0.05, global_clipnorm=0.1))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is Adam
    batch = np.arange(10).reshape(2, 5), np.ones((2, 3), "float32")
    for one in (model, again):
        one.train_on_batch(*batch)
    assert_alike(again.get_weights(), model.get_weights())


def test_a_gradient_of_another_dtype_is_taken() -> None:
    variable = keras.Variable(np.zeros(3, "float32"))
    optimizer = Adam(0.1)
    optimizer.build([variable])
    optimizer.apply([ops.convert_to_tensor(np.asarray([1.0, -2.0, 0.0]), dtype="float16")], [variable])
    # 0.1 in float32, and epsilon beside 1: 3e-7.
    np.testing.assert_allclose(ops.convert_to_numpy(variable.value), [-0.1, 0.1, 0.0], atol=1e-6)


def test_tensorflow_updates_each_variable_by_one_operation() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the kernel is TensorFlow's")
    import tensorflow as tf

    model, _ = fitted(Adam(0.05))
    specs = [tf.TensorSpec((None, 5), tf.int32), tf.TensorSpec((None, 3))]
    graph = tf.function(lambda *batch: model.train_step(batch)).get_concrete_function(*specs).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == len(model.trainable_variables) == 3
    assert "AssignSubVariableOp" not in kinds
