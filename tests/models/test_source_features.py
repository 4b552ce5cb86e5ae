"""Sources of features in place of words: padding, steps, configuration, and a task learnt from noisy frames."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import EncoderDecoder, Ensemble, Seq2SeqConfig, build_seq2seq
from keras_attention.attention.masking import real_positions
from keras_attention.training.losses.fused import fuse_loss

FLOAT32 = {"rtol": 1e-4, "atol": 2e-6}  # as in test_seq2seq
TARGET = np.array([[1, 5, 6, 7], [1, 4, 0, 0]], "int32")
CHOICES = {
    "recurrent": {},
    "input feeding, gru": {"cell": "gru", "input_feeding": True, "tie_embeddings": "target"},
    "without attention": {"attention": "none", "decoder_units": 14},
    "self-attention": {
        "cell": "self_attention",
        "attention": "scaled_dot",
        "attention_heads": 2,
        "encoder_units": 14,
        "decoder_units": 14,
    },
}


def config_of(name):
    sizes = {"embedding_size": 5, "encoder_units": 7, "decoder_units": 11, "source_features": 3}
    return Seq2SeqConfig(0, 9, **{**sizes, **CHOICES[name]})


def frames():
    source = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    source[0, 2] = 0.0  # silence before speech is no padding
    source[1, 4:] = 0.0
    return source


def test_padding_is_what_is_zero_to_the_end():
    expected = [[True] * 6, [True] * 4 + [False] * 2]
    assert ops.convert_to_numpy(real_positions(ops.convert_to_tensor(frames()))).tolist() == expected
    assert ops.convert_to_numpy(real_positions(ops.convert_to_tensor([[4, 2, 0]]))).tolist() == [[True, True, False]]
    assert not ops.convert_to_numpy(real_positions(ops.zeros((2, 3, 4)))).any()


@pytest.mark.parametrize("name", CHOICES)
def test_padding_changes_nothing_and_steps_equal_the_whole(name):
    config = config_of(name)
    model = build_seq2seq(config)
    net, source = EncoderDecoder(model), frames()
    assert net.config == config
    assert Seq2SeqConfig.from_dict(config.to_dict()) == config
    logits, alignments = (ops.convert_to_numpy(tensor) for tensor in net.align(source, TARGET))
    longer = np.pad(source, ((0, 0), (0, 3), (0, 0)))
    np.testing.assert_allclose(ops.convert_to_numpy(model({"source": longer, "target": TARGET})), logits, **FLOAT32)
    alone = model({"source": source[1:, :4], "target": TARGET[1:]})
    np.testing.assert_allclose(ops.convert_to_numpy(alone), logits[1:], **FLOAT32)
    assert not alignments[1, :, 4:].any()
    state, memory = net.encode(source)
    for t in range(TARGET.shape[1]):
        log_probs, state, _ = net.step(TARGET[:, t], state, memory)
        expected = ops.convert_to_numpy(ops.log_softmax(logits[:, t]))
        np.testing.assert_allclose(ops.convert_to_numpy(log_probs), expected, **FLOAT32)


def test_it_is_saved_and_searched_like_any_other(tmp_path):
    model = build_seq2seq(config_of("recurrent"))
    model.save(tmp_path / "model.keras")
    net, again = EncoderDecoder(model), EncoderDecoder(keras.models.load_model(tmp_path / "model.keras"))
    assert again.config == net.config
    found, twice = (dict(one.search(frames(), beam_size=3, max_length=5)) for one in (net, Ensemble([net, again])))
    np.testing.assert_array_equal(ops.convert_to_numpy(found["ids"]), ops.convert_to_numpy(twice["ids"]))
    assert found["alignments"].shape == (2, 3, 5, 6)
    limited = net.search(frames(), beam_size=1, max_length=9, max_length_factor=0.5, max_length_offset=0)
    assert (ops.convert_to_numpy(limited["lengths"])[:, 0] <= [3, 2]).all()  # of 6 and 4 positions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_vocabulary": 9, "source_features": 3}, "Expected: source_vocabulary=0 with source_features"),
        ({"source_vocabulary": 0}, "Expected: source_vocabulary >= 5"),
        ({"source_vocabulary": 0, "source_features": 0}, "Expected: source_features >= 1"),
        ({"source_vocabulary": 0, "source_features": 2.5}, "Expected: source_features, a whole number"),
        ({"source_vocabulary": 0, "source_features": 3, "tie_embeddings": "all"}, "one joint vocabulary"),
        ({"source_vocabulary": 0, "source_features": 3, "copy_words": 2}, "with copy_words"),
    ],
)
def test_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(target_vocabulary=9, **arguments)


def test_an_ensemble_reads_one_kind_of_source():
    words = build_seq2seq(Seq2SeqConfig(5, 9, encoder_units=3, decoder_units=5))
    with pytest.raises(ValueError, match="Expected: members of the same vocabularies"):
        Ensemble([EncoderDecoder(words), EncoderDecoder(build_seq2seq(config_of("recurrent")))])


def make_task(count, seed):
    """Three gestures, each some frames of a pattern of its own in noise; the labels are which ones, in their order."""
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(1).normal(size=(3, 4))
    source, target = np.zeros((count, 12, 4), "float32"), np.zeros((count, 4), "int32")
    for row in range(count):
        gestures = generator.integers(3, size=generator.integers(1, 4))
        shown = np.repeat(patterns[gestures], generator.integers(2, 5, size=len(gestures)), axis=0)
        source[row, : len(shown)] = shown + 0.1 * generator.normal(size=shown.shape)
        target[row, : len(gestures) + 1] = [*(gestures + 4), 2]
    # Two gestures of a kind in a row are one long one: not to be told apart.
    distinct = [row for row in range(count) if (np.diff(target[row]) != 0)[: (target[row] > 0).sum() - 1].all()]
    return source[distinct], target[distinct]


@pytest.mark.slow
def test_fit_learns_to_read_frames():
    model = build_seq2seq(
        Seq2SeqConfig(0, 7, source_features=4, embedding_size=8, encoder_units=12, decoder_units=24, attention="dot")
    )
    source, labels = make_task(900, 0)
    target = np.concatenate([np.ones((len(labels), 1), "int32"), np.where(labels == 2, 0, labels)[:, :-1]], axis=1)
    training = fuse_loss(model)
    training.compile("adam", jit_compile=keras.backend.backend() == "jax")
    training.optimizer.learning_rate = 0.01
    training.fit({"source": source, "target": target, "labels": labels}, epochs=12, batch_size=32, verbose=0)
    source, labels = make_task(200, 5)
    found = ops.convert_to_numpy(EncoderDecoder(model).search(source, beam_size=3, max_length=4)["ids"])[:, 0]
    assert (found == labels).all(axis=1).mean() >= 0.95  # learnt: all but a few of 200
