"""Attention in place of recurrence: against NumPy, causality, the cache, and a fit."""

import functools
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import AttentionDecoder, AttentionEncoder, EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.models.transformer import encode_positions
from tests.support.reference import softmax
from tests.support.transformer_reference import decode, encode, normalise, positions

FLOAT32 = {"rtol": 1e-4, "atol": 1e-4}  # float32 through some twenty sums of products, of numbers of some tens


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def test_positions_are_sines_and_cosines():
    found = numpy(encode_positions(ops.arange(7), 6))
    for p in range(7):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            # Float32 angles of at most 6.
            np.testing.assert_allclose(found[p, [i, 3 + i]], [np.sin(angle), np.cos(angle)], atol=1e-6)


SOURCE = np.array([[5, 6, 7, 8, 4, 9, 2], [10, 4, 9, 2, 0, 0, 0]], "int32")
TARGET = np.array([[1, 5, 6, 7, 12], [1, 4, 4, 9, 8]], "int32")
LENGTHS, UNITS, LAYERS = (7, 4), 14, {"encoder": 2, "decoder": 3}
SIZES = {
    **{"embedding_size": 5, "feed_forward_units": 17, "attention": "scaled_dot", "attention_heads": 7},
    **{f"{side}_units": UNITS for side in LAYERS},
    **{f"{side}_layers": layers for side, layers in LAYERS.items()},
}
MODELS = {
    "plain": {},
    "before there was a factor": {"scale_embeddings": False},
    "tied": {"tie_embeddings": "all"},
    "features": {"source_features": 3},
}


@functools.cache
def random_model(name):
    """A model of random weights, biases and normalisations among them; its view, weights by side and path, source."""
    choices = {"source_vocabulary": 13, **MODELS[name]}
    if name == "features":
        choices["source_vocabulary"] = 0
    config = Seq2SeqConfig(**choices, target_vocabulary=13, cell="self_attention", **SIZES)
    model, rng = build_seq2seq(config), np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(rng.normal(scale=0.5, size=weight.shape) + weight.path.endswith("gamma"))
    weights = {weight.path: numpy(weight).astype("float64") for weight in model.weights}
    sides = {
        side: {path.removeprefix(f"{side}/"): values for path, values in weights.items() if path.startswith(f"{side}/")}
        for side in LAYERS
    }
    source = SOURCE
    if name == "features":
        source = rng.normal(size=(*SOURCE.shape, 3)).astype("float32") * (SOURCE != 0)[:, :, None]
    return EncoderDecoder(model), weights, sides, source


@functools.cache
def expected_of(name):
    """For each row: the layers' outputs in encoder and decoder, log-probabilities, alignment."""
    _, weights, sides, source = random_model(name)
    scaled, rows = name != "before there was a factor", []
    for row, target, length in zip(source, TARGET, LENGTHS, strict=True):
        table = weights["embedding/embeddings" if name == "tied" else "target_embedding/embeddings"]
        if name == "features":
            embedded = row[:length] @ weights["source_embedding/kernel"] + weights["source_embedding/bias"]
        else:
            embedded = (table if name == "tied" else weights["source_embedding/embeddings"])[row[:length]]
        encoded = encode(embedded, sides["encoder"], LAYERS["encoder"], scaled and name != "features")
        decoded, alignment = decode(table[target], encoded[-1], sides["decoder"], LAYERS["decoder"], scaled)
        logits = decoded[-1] @ weights["output/kernel"] + weights["output/bias"]
        logits = logits @ table.T if name == "tied" else logits
        rows.append((encoded, decoded, np.log(softmax(logits)), alignment))
    return rows


@pytest.mark.parametrize("name", MODELS)
def test_each_layer_is_that_of_the_papers(name):
    net, _, _, source = random_model(name)
    mask = np.arange(7)[None] < np.array(LENGTHS)[:, None]
    encoder, decoder, places = net.encoder, net.decoder, np.arange(7, dtype="int32")
    embedded = net.source_embedding(source)
    x = encoder.place(embedded, places)
    inner = [x]
    for block in encoder.blocks:
        x, _ = block(x, word_mask=mask)
        inner.append(x)
    encoded = encoder(embedded, mask)
    memory = encoded["values"]
    assert not numpy(memory)[~mask].any()
    y = decoder.place(net.target_embedding(TARGET), places[:5])
    outer = [y]
    for block in decoder.blocks:
        y, _ = block(y, memory=(memory, block.project_memory(memory), mask), use_causal_mask=True)
        outer.append(y)
    outputs, alignments = decoder(net.target_embedding(TARGET), encoded, return_attention_scores=True)
    for b, (first, second, _, alignment) in enumerate(expected_of(name)):
        length = LENGTHS[b]
        for found, expected in zip([*inner, memory], first, strict=True):
            np.testing.assert_allclose(numpy(found)[b, :length], expected, **FLOAT32)
        for found, expected in zip([*outer, outputs], second, strict=True):
            np.testing.assert_allclose(numpy(found)[b], expected, **FLOAT32)
        np.testing.assert_allclose(numpy(alignments)[b, :, :length], alignment, **FLOAT32)


@pytest.mark.parametrize("name", MODELS)
def test_each_step_is_that_of_the_papers(name):
    """The cache of each block holds what its self-attention reads: the layers' normalised inputs, and their keys."""
    net, _, sides, source = random_model(name)
    weights, logits = sides["decoder"], numpy(net.model({"source": source, "target": TARGET}))
    state, memory = net.encode(source, capacity=6)
    for t in range(5):
        log_probs, state, alignment = net.step(TARGET[:, t], state, memory)
        for b, (_, layers, expected, aligned) in enumerate(expected_of(name)):
            np.testing.assert_allclose(numpy(log_probs)[b], expected[t], **FLOAT32)
            np.testing.assert_allclose(numpy(ops.log_softmax(logits[b, t])), expected[t], **FLOAT32)
            np.testing.assert_allclose(numpy(alignment)[b, : LENGTHS[b]], aligned[t], **FLOAT32)
            for index in range(LAYERS["decoder"]):
                read = normalise(layers[index], weights, f"block_{index}/self_norm")[: t + 1]
                values, keys = (numpy(state[f"{kind}_{index}"])[b] for kind in ("values", "keys"))
                np.testing.assert_allclose(values[: t + 1], read, **FLOAT32)
                assert not values[t + 1 :].any()
                projected = (read @ weights[f"block_{index}/self_attention/key_kernel"]).reshape(t + 1, 7, 2)
                np.testing.assert_allclose(keys[:, : t + 1], projected.transpose(1, 0, 2), **FLOAT32)


@pytest.mark.parametrize("tie", ["none", "target"])
def test_words_begin_as_large_as_positions(tie):
    """By the closed form of Glorot's rule: n inputs of variance v and m outputs make a variance of 2 n v / (n + m)."""
    size, units, words = 48, 96, 211
    choices = {"attention": "dot", "encoder_units": units, "decoder_units": units, "tie_embeddings": tie}
    net = EncoderDecoder(build_seq2seq(Seq2SeqConfig(words, words, "self_attention", size, **choices)))
    tables = [numpy(layer.embeddings) for layer in (net.source_embedding, net.target_embedding)]
    for table, stack in zip(tables, (net.encoder, net.decoder), strict=True):
        placed = numpy(stack.place(table[:, None], np.zeros((1,), "int32")))[:, 0]
        added = placed - positions(1, units)
        expected = 2 * units / (size + units)  # of variance 1 / size, times `units`, `size` inputs
        # The variance of 20,256 numbers has a standard error of 1 %, that of a kernel of 4,608 one of 2 %.
        assert added.var() == pytest.approx(expected, rel=0.1)
    assert (tables[0] != tables[1]).any(axis=-1).all(), "each table has numbers of its own"


def without_the_factor(path):
    """Rewrite a saved model as it was before layers knew of the factor."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    text = files["config.json"].decode()
    assert text.count('"scale_embeddings": false') == 2
    files["config.json"] = text.replace(', "scale_embeddings": false', "").encode()
    assert b"scale_embeddings" not in files["config.json"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_what_was_saved_before_the_factor_keeps_its_numbers(tmp_path):
    name = "before there was a factor"
    net = random_model(name)[0]
    net.model.save(tmp_path / "model.keras")
    without_the_factor(tmp_path / "model.keras")
    loaded = EncoderDecoder(keras.models.load_model(tmp_path / "model.keras"))
    log_probs, _ = loaded.log_probs(SOURCE, TARGET)
    for b, (_, _, expected, _) in enumerate(expected_of(name)):
        np.testing.assert_allclose(numpy(log_probs)[b], expected, **FLOAT32)
    fields = net.config.to_dict()
    assert fields.pop("scale_embeddings") is False
    assert loaded.config == net.config == Seq2SeqConfig.from_dict(fields)
    assert Seq2SeqConfig(**fields).scale_embeddings is True, "a new one"


def test_the_factor_is_of_models_without_recurrence():
    assert Seq2SeqConfig(9, 11).scale_embeddings is None
    for value in (True, False):
        with pytest.raises(ValueError, match=rf"scale_embeddings=None with cell='lstm'\. Received: .*={value}"):
            Seq2SeqConfig(9, 11, scale_embeddings=value)
    with pytest.raises(ValueError, match=r"Expected: scale_embeddings, true or false\. Received: scale_embeddings=1"):
        Seq2SeqConfig(9, 11, "self_attention", scale_embeddings=1)


def test_positions_far_beyond_those_of_training():
    """There is no last position: a float32 angle of some thousands is known to 5e-4."""
    far = np.array([997, 4999])
    found = numpy(encode_positions(ops.convert_to_tensor(far), 6))
    angles = far[:, None] / 10000.0 ** (np.arange(3) / 3)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # four roundings of such an angle


def test_a_word_sees_those_before_it_alone():
    decoder = AttentionDecoder(6, 2, {"num_heads": 2})
    rng = np.random.default_rng(1)
    embedded = rng.normal(size=(1, 7, 3)).astype("float32")
    encoded = {"values": rng.normal(size=(1, 5, 6)).astype("float32"), "mask": np.ones((1, 5), bool), "state": {}}
    before = numpy(decoder(embedded, encoded))
    embedded[:, 4] += 1.0
    after = numpy(decoder(embedded, encoded))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).min() > 0


def test_the_order_of_the_source_matters():
    encoder = AttentionEncoder(6, 1, {"num_heads": 2})
    row = np.random.default_rng(1).normal(size=(1, 3, 4)).astype("float32")
    mask = np.ones((1, 3), bool)
    assert (
        # Far above what float32 rounds, 1e-6.
        np.abs(numpy(encoder(row, mask)["values"]) - numpy(encoder(row[:, ::-1], mask)["values"])[:, ::-1]).max() > 1e-3
    )


def test_the_cache_may_be_longer_than_the_output():
    model = build_seq2seq(
        Seq2SeqConfig(
            11, 13, "self_attention", 5, 6, decoder_units=6, attention="scaled_dot", attention_heads=3, decoder_layers=2
        )
    )
    net = EncoderDecoder(model)
    source = np.array([[5, 6, 7, 2], [4, 2, 0, 0]], "int32")
    short, long = (net.search(source, 3, 6, capacity=capacity) for capacity in (6, 17))
    np.testing.assert_array_equal(numpy(short["ids"]), numpy(long["ids"])[:, :, :6])
    np.testing.assert_allclose(numpy(short["scores"]), numpy(long["scores"]), **FLOAT32)
    state, memory = net.encode(source, capacity=4)
    assert tuple(state["keys_1"].shape) == (2, 3, 4, 2)
    _, after, _ = net.step(np.array([1, 1], "int32"), state, memory)
    assert net.representation(after).shape == (2, 6)
    np.testing.assert_array_equal(numpy(net.representation(after)), numpy(after["values_1"])[:, 0])


@pytest.mark.slow
def test_fit_learns_to_reverse():
    """What needs positions: each word of the output is another one of the source."""
    keras.utils.set_random_seed(4)
    config = Seq2SeqConfig(9, 9, "self_attention", 16, 16, decoder_units=16, attention="scaled_dot", attention_heads=2)
    model = build_seq2seq(config)
    rng = np.random.default_rng(3)
    words = rng.integers(4, 9, (512, 3))
    end, begin = np.full((512, 1), 2), np.full((512, 1), 1)
    source = np.concatenate([words, end], axis=1).astype("int32")
    target = np.concatenate([begin, words[:, ::-1]], axis=1).astype("int32")
    labels = np.concatenate([words[:, ::-1], end], axis=1).astype("int32")
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit({"source": source, "target": target}, labels, epochs=12, batch_size=32, verbose=0)
    result = EncoderDecoder(model).search(source[:64], beam_size=2, max_length=5)
    assert (numpy(result["ids"])[:, 0, :4] == labels[:64]).all(axis=1).mean() > 0.95  # learnt: all but a few of 64


@pytest.mark.parametrize("units", [1, 7])
def test_wrong_depths(units):
    with pytest.raises(ValueError, match="Expected: units, an even number"):
        AttentionEncoder(units)
