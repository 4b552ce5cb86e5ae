"""Attention in place of recurrence: against NumPy, causality, the cache, and a fit."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import AttentionDecoder, AttentionEncoder, EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.attention_block import AttentionBlock
from keras_attention.self_attention import encode_positions
from tests.reference import softmax

FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # float32 through three sums of products


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def test_positions_are_sines_and_cosines():
    found = numpy(encode_positions(ops.arange(7), 6))
    for p in range(7):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            # Float32 angles of at most 6.
            np.testing.assert_allclose(found[p, [i, 3 + i]], [np.sin(angle), np.cos(angle)], atol=1e-6)


def weights_of(layer, *names):
    found = {weight.path.split("/", 1)[-1]: numpy(weight).astype("float64") for weight in layer.weights}
    return [next(value for path, value in found.items() if path.endswith(name)) for name in names]


def normalised(x, gamma, beta):
    centred = x - x.mean(-1, keepdims=True)
    return gamma * centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3) + beta  # Keras' epsilon


def heads(query, value, allowed, query_kernel, key_kernel, value_kernel, output_kernel):
    """Vaswani et al. 2017, section 3.2, row by row: `allowed[t, s]`."""
    count, _, size = value_kernel.shape
    parts = []
    for h in range(count):
        columns = slice(h * size, (h + 1) * size)
        scores = (query @ query_kernel[:, columns]) @ (value @ key_kernel[:, columns]).T / np.sqrt(size)
        weights = softmax(np.where(allowed, scores, -1e30))
        parts.append(weights @ (value @ value_kernel[h]))
    return np.concatenate(parts, axis=-1) @ output_kernel


KERNELS = ("query_kernel", "key_kernel", "value_kernel", "output_kernel")


@pytest.mark.parametrize("reads_memory", [False, True])
def test_a_block_is_that_of_the_papers(reads_memory):
    block = AttentionBlock(6, 13, {"num_heads": 3}, reads_memory)
    block.build((None, None, 6))
    rng = np.random.default_rng(5)
    for weight in block.weights:
        weight.assign(rng.normal(size=weight.shape))
    x, memory = rng.normal(size=(2, 5, 6)).astype("float32"), rng.normal(size=(2, 7, 6)).astype("float32")
    lengths = [7, 4]
    mask = np.arange(7)[None] < np.array(lengths)[:, None]
    given = (memory, block.project_memory(memory), mask) if reads_memory else None
    found, alignment = block(x, memory=given, use_causal_mask=True)
    causal = np.tril(np.ones((5, 5), bool))
    for b in range(2):
        row = x[b].astype("float64")
        normal = normalised(row, *weights_of(block.self_norm, "gamma", "beta"))
        row = row + heads(normal, normal, causal, *weights_of(block.self_attention, *KERNELS))
        if reads_memory:
            normal = normalised(row, *weights_of(block.attention_norm, "gamma", "beta"))
            real = np.ones((5, 1), bool) & mask[b]
            row = row + heads(normal, memory[b].astype("float64"), real, *weights_of(block.attention, *KERNELS))
        normal = normalised(row, *weights_of(block.feed_forward_norm, "gamma", "beta"))
        kernel, bias = weights_of(block.hidden, "kernel", "bias")
        other_kernel, other_bias = weights_of(block.projection, "kernel", "bias")
        row = row + np.maximum(normal @ kernel + bias, 0) @ other_kernel + other_bias
        np.testing.assert_allclose(numpy(found)[b], row, rtol=1e-5, atol=1e-4)  # numbers of some tens in float32
    assert (alignment is None) != reads_memory


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
