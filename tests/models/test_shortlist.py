"""A vocabulary shortlist: which words are candidates, and that a model with one is the model without, among them."""

import pathlib
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import Constraints, EncoderDecoder, Ensemble, Seq2SeqConfig, VocabularyShortlist, build_seq2seq
from keras_attention.models.shortlist import ABSENT
from keras_attention.types import EOS_ID, UNK_ID

SOURCES, TARGETS, CANDIDATES = 13, 23, 3
SOURCE = np.asarray([[4, 9, 12, 2], [5, 2, 0, 0], [7, 7, 2, 0]], np.int32)


def models(tie: str = "none", seed: int = 0, **fields: Any) -> tuple[keras.Model, keras.Model, np.ndarray]:
    """The same weights without and with a shortlist, and its candidates for SOURCE, made by hand."""
    sizes: dict[str, Any] = {"embedding_size": 5, "encoder_units": 4, "decoder_units": 7, "tie_embeddings": tie}
    plain = build_seq2seq(Seq2SeqConfig(SOURCES, TARGETS, **sizes | fields))
    short = build_seq2seq(Seq2SeqConfig(SOURCES, TARGETS, **sizes | fields, shortlist=CANDIDATES))
    generator = np.random.default_rng(seed)
    for layer in plain.layers:
        if layer.weights:
            values = [generator.normal(size=weight.shape) for weight in layer.weights]
            for model in (plain, short):
                model.get_layer(layer.name).set_weights(values)
    table, always = generator.integers(4, TARGETS, (SOURCES, CANDIDATES)), [6, 8]
    short.get_layer("shortlist").fill(table, always)
    mask = np.zeros((len(SOURCE), TARGETS), bool)
    for row, words in enumerate(SOURCE):
        mask[row, [*table[words[words > 0]].reshape(-1), *always, EOS_ID, UNK_ID]] = True
    return plain, short, mask


def numbers(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor))


def test_candidates_by_hand() -> None:
    _, short, mask = models()
    assert (numbers(short.get_layer("shortlist")(SOURCE)) == mask).all()
    assert not mask.all(axis=1).any()


@pytest.mark.parametrize("tie", ["none", "target"])
def test_a_step_is_the_softmax_over_a_rows_own_candidates(tie: str) -> None:
    plain, short, _ = models(tie)
    whole, among = EncoderDecoder(plain), EncoderDecoder(short)
    state, memory = whole.encode(SOURCE)
    logits = numbers(whole.step(np.asarray([1, 5, 7], np.int32), state, memory)[0]).astype(np.float64)
    state, memory = among.encode(SOURCE)
    mask = numbers(memory["candidates"])
    weights = np.where(mask, np.exp(logits), 0.0)
    expected = np.log(weights / weights.sum(axis=1, keepdims=True), where=mask, out=np.full(mask.shape, ABSENT))
    for step in (among.step, among.stepper(memory)):
        found = numbers(step(np.asarray([1, 5, 7], np.int32), state, memory)[0])
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32 sums of a few numbers of order 1


@pytest.mark.parametrize("tie", ["none", "target"])
def test_rows_do_not_see_each_other(tie: str) -> None:
    _, short, _ = models(tie)
    net = EncoderDecoder(short)
    together = net.search(SOURCE, beam_size=3, max_length=6)
    for row, words in enumerate(SOURCE):
        alone = net.search(words[None, : np.flatnonzero(words).size], beam_size=3, max_length=6)
        assert numbers(alone["ids"])[0].tolist() == numbers(together["ids"])[row].tolist()


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_search_writes_candidates_alone(beam_size: int) -> None:
    _, short, _ = models()
    net = EncoderDecoder(short)
    mask = numbers(short.get_layer("shortlist")(SOURCE))
    found = net.search(SOURCE, beam_size=beam_size, max_length=6)
    for row, (ids, lengths) in enumerate(zip(numbers(found["ids"]), numbers(found["lengths"]), strict=True)):
        for one, length in zip(ids, lengths, strict=True):
            assert mask[row, one[:length]].all()
    drawn = net.sample(SOURCE, num_samples=3, max_length=5, uniforms=np.full((3, 3, 5), 0.7, np.float32))
    for row, (ids, lengths) in enumerate(zip(numbers(drawn["ids"]), numbers(drawn["lengths"]), strict=True)):
        assert all(mask[row, one[:length]].all() for one, length in zip(ids, lengths, strict=True))


def test_a_prefix_may_hold_any_word() -> None:
    _, short, mask = models()
    net, words = EncoderDecoder(short), [int(np.flatnonzero(~row)[-1]) for row in mask]
    constraints = Constraints(prefix=np.asarray(words)[:, None])
    found = net.search(SOURCE, beam_size=3, max_length=6, constraints=constraints)
    plain = net.search(SOURCE, beam_size=3, max_length=6)
    assert numbers(found["ids"])[:, 0, 0].tolist() == words
    for row, (ids, length) in enumerate(zip(numbers(found["ids"])[:, 0], numbers(found["lengths"])[:, 0], strict=True)):
        assert mask[row, ids[1:length]].all()
    assert (numbers(plain["ids"])[:, 0, 0] != words).all()


def test_all_words_as_candidates_change_nothing() -> None:
    plain, short, _ = models()
    short.get_layer("shortlist").fill(np.full((SOURCES, CANDIDATES), EOS_ID), range(TARGETS))
    one, other = (EncoderDecoder(model).search(SOURCE, beam_size=3, max_length=6) for model in (plain, short))
    assert numbers(one["ids"]).tolist() == numbers(other["ids"]).tolist()
    # Float32 sums in another order.
    np.testing.assert_allclose(numbers(one["scores"]), numbers(other["scores"]), rtol=2e-6)
    fresh = VocabularyShortlist(SOURCES, TARGETS, CANDIDATES)
    assert numbers(fresh(SOURCE)).all()


def test_an_ensemble_of_two() -> None:
    """With the same shortlist: the mean of their probabilities over the candidates."""
    members = [EncoderDecoder(models(seed=0)[1]), EncoderDecoder(models(seed=0)[1])]
    both, one = Ensemble(members), members[0]
    pair, single = (net.search(SOURCE, beam_size=3, max_length=6) for net in (both, one))
    assert numbers(pair["ids"]).tolist() == numbers(single["ids"]).tolist()
    np.testing.assert_allclose(numbers(pair["scores"]), numbers(single["scores"]), rtol=2e-6)  # float32


def test_the_model_says_the_same_teacher_forced(tmp_path: pathlib.Path) -> None:
    """Steps and the functional pass agree, before and after the model was saved."""
    _, short, _ = models("target")
    target = np.asarray([[1, 5, 9]] * 3, np.int32)
    path = tmp_path / "short.keras"
    short.save(path)
    loaded = keras.models.load_model(path)
    assert EncoderDecoder(loaded).config == EncoderDecoder(short).config
    assert EncoderDecoder(loaded).config.shortlist == CANDIDATES
    net = EncoderDecoder(loaded)
    forced = numbers(net.log_probs(SOURCE, target)[0])
    called = numbers(loaded({"source": SOURCE, "target": target}))
    np.testing.assert_allclose(called, forced, rtol=2e-6, atol=2e-6)  # float32 sums in another order
    state, memory = net.encode(SOURCE)
    mask = numbers(memory["candidates"])
    for position in range(3):
        log_probs, state, _ = net.step(target[:, position], state, memory)
        # Likewise.
        np.testing.assert_allclose(numbers(log_probs)[mask], forced[:, position][mask], rtol=1e-5, atol=2e-6)
        assert (numbers(log_probs)[~mask] == ABSENT).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shortlist": 0}, "Expected: shortlist >= 1"),
        ({"shortlist": 2, "copy_words": 2}, "Expected: copy_words=None and source_features=None with it"),
        ({"shortlist": 2, "source_features": 3}, "Expected: copy_words=None and source_features=None with it"),
    ],
)
def test_configs_that_do_not_fit(fields: dict[str, Any], message: str) -> None:
    words = 0 if "source_features" in fields else 9
    with pytest.raises(ValueError, match=message):
        Seq2SeqConfig(words, 9, **fields)


def test_tables_that_do_not_fit() -> None:
    layer = VocabularyShortlist(SOURCES, TARGETS, CANDIDATES)
    with pytest.raises(ValueError, match=r"Expected: a table \(13, 3\). Received: \(13, 2\)"):
        layer.fill(np.zeros((13, 2)), [])
    with pytest.raises(ValueError, match=r"Expected: table of ids 0 to 22. Received: 0 to 23"):
        layer.fill(np.eye(13, 3) * 23, [])
    with pytest.raises(ValueError, match=r"Expected: always of ids 0 to 22. Received: -1 to 4"):
        layer.fill(np.zeros((13, 3)), [4, -1])
    with pytest.raises(ValueError, match="Expected: candidates >= 1"):
        VocabularyShortlist(SOURCES, TARGETS, 0)
