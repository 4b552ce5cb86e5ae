"""Checks of token ids: what is refused, in which words, and where a user meets them."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.models.id_checks import check_features, check_ids
from keras_attention.search import Constraints

GOOD = [[4, 5, 2], [6, 2, 0]]
WRONG = {
    "negative": ([[4, -3, 2]], r"0 <= id < 7. Received: ids\[0, 1\]=-3"),
    "too large": ([[4, 5, 2], [7, 2, 0]], r"0 <= id < 7. Received: ids\[1, 0\]=7"),
    "floats": ([[4.0, 2.0]], "of an integer dtype. Received: dtype float"),
    "bools": ([[True, False]], "of an integer dtype. Received: dtype bool"),
    "one row": ([4, 5, 2], r"shape \(batch, length\). Received: ids.shape=\(3,\)"),
    "three axes": ([[[4, 2]]], r"shape \(batch, length\). Received: ids.shape=\(1, 1, 2\)"),
    "ragged": ([[4, 5, 2], [6, 2]], r"rows of one length in ids.*Received: rows of lengths \[3, 2\]"),
    "left padding": ([[0, 4, 2]], r"padded on the right.*Received: ids\[0\]=\[0, 4, 2\]"),
    "a hole": ([[4, 2, 0], [4, 0, 2]], r"Received: ids\[1\]=\[4, 0, 2\]"),
    "no EOS": ([[4, 5, 2], [4, 5, 0]], r"2 as the last id of each row of ids. Received: ids\[1\]=\[4, 5, 0\]"),
    "no token": ([[4, 2], [0, 0]], r"as the last id of each row of ids. Received: ids\[1\]=\[0, 0\]"),
}


@pytest.mark.parametrize("kind", ["list", "array", "tensor"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name, kind) -> None:
    given, message = WRONG[name]
    if kind != "list" and name != "ragged":
        given = np.asarray(given)
    if kind == "tensor" and name != "ragged":
        given = ops.convert_to_tensor(given)
    with pytest.raises(ValueError, match=message):
        check_ids("ids", given, 7, ends=True)


@pytest.mark.parametrize("given", [GOOD, np.asarray(GOOD, "uint8"), np.zeros((0, 3), "int32"), [[2]]])
def test_what_is_not(given) -> None:
    check_ids("ids", given, 7, ends=True)
    check_ids("ids", ops.convert_to_tensor(np.asarray(given, "int32")), 7, ends=True)
    check_ids("ids", [[4, 5]], 7)
    check_ids("ids", keras.KerasTensor((None, None), "int32"), 7, ends=True)
    with pytest.raises(ValueError, match="Received: dtype float32"):
        check_ids("ids", keras.KerasTensor((None, None), "float32"), 7)


def test_features() -> None:
    values = np.ones((2, 3, 5), "float32")
    check_features("source", values, 5)
    check_features("source", values.tolist(), 5)
    for wrong, message in (
        (values[0], r"shape \(batch, length, 5\). Received: source.shape=\(3, 5\)"),
        (values[:, :, :4], r"Received: source.shape=\(2, 3, 4\)"),
        (values * np.nan, "finite numbers in source"),
        (values * [[[1]], [[0]]], r"Received: source\[1\], a row of zeros"),
    ):
        with pytest.raises(ValueError, match=message):
            check_features("source", wrong, 5)


@pytest.fixture(scope="module")
def net():
    sizes = {"source_vocabulary": 7, "target_vocabulary": 6, "embedding_size": 3}
    return EncoderDecoder(build_seq2seq(Seq2SeqConfig(**sizes, encoder_units=2, decoder_units=5)))


@pytest.mark.parametrize("search", ["search", "sample", "contrast", "agree"])
def test_searches_refuse_what_they_would_read_wrongly(net, search) -> None:
    for ids in ([[4, -3, 2]], np.array([[4.7, 2.0]]), [[0, 4, 2]], [[4, 5]], [[4, 5, 2], [6, 2]], [4, 2]):
        with pytest.raises(ValueError, match=r"Expected: .*source.*Received: "):
            getattr(net, search)(ids, max_length=3)


def test_scores_refuse_wrong_targets(net) -> None:
    good = {"source": [[4, 2]], "target": [[1, 5]], "labels": [[5, 2]]}
    assert net.score(**good)[0].shape == (1, 2)
    for name, wrong in (("source", [[7, 2]]), ("target", [[1, 6]]), ("labels", [[5, 4]]), ("labels", [[-1, 2]])):
        with pytest.raises(ValueError, match=rf"{name}\[0"):
            net.score(**{**good, name: wrong})


@pytest.mark.parametrize("search", ["search", "sample", "contrast"])
def test_searches_refuse_prefixes_that_cannot_be_written(net, search) -> None:
    for prefix in ([[6]], [[-1]]):
        with pytest.raises(ValueError, match="ids of the vocabulary in prefix, 0 <= id < 6"):
            getattr(net, search)([[4, 2]], max_length=3, constraints=Constraints(prefix=np.array(prefix)))
