"""Vocabulary projection and loss in one: the numbers and gradients of the stock loss, whatever the chunks."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.training.losses.cross_entropy import TokenCrossEntropy
from keras_attention.training.losses.fused import chunked_cross_entropy, exponentiate, fuse_loss
from tests.support.gradients import gradients
from tests.support.parts import fast

ROWS, DEPTH, WORDS = 7, 3, 11


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype("float32")


def arrays() -> list[np.ndarray]:
    return [draw(ROWS, DEPTH), draw(WORDS, DEPTH), draw(WORDS)]


SCALE = np.asarray([0.3, 0.0, 0.2, 0.1, 0.0, 0.3, 0.1], "float32")


LABELS = np.asarray([4, 0, 10, 4, 7, 2, 0], "int32")


def entropy(hidden, weights, bias, label_share=1.0):
    """As its definition has it; no chunks, no gradient of its own."""
    logits = ops.add(ops.matmul(hidden, ops.transpose(weights)), bias)
    label = ops.sum(logits * ops.one_hot(LABELS, WORDS), axis=-1)
    return ops.sum(ops.convert_to_tensor(SCALE) * (ops.logsumexp(logits, axis=-1) - label_share * label))


def chunked(hidden, weights, bias, label_share=1.0, chunks=2, columns=False, products="float32"):
    given = ops.convert_to_tensor(LABELS), ops.convert_to_tensor(SCALE)
    weights = ops.transpose(weights) if columns else weights
    return chunked_cross_entropy(hidden, weights, bias, *given, label_share, chunks, products, columns)


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("label_share", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("chunks", [1, 2, 3, 7, 9])
def test_chunks_change_neither_value_nor_gradients(chunks, label_share, columns) -> None:
    def run(*tensors):
        return chunked(*tensors, label_share, chunks, columns)

    def whole(*tensors):
        return entropy(*tensors, label_share)

    # Float32 sums in another order.
    assert float(run(*map(ops.convert_to_tensor, arrays()))) == pytest.approx(float(whole(*arrays())), rel=1e-6)
    for got, expected in zip(gradients(run, arrays()), gradients(whole, arrays()), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)  # float32 sums of 11 terms in another order


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
@pytest.mark.parametrize("label_share", [0.0, 1.0])
def test_products_are_rounded_and_nothing_else(label_share, columns) -> None:
    """8 bits of mantissa in sums of a few numbers near 1: some hundredths. A term left out makes several tenths."""

    def run(*tensors):
        return chunked(*tensors, label_share, 2, columns, "bfloat16")

    def whole(*tensors):
        return entropy(*tensors, label_share)

    pairs = list(zip(gradients(run, arrays()), gradients(whole, arrays()), strict=True))
    for got, expected in pairs:
        # Products of numbers near 1, rounded to 8 bits: 2.4e-3 seen.
        np.testing.assert_allclose(got, expected, atol=0.01)
    assert max(np.abs(got - expected).max() for got, expected in pairs) > 1e-4  # above what float32 rounds
    # Likewise: 4e-3 of 4.6 seen.
    assert float(run(*map(ops.convert_to_tensor, arrays()))) == pytest.approx(float(whole(*arrays())), abs=0.03)


def test_the_gradient_is_scaled_by_what_comes_from_above() -> None:
    def tripled(*tensors):
        return 3.0 * chunked(*tensors)

    for got, expected in zip(gradients(tripled, arrays()), gradients(entropy, arrays()), strict=True):
        np.testing.assert_allclose(got, 3 * expected, rtol=1e-5, atol=3e-6)  # float32 sums of 11 terms in another order


def test_great_logits_do_not_overflow() -> None:
    hidden, weights, bias = arrays()
    value = chunked(*map(ops.convert_to_tensor, (1e4 * hidden, weights, bias)))
    # Float32, one great term.
    assert float(value) == pytest.approx(float(entropy(1e4 * hidden, weights, bias)), rel=1e-6)


@pytest.mark.parametrize("rows", [0, ROWS])
def test_sums_of_exponentials_are_where_their_logits_are(rows) -> None:
    """With rows and without; under PyTorch also on another device than the one that tensors are made on by default."""
    logits = ops.convert_to_tensor(draw(rows, WORDS))
    expected = np.log(np.sum(np.exp(draw(rows, WORDS)), axis=-1, keepdims=True))
    exponentials, sums, partition = map(ops.convert_to_numpy, exponentiate(logits))
    assert (exponentials.shape, sums.shape) == ((rows, WORDS), (rows, 1))
    np.testing.assert_allclose(partition, expected, rtol=1e-6)  # float32, 11 terms
    if keras.backend.backend() == "torch":
        with keras.device("meta"):
            assert {str(found.device) for found in exponentiate(logits.to("meta"))} == {"meta"}


@pytest.mark.parametrize("tie", fast(["all", "target", "none"], "target"))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_fused_model_fits_as_one_with_the_stock_loss(tie, smoothing) -> None:
    """Two updates of plain gradient descent leave the same weights."""
    config = Seq2SeqConfig(
        13, 13, embedding_size=4, encoder_units=3, decoder_units=5, attention="general", tie_embeddings=tie
    )
    keras.utils.set_random_seed(1)
    model, twin = build_seq2seq(config), build_seq2seq(config)
    twin.set_weights(model.get_weights())
    fused = fuse_loss(model, smoothing)
    assert {id(v) for v in fused.trainable_variables} == {id(v) for v in model.trainable_variables}
    generator = np.random.default_rng(2)
    inputs = {name: generator.integers(3, 13, size=(4, 5)).astype("int32") for name in ("source", "target")}
    labels = generator.integers(3, 13, size=(4, 5)).astype("int32")
    labels[1, 2:] = 0
    fused.compile(keras.optimizers.SGD(0.5))
    twin.compile(keras.optimizers.SGD(0.5), loss=TokenCrossEntropy(smoothing))
    for _ in range(2):
        loss = fused.train_on_batch({**inputs, "labels": labels})
        expected = twin.train_on_batch(inputs, labels)
        # Float32 sums in another order, after an update.
        assert float(np.asarray(loss).ravel()[0]) == pytest.approx(float(np.asarray(expected).ravel()[0]), rel=1e-5)
    for one, other in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)  # two float32 updates


def test_a_batch_without_a_label_has_no_loss_and_no_gradient() -> None:
    model = build_seq2seq(Seq2SeqConfig(13, 13, embedding_size=4, encoder_units=3, decoder_units=5))
    fused = fuse_loss(model, 0.1)
    fused.compile(keras.optimizers.SGD(0.5))
    before = model.get_weights()
    ids = np.full((2, 3), 5, "int32")
    assert float(np.asarray(fused.train_on_batch({"source": ids, "target": ids, "labels": 0 * ids})).ravel()[0]) == 0
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
