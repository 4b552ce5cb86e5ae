"""The encoder-decoder: recurrence against NumPy, stepping = teacher forcing, padding, ties, saving, `fit`."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import Encoder, EncoderDecoder, RecurrentStack, Seq2SeqConfig, build_seq2seq
from keras_attention.attention.gather import last_position, reverse_within_length
from keras_attention.models.config import ATTENTIONS
from keras_attention.search import beam_search
from tests.support import reference
from tests.support.parts import fast

# float32 through a few tens of steps of saturating functions, on numbers below 1.
FLOAT32 = {"rtol": 1e-4, "atol": 2e-6}

SOURCE = np.array([[5, 6, 7, 2, 0, 0, 0], [8, 9, 4, 5, 6, 7, 2], [2, 0, 0, 0, 0, 0, 0]], "int32")
TARGET = np.array([[1, 5, 6, 7, 8], [1, 4, 4, 9, 0], [1, 10, 0, 0, 0]], "int32")

NO_RECURRENCE = {
    "cell": "self_attention",
    "attention": "scaled_dot",
    "attention_heads": 2,
    "encoder_units": 14,
}
CHOICES = {
    "plain": {},
    "input feeding": {"input_feeding": True},
    "gru": {"cell": "gru"},
    "gru, input feeding": {"cell": "gru", "input_feeding": True},
    "two layers": {"encoder_layers": 2, "decoder_layers": 2},
    "copy bridge": {"bridge": "copy"},
    "final state": {"bridge_input": "final", "encoder_layers": 2},
    "forward only": {"bidirectional": False, "encoder_units": 14},
    "attentional size": {"attentional_size": 5, "input_feeding": True},
    "tied target": {"tie_embeddings": "target"},
    "tied all": {"tie_embeddings": "all"},
    **{f"attention {name}": {"attention": name} for name in ATTENTIONS if name != "general"},
    "no attention, dense": {"attention": "none", "bridge": "dense", "cell": "gru"},
    "local-m": {"window": "local_m", "half_width": 1, "attention": "dot", "input_feeding": True},
    "local-p": {"window": "local_p", "half_width": 2, "style": "bahdanau"},
    "normalized": {"attention": "normalized_additive", "cell": "gru", "style": "bahdanau", "attentional_size": 5},
    "coverage": {"attention": "additive", "attention_units": 3, "use_coverage": True},
    "coverage, input feeding": {
        "attention": "concat",
        "use_coverage": True,
        "input_feeding": True,
        "window": "local_p",
    },
    "monotonic": {"alignment": "monotonic", "score_bias_init": 0.5, "sigmoid_noise": 1.0, "decoder_layers": 2},
    "hard monotonic": {"alignment": "hard_monotonic", "cell": "gru", "input_feeding": True},
    "sparsemax": {"alignment": "sparsemax", "use_scale": True, "style": "bahdanau", "decoder_layers": 2},
    "hardmax": {"alignment": "hardmax", "attention_dropout": 0.2},
    "heads": {"attention": "scaled_dot", "attention_heads": 2, "window": "local_m"},
    "heads, coverage": {"attention": "additive", "attention_heads": 7, "use_coverage": True, "style": "bahdanau"},
    "heads, monotonic": {"attention": "dot", "attention_heads": 2, "alignment": "monotonic", "input_feeding": True},
    "residual": {"encoder_layers": 3, "decoder_layers": 2, "residual": True, "variational_dropout": True},
    "residual, input feeding": {"decoder_layers": 3, "residual": True, "input_feeding": True, "cell": "gru"},
    "gnmt": {"style": "gnmt", "decoder_layers": 3, "encoder_layers": 2, "residual": True},
    "gnmt, gru, local": {"style": "gnmt", "decoder_layers": 2, "cell": "gru", "window": "local_p", "half_width": 2},
    "gnmt, copy": {
        "style": "gnmt",
        "decoder_layers": 2,
        "encoder_layers": 2,
        "bridge": "copy",
        "use_coverage": True,
        "attention": "additive",
    },
    "layer norm": {"cell": "layer_norm_lstm", "encoder_layers": 2},
    "layer norm, copy": {"cell": "layer_norm_lstm", "bridge": "copy", "input_feeding": True},
    "copying": {"copy_words": 4, "source_vocabulary": 9, "target_vocabulary": 9},  # SOURCE and TARGET hold 9 and 10
    "copying, tied, fed": {
        "copy_words": 2,
        "source_vocabulary": 9,
        "target_vocabulary": 9,
        "tie_embeddings": "all",
        "input_feeding": True,
        "attention_heads": 2,
        "attention": "dot",
    },
    "self-attention": {**NO_RECURRENCE, "encoder_layers": 2, "decoder_layers": 3, "feed_forward_units": 17},
    "self-attention, one head, tied": {**NO_RECURRENCE, "attention_heads": 1, "tie_embeddings": "all"},
    "self-attention, additive": {**NO_RECURRENCE, "attention": "additive", "alignment": "sparsemax", "dropout": 0.1},
    "self-attention, cosine": {**NO_RECURRENCE, "attention": "cosine", "use_scale": True},
}
STEPPED = (
    *("input feeding", "gru", "copy bridge", "final state", "attention none", "attention location", "attention cosine"),
    *("local-m", "local-p", "coverage, input feeding", "monotonic", "hard monotonic", "sparsemax", "heads, coverage"),
    *("residual, input feeding", "gnmt, copy", "layer norm, copy", "copying, tied, fed", "self-attention"),
)
"""Of the fast part: each kind of state that a step carries."""
# Weights that sum to less than 1: the rest of a monotonic walk is past the end, a Gaussian is not normalised again.
PARTIAL = ("local-p", "gnmt, gru, local", "coverage, input feeding", "monotonic", "hard monotonic", "heads, monotonic")
EXTRA = {"location": {"max_source_length": 17}, "concat": {"attention_units": 3}, "cosine": {"use_scale": True}}


def config_of(name):
    choices = {**CHOICES[name], **EXTRA.get(CHOICES[name].get("attention", ""), {})}
    return Seq2SeqConfig(
        **{
            "source_vocabulary": 13,
            "target_vocabulary": 13,
            "embedding_size": 11,
            "encoder_units": 7,
            "decoder_units": 14,
            **choices,
        }
    )


@functools.cache
def model_of(name):
    """One model for all tests that only call it."""
    return build_seq2seq(config_of(name))


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def stepped(net, source, target, recurrence="layer"):
    state, memory = net.encode(source, recurrence)
    log_probs, alignments = [], []
    for t in range(target.shape[1]):
        step_log_probs, state, alignment = net.step(target[:, t], state, memory)
        log_probs.append(numpy(step_log_probs))
        alignments.append(numpy(alignment))
    return np.stack(log_probs, axis=1), np.stack(alignments, axis=1)


@pytest.mark.parametrize("name", fast(CHOICES, *STEPPED))
def test_stepping_equals_the_teacher_forced_pass(name):
    config, model = config_of(name), model_of(name)
    net = EncoderDecoder(model)
    logits, alignments = net.align(SOURCE, TARGET)
    np.testing.assert_allclose(numpy(logits), numpy(model({"source": SOURCE, "target": TARGET})), **FLOAT32)
    # How the encoder runs does not depend on the attention.
    for recurrence in ("layer", "loop") if config.attention == "general" else ("layer",):
        log_probs, steps = stepped(net, SOURCE, TARGET, recurrence)
        np.testing.assert_allclose(log_probs, numpy(ops.log_softmax(logits)), **FLOAT32)
        np.testing.assert_allclose(steps, numpy(alignments), **FLOAT32)
    sums = numpy(alignments).sum(axis=-1)
    if name in PARTIAL:
        assert (sums <= 1.0 + 1e-5).all()  # float32 sums of seven weights
        assert (sums > 0.0).any()
    else:
        # Float32 sums of seven weights.
        np.testing.assert_allclose(sums, 0.0 if config.attention == "none" else 1.0, rtol=1e-5)
    assert not numpy(alignments)[np.broadcast_to((SOURCE == 0)[:, None], alignments.shape)].any()


@pytest.mark.parametrize(
    "name",
    fast(
        CHOICES,
        *("plain", "gru, input feeding", "copy bridge", "attention none", "attention location", "local-p", "coverage"),
        *("monotonic", "heads", "gnmt", "layer norm", "copying", "self-attention"),
    ),
)
def test_padding_and_batch_order_change_nothing(name):
    model = model_of(name)
    logits = numpy(model({"source": SOURCE, "target": TARGET}))
    longer = np.pad(SOURCE, ((0, 0), (0, 4)))
    np.testing.assert_allclose(numpy(model({"source": longer, "target": TARGET})), logits, **FLOAT32)
    turned = numpy(model({"source": SOURCE[::-1], "target": TARGET[::-1]}))[::-1]
    np.testing.assert_allclose(turned, logits, **FLOAT32)
    alone = numpy(model({"source": SOURCE[:1, :4], "target": TARGET[:1]}))
    np.testing.assert_allclose(alone, logits[:1], **FLOAT32)


@pytest.mark.parametrize("name", CHOICES)
def test_the_config_is_read_off_the_model(name):
    config = config_of(name)
    assert EncoderDecoder(model_of(name)).config == config
    assert Seq2SeqConfig.from_dict(config.to_dict()) == config


SAVED = (
    "two layers",
    "copying",
    "copy bridge",
    "tied all",
    "attention location",
    "attention none",
    "coverage, input feeding",
)


@pytest.mark.parametrize(
    "name",
    fast(
        [*SAVED, "residual", "layer norm", "monotonic", "heads, coverage", "normalized", "self-attention"],
        *("coverage, input feeding", "copying", "layer norm", "heads, coverage", "self-attention"),
    ),
)
def test_config_and_outputs_survive_saving(name, tmp_path):
    config = config_of(name)
    model = build_seq2seq(config)
    logits = numpy(model({"source": SOURCE, "target": TARGET}))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded({"source": SOURCE, "target": TARGET})), logits)
    assert EncoderDecoder(loaded).config == config
    result = EncoderDecoder(loaded).search(SOURCE, beam_size=2, max_length=5)
    assert result["alignments"].shape == (3, 2, 5, 7)


@pytest.mark.parametrize(
    "name", fast(["monotonic", "heads, monotonic", "coverage", "local-m", "self-attention"], "monotonic", "coverage")
)
def test_a_beam_of_one_is_greedy(name):
    """The state of an attention goes along with its hypothesis."""
    net = EncoderDecoder(model_of(name))
    greedy = net.search(SOURCE, beam_size=1, max_length=6)
    state, memory = net.encode(SOURCE)
    one = beam_search(
        net.step,
        state,
        memory,
        max_length=6,
        capacity=6,
        source_length=SOURCE.shape[1],
        length_penalty=1.0,
        beam_size=1,
    )
    np.testing.assert_array_equal(numpy(one["ids"]), numpy(greedy["ids"]))
    for key in ("scores", "alignments"):
        np.testing.assert_allclose(numpy(one[key]), numpy(greedy[key]), **FLOAT32)
    # The alignments of the best of three are those of its words, teacher-forced.
    wide = net.search(SOURCE, beam_size=3, max_length=6)
    ids = numpy(wide["ids"])[:, 0]
    forced = np.concatenate([np.ones_like(ids[:, :1]), ids[:, :-1]], axis=1)
    alignments = numpy(net.align(SOURCE, forced)[1])
    for row in range(len(SOURCE)):
        length = int((ids[row] != 0).sum())
        np.testing.assert_allclose(
            numpy(wide["alignments"])[row, 0, :length], alignments[row, :length], **FLOAT32, err_msg=str(row)
        )


@pytest.mark.parametrize("name", fast(["input feeding", "attention none"]))
def test_fit_learns_to_copy_a_word(name):
    model = build_seq2seq(config_of(name))
    rng = np.random.default_rng(3)
    words = rng.integers(4, 13, (64, 1))
    source = np.concatenate([words, np.full((64, 1), 2)], axis=1).astype("int32")
    target = np.concatenate([np.full((64, 1), 1), words], axis=1).astype("int32")
    model.compile(keras.optimizers.Adam(0.03), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit({"source": source, "target": target}, source, epochs=25, batch_size=16, verbose=0)
    result = EncoderDecoder(model).search(source, beam_size=1, max_length=3)
    np.testing.assert_array_equal(numpy(result["ids"])[:, 0, :2], source)
    assert numpy(result["finished"]).all()


def test_mixed_precision_trains_and_gives_float32_logits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_seq2seq(config_of("input feeding"))
        logits = model({"source": SOURCE, "target": TARGET})
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit({"source": SOURCE, "target": TARGET}, TARGET, epochs=2, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("recurrence", ["layer", "loop"])
@pytest.mark.parametrize("with_cell_state", [False, True])
def test_bidirectional_lstm_equals_numpy(recurrence, with_cell_state):
    lengths = np.array([3, 5], "int32")
    inputs = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    stack = RecurrentStack("lstm", 7, bidirectional=True, return_cell_state=with_cell_state)
    outputs, state = stack(inputs, lengths, recurrence=recurrence)
    for b, length in enumerate(lengths):
        found, cells = [], []
        for direction, layer in enumerate(stack.layers[0]):
            row = inputs[b, :length].astype("float64")
            weights = [numpy(weight).astype("float64") for weight in layer.cell.weights]
            hidden, c = reference.lstm(row[::-1] if direction else row, *weights, np.zeros(7), np.zeros(7))
            found.append(hidden[::-1] if direction else hidden)
            cells.append(c)
        expected = np.concatenate(found, axis=-1)
        np.testing.assert_allclose(numpy(outputs)[b, :length], expected, **FLOAT32)
        final_h = np.concatenate([found[0][-1], found[1][0]])  # backward ends at the row's first position
        np.testing.assert_allclose(numpy(state["h_0"])[b], final_h, **FLOAT32)
        if with_cell_state:
            np.testing.assert_allclose(numpy(state["c_0"])[b], np.concatenate(cells), **FLOAT32)
    assert set(state) == ({"h_0", "c_0"} if with_cell_state else {"h_0"})


def test_the_memory_is_zero_at_padding():
    encoder = Encoder("gru", 5)
    mask = np.array([[True, True, False], [True, False, False]])
    values = numpy(encoder(np.ones((2, 3, 4), "float32"), mask)["values"])
    assert not values[~mask].any()
    assert values[mask].any(axis=-1).all()


def test_reversal_within_length():
    sequence = np.arange(10, dtype="float32").reshape(2, 5, 1)
    lengths = ops.convert_to_tensor(np.array([3, 5], "int32"))
    turned = reverse_within_length(sequence, lengths)
    np.testing.assert_array_equal(numpy(turned)[..., 0], [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]])
    np.testing.assert_array_equal(numpy(reverse_within_length(turned, lengths)), sequence)
    np.testing.assert_array_equal(numpy(last_position(sequence, lengths))[:, 0], [2, 9])


def test_dropout_is_silent_outside_training():
    config = Seq2SeqConfig.from_dict({**config_of("input feeding").to_dict(), "dropout": 0.5})
    model = build_seq2seq(config)
    batch = {"source": SOURCE, "target": TARGET}
    np.testing.assert_array_equal(numpy(model(batch)), numpy(model(batch)))
    # Far above what float32 rounds, 1e-6.
    assert np.abs(numpy(model(batch, training=True)) - numpy(model(batch))).max() > 1e-3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"attention": "dott"}, "Expected: attention in .*Received: attention='dott'"),
        ({"cell": "rnn"}, "Expected: cell in"),
        ({"decoder_units": 0}, "Expected: decoder_units >= 1"),
        ({"dropout": 1.0}, "Expected: 0 <= dropout < 1"),
        ({"attention": "dot", "decoder_units": 15}, "Expected: decoder_units == 14.*Received: decoder_units=15"),
        ({"bridge": "copy", "decoder_layers": 2}, "Expected: decoder_layers=1, decoder_units=14"),
        ({"attention": "none", "input_feeding": True}, r"has no attention to.*Received: {'input_feeding': True}"),
        ({"attention": "location"}, "`max_source_length` belongs to score='location', which needs it"),
        ({"attention_units": 3}, "hidden layer.*Received: score='general', units=3"),
        ({"window": "local"}, r"Unknown attention window.*Received: window='local'"),
        ({"window": "local_m", "half_width": 0}, r"Expected: half_width >= 1. Received: half_width=0"),
        ({"alignment": "soft"}, r"Unknown alignment.*Received: alignment='soft'"),
        ({"alignment": "monotonic", "window": "local_p"}, r"Expected: window=None and use_coverage=False.*'local_p'"),
        ({"use_coverage": True}, r"Coverage enters.*Received: score='general'"),
        ({"sigmoid_noise": 0.5}, r"`sigmoid_noise`.*Received: sigmoid_noise=0.5, alignment='softmax'"),
        ({"attention_dropout": 1.0}, r"Expected: 0 <= dropout < 1. Received: dropout=1.0"),
        ({"attention_heads": 2}, r"A head compares.*Received: attention='general'"),
        ({"attention_heads": 0}, r"Expected: attention_heads >= 1"),
        ({"attention": "dot", "attention_heads": 3}, r"attention_heads that divides 14.*Received: attention_heads=3"),
        ({"style": "luon"}, r"Expected: style in .*Received: style='luon'"),
        ({"style": "bahdanau", "input_feeding": True}, r"Expected: input_feeding=False with style='bahdanau'"),
        ({"attention": "none", "style": "bahdanau"}, r"defaults of \['style'\].*Received: {'style': 'bahdanau'}"),
        ({"attention": "none", "window": "local_m"}, r"has no attention to.*Received: {'window': 'local_m'}"),
        ({"attention": "normalized_additive", "use_scale": True}, r"factor of its own. Expected: use_scale=False"),
        ({"feed_forward_units": 8}, "Expected: feed_forward_units=None and scale_embeddings=None with cell='lstm'"),
        ({**NO_RECURRENCE, "attention": "general", "attention_heads": 1}, "Received: {'attention': "),
        ({**NO_RECURRENCE, "encoder_units": 12}, "Received: {'encoder_units': '12, none of"),
        ({**NO_RECURRENCE, "attention_heads": 4}, "Received: {'decoder_units': '14, not even"),
        ({**NO_RECURRENCE, "residual": True}, "Received: {'residual': "),
        ({**NO_RECURRENCE, "variational_dropout": True}, "Received: {'variational_dropout': "),
        ({**NO_RECURRENCE, "bidirectional": False}, "Received: {'bidirectional': "),
        ({**NO_RECURRENCE, "style": "bahdanau"}, "Received: {'style': "),
        ({**NO_RECURRENCE, "window": "local_m"}, "Received: {'window': "),
        ({**NO_RECURRENCE, "input_feeding": True}, "Received: {'input_feeding': "),
        ({"tie_embeddings": "all", "source_vocabulary": 14}, "one joint vocabulary.*Received: 14 and 13"),
    ],
)
def test_choices_that_do_not_fit(choices, message):
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig.from_dict({**config_of("plain").to_dict(), **choices})


def test_unknown_fields_and_foreign_models():
    with pytest.raises(
        ValueError, match=r"Unknown field of .* Expected: 'decoder_units', the nearest name. Received: 'decoder_unit'"
    ):
        Seq2SeqConfig.from_dict({"source_vocabulary": 9, "target_vocabulary": 9, "decoder_unit": 3})
    with pytest.raises(ValueError, match="no encoder-decoder of build_seq2seq"):
        EncoderDecoder(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2)]))


def test_a_coverage_penalty_counts_real_positions_of_the_returned_alignments():
    net = EncoderDecoder(build_seq2seq(config_of("plain")))
    found = {name: numpy(value) for name, value in net.search(SOURCE, 3, 6, coverage_penalty=0.7).items()}
    logs = np.log(np.clip(found["alignments"].sum(axis=2), 1e-6, 1.0)) * (SOURCE != 0)[:, None]
    expected = found["log_probs"] / ((5 + found["lengths"]) / 6) + 0.7 * logs.sum(axis=-1)
    # Six steps of float32; a position without attention counts -13.8, known to 1e-6 of it.
    np.testing.assert_allclose(found["scores"], expected, rtol=1e-4, atol=1e-4)
    none = EncoderDecoder(build_seq2seq(Seq2SeqConfig(11, 13, encoder_units=4, decoder_units=8, attention="none")))
    with pytest.raises(ValueError, match=r"Expected: coverage_penalty=0 with attention='none'"):
        none.search(SOURCE, 3, 6, coverage_penalty=0.7)
