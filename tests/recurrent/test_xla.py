"""Training under XLA where the graph knows no length: Keras compiles so by default on a GPU."""

import keras
import numpy as np
import pytest

from keras_attention import (
    AttentionCell,
    AttentionRNN,
    LuongAttention,
    MultiHeadLuongAttention,
    RecurrentStack,
    Seq2SeqConfig,
    build_seq2seq,
)
from tests.support.cell_reference import BATCH, DEPTH, MEMORY_DEPTH, POSITIONS, SIZE, STEPS, UNITS, normal, source_mask

if keras.backend.backend() != "tensorflow":
    pytest.skip("other backends know every length of a batch", allow_module_level=True)

RECURRENT = {
    "lstm": lambda: keras.layers.LSTMCell(UNITS),
    "gru": lambda: keras.layers.GRUCell(UNITS),
    "stack": lambda: RecurrentStack("layer_norm_lstm", UNITS, 2, return_cell_state=True),
}
SCORES = {
    "general": {"score": "general"},
    "additive": {"score": "additive"},
    "coverage": {"score": "normalized_additive", "use_coverage": True},
    "location": {"score": "location", "max_source_length": 9},
    "local_m": {"score": "general", "window": "local_m", "half_width": 1},
    "local_p": {"score": "general", "window": "local_p", "half_width": 1},
    "monotonic": {"score": "general", "alignment": "monotonic"},
    "sparsemax": {"score": "general", "alignment": "sparsemax"},
    "heads": {"num_heads": 3, "head_size": 4},
    "heads, coverage": {"num_heads": 2, "head_size": 3, "score": "additive", "use_coverage": True},
}
WAYS = {
    "after": {"attentional_size": SIZE, "input_feeding": False},
    "fed": {"attentional_size": SIZE},
    "fed the context": {},
    "bahdanau": {"style": "bahdanau"},
    "bahdanau, attentional": {"style": "bahdanau", "attentional_size": SIZE},
}
EVERY = [(recurrent, score, way) for recurrent in RECURRENT for score in SCORES for way in WAYS]
# XLA fuses and re-orders float32 sums, through three steps and one update.
COMPILED = {"rtol": 1e-3, "atol": 1e-5}


def batches(arrays, targets):
    """Two batches of different widths, of which the signature says nothing."""
    import tensorflow as tf

    def signature(array):
        return tf.TensorSpec([*[None] * min(array.ndim, 2), *array.shape[2:]], array.dtype)

    def generate():
        yield arrays, targets
        yield [array[:, :-1] for array in arrays], targets[:, :-1]

    found = tf.data.Dataset.from_generator(
        lambda: ((tuple(inputs), labels) for inputs, labels in generate()),
        output_signature=(tuple(signature(array) for array in arrays), signature(targets)),
    )
    return found


def check_training(model, arrays, targets, loss):
    for number, weight in enumerate(model.trainable_weights):  # large enough for every update to be seen in float32
        weight.assign(0.5 * normal(*weight.shape, seed=number))
    start, trained, losses = model.get_weights(), [], []
    for jit in (False, True):
        model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit)
        losses.append(model.fit(batches(arrays, targets), verbose=0).history["loss"][0])
        trained.append(model.get_weights())
        model.set_weights(start)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)  # as said at `COMPILED`
    for weight, first, compiled, before in zip(model.weights, *trained, start, strict=True):
        np.testing.assert_allclose(compiled, first, err_msg=weight.path, **COMPILED)
        assert np.isfinite(first).all()
        assert weight.name == "score_bias" or not weight.trainable or (first != before).any(), weight.path


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras, about the length of a generator
@pytest.mark.slow
@pytest.mark.parametrize(("recurrent", "score", "way"), EVERY)
def test_attention_trains(recurrent, score, way):
    make = MultiHeadLuongAttention if score.startswith("heads") else LuongAttention
    cell = AttentionCell(RECURRENT[recurrent](), make(**SCORES[score]), **WAYS[way])
    inputs, memory = keras.Input((None, DEPTH)), keras.Input((None, MEMORY_DEPTH))
    mask = keras.Input((None,), dtype="bool")
    model = keras.Model([inputs, memory, mask], AttentionRNN(cell, return_sequences=True)(inputs, memory, mask))
    arrays = [normal(BATCH, STEPS, DEPTH), normal(BATCH, POSITIONS, MEMORY_DEPTH), source_mask(3, 5)]
    check_training(model, arrays, np.zeros((BATCH, STEPS, model.output_shape[-1]), "float32"), "mse")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("score", ["additive", "local_p", "location", "heads"])
def test_no_loop_holds_what_xla_cannot_differentiate(score, way):
    """A product of more axes than two by `tensordot`: what its gradient transposes by is no constant in a loop."""
    import tensorflow as tf

    make = MultiHeadLuongAttention if score == "heads" else LuongAttention
    cell = AttentionCell(keras.layers.GRUCell(UNITS), make(**SCORES[score]), **WAYS[way])
    memory = cell.prepare_memory(normal(BATCH, POSITIONS, MEMORY_DEPTH))
    state = cell.initial_state(memory)
    cell(normal(BATCH, DEPTH), state, memory)

    def signature(tensor):
        return tf.TensorSpec([None if size in (BATCH, POSITIONS) else size for size in tensor.shape], tensor.dtype)

    specs = [tf.nest.map_structure(signature, tree) for tree in (state, memory)]
    traced = tf.function(lambda inputs, state, memory: cell(inputs, state, memory, training=True))
    graph = traced.get_concrete_function(tf.TensorSpec([None, DEPTH]), *specs).graph
    assert not [op.name for op in graph.get_operations() if "tensordot" in op.name.lower()]


CONFIGS = {
    "defaults": {},
    "gru, input feeding": {"cell": "gru", "input_feeding": True},
    "bahdanau, additive": {"style": "bahdanau", "attention": "additive"},
    "coverage": {"attention": "additive", "use_coverage": True, "input_feeding": True},
    "gnmt": {"style": "gnmt", "decoder_layers": 2},
    "self attention": {
        "cell": "self_attention",
        "attention_heads": 2,
        "attention": "scaled_dot",
        "encoder_units": 8,
        "decoder_units": 8,
    },
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Keras, about the length of a generator
@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_decoder_trains(name):
    sizes = {"embedding_size": 3, "encoder_units": 4, "decoder_units": 5, **CONFIGS[name]}
    model = build_seq2seq(Seq2SeqConfig(11, 13, **sizes))
    inputs, outputs = model.inputs, model.outputs
    model = keras.Model([inputs[0], inputs[1]], outputs[0])
    source = np.array([[4, 5, 6, 2, 0], [7, 8, 9, 10, 2]], "int32")
    target = np.array([[1, 4, 5], [1, 6, 7]], "int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    check_training(model, [source, target], np.array([[4, 5, 2], [6, 7, 8]], "int32"), loss)
