"""Sampling, contrastive search and ensembles over tables: against NumPy, and their laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_attention import Constraints, beam_search, contrastive_search, ensemble_step, greedy_search, sample_search
from tests.support.search_reference import exhaustive_search
from tests.support.search_tables import (
    BOS,
    EOS,
    PAD,
    STEPS,
    VOCABULARY,
    WORDS,
    compiled,
    numpy,
    random_tables,
    start,
    table_step,
)

FLOAT32 = {"rtol": 5e-6, "atol": 5e-6}  # float32 sums of at most five log-probabilities


def likelier_part(log_probs, temperature, top_k, top_p):
    """The distribution that a word is drawn from, written from the definitions; where it is cut, likeliest first."""
    order = sorted(WORDS, key=lambda word: (-log_probs[word], word))[: top_k or len(WORDS)]
    if top_k is None and top_p == 1:
        order = sorted(WORDS)
    weights = np.exp(np.array([log_probs[word] for word in order]) / temperature)
    weights /= weights.sum()
    kept = 1
    while weights[:kept].sum() < top_p and kept < len(order):
        kept += 1
    return order[:kept], weights[:kept] / weights[:kept].sum()


def drawn(table, uniforms, temperature, top_k, top_p):
    """One hypothesis: each word by inverting the distribution function."""
    ids = []
    for t, chance in enumerate(uniforms):
        words, weights = likelier_part(table[ids[-1] if ids else BOS, t], temperature, top_k, top_p)
        rank = int(np.searchsorted(np.cumsum(weights), chance, side="right"))
        ids.append(words[min(rank, len(words) - 1)])
        if ids[-1] == EOS:
            break
    return ids


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    top_k=st.sampled_from([None, 1, 2, 3]),
    top_p=st.sampled_from([0.3, 0.8, 1.0]),
)
def test_words_are_drawn_by_inverting_the_distribution_function(seed, temperature, top_k, top_p):
    tables = random_tables(seed, batch=2)
    uniforms = np.random.default_rng(seed).random((2, 3, STEPS)).astype("float32")
    run = compiled(sample_search, num_samples=3, top_k_words=top_k, top_p=top_p, max_length=STEPS)
    values = {"temperature": np.float32(temperature), "uniforms": uniforms}
    values = {name: ops.convert_to_tensor(value) for name, value in values.items()}
    result = numpy(run(*start(tables), **values))
    for b in range(2):
        for k in range(3):
            expected = drawn(tables[b].astype("float64"), uniforms[b, k], temperature, top_k, top_p)
            length = result["lengths"][b, k]
            assert list(result["ids"][b, k, :length]) == expected
            previous = [BOS, *expected[:-1]]
            total = sum(tables[b, p, t, w] for t, (p, w) in enumerate(zip(previous, expected, strict=True)))
            assert result["log_probs"][b, k] == pytest.approx(total, abs=1e-5)  # float32 sums of at most five terms
            assert result["finished"][b, k] == (expected[-1] == EOS)
            np.testing.assert_array_equal(result["alignments"][b, k, :length, 0], previous)
            assert not result["alignments"][b, k, length:].any()


@pytest.mark.slow
def test_a_margin_is_how_far_a_draw_is_from_another_word():
    for seed in range(20):
        tables, uniforms = random_tables(seed), np.random.default_rng(seed).random((1, 1, STEPS)).astype("float32")

        def ids(chances, tables=tables):
            chances = np.clip(chances, 0, 1 - 1e-6)
            result = numpy(sample_search(table_step, *start(tables), max_length=STEPS, uniforms=chances))
            return result["ids"].tolist(), result["margins"][0], result["lengths"][0, 0]

        found, margin, length = ids(uniforms)
        assert 0 < margin < 1
        assert ids(uniforms - 0.9 * margin)[0] == ids(uniforms + 0.9 * margin)[0] == found
        moves = [(t, sign) for t in range(length) for sign in (-1.1, 1.1)]
        steps = [np.eye(STEPS, dtype="float32")[t] * np.float32(sign * margin) for t, sign in moves]
        assert any(ids(uniforms + step)[0] != found for step in steps)


def test_margins_count_both_cuts():
    tables = np.full((1, VOCABULARY, STEPS, VOCABULARY), -np.inf, "float32")
    tables[:, :, :, 3:6] = np.log([0.5, 0.3, 0.2])
    uniforms = np.full((1, 1, 1), 0.2, "float32")
    for options, expected in (
        ({}, 0.3),  # of 0.5; 0 is no border
        ({"top_k_words": 1}, np.log(0.5 / 0.3)),
        ({"top_p": 0.45}, 0.05),
        ({"top_p": 0.81}, 0.01),
    ):
        result = numpy(sample_search(table_step, *start(tables), max_length=1, uniforms=uniforms, **options))
        # Differences of float32 probabilities: 5e-6 of 0.01.
        assert result["margins"][0] == pytest.approx(expected, rel=1e-4), options


def test_a_cut_may_be_a_tensor():
    tables, uniforms = random_tables(9, batch=2), np.random.default_rng(9).random((2, 3, STEPS)).astype("float32")
    results = [
        numpy(sample_search(table_step, *start(tables), num_samples=3, max_length=STEPS, top_p=p, uniforms=uniforms))
        for p in (0.7, ops.convert_to_tensor(np.float32(0.7)))
    ]
    np.testing.assert_array_equal(results[0]["ids"], results[1]["ids"])


def test_words_come_as_often_as_they_are_likely():
    count = 4000
    tables = random_tables(5)
    result = numpy(sample_search(table_step, *start(tables), num_samples=count, max_length=1, seed=11))
    for word in WORDS:
        p = np.exp(tables[0, BOS, 0, word])
        p /= np.exp(tables[0, BOS, 0, list(WORDS)]).sum()
        found = np.mean(result["ids"][0, :, 0] == word)
        assert found == pytest.approx(p, abs=5 * float(p * (1 - p) / count) ** 0.5)  # five standard deviations


def test_a_seed_gives_the_same_outputs_and_another_one_others():
    tables = random_tables(2, batch=3)
    ids = [
        numpy(sample_search(table_step, *start(tables), num_samples=7, max_length=STEPS, seed=seed))["ids"]
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(ids[0], ids[1])
    assert (ids[0] != ids[2]).any()


@pytest.mark.parametrize("options", [{"top_k_words": 1}, {"temperature": 1e-4}, {"top_p": 1e-6}])
def test_the_least_freedom_is_greedy_search(options):
    tables = random_tables(4, batch=3)
    sample = numpy(sample_search(table_step, *start(tables), max_length=STEPS, seed=3, length_penalty=1.0, **options))
    greedy = numpy(greedy_search(table_step, *start(tables), max_length=STEPS, length_penalty=1.0))
    for name in set(greedy) - {"margins"}:
        np.testing.assert_allclose(sample[name], greedy[name], err_msg=name, **FLOAT32)


def test_samples_honour_constraints():
    tables = random_tables(6, batch=5)
    allowed = np.array([word != 4 for word in range(VOCABULARY)])
    rules = Constraints(min_length=3, allowed=allowed, prefix=np.array([[3], [5], [PAD], [3], [5]]), no_repeat_ngram=2)
    result = numpy(
        sample_search(table_step, *start(tables), num_samples=9, max_length=STEPS, seed=1, constraints=rules)
    )
    assert (result["lengths"] >= 3).all()
    assert not (result["ids"] == 4).any()
    for b, word in enumerate([3, 5, None, 3, 5]):
        assert word is None or (result["ids"][b, :, 0] == word).all()
    for ids in result["ids"].reshape(-1, STEPS):
        pairs = [pair for pair in itertools.pairwise(ids) if pair[1] != PAD]
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "Expected: num_samples >= 1"),
        ({"temperature": 0.0}, "Expected: temperature > 0"),
        ({"top_k_words": 0}, "Expected: top_k_words >= 1"),
        ({"top_p": 0.0}, "Expected: 0 < top_p <= 1"),
        ({"constraints": Constraints(phrases=[[[3]]])}, "Expected: beam_search, of any beam_size"),
    ],
)
def test_wrong_arguments_of_sampling(options, message):
    with pytest.raises(ValueError, match=message):
        sample_search(table_step, *start(random_tables(0)), max_length=2, **options)


VECTORS = np.random.default_rng(0).normal(size=(VOCABULARY, 3)).astype("float32")


def speaking_step(token, state, memory):
    """`table_step` that keeps a vector for the word it read."""
    log_probs, after, alignment = table_step(token, {"t": state["t"]}, memory)
    return log_probs, {**after, "vector": ops.take(ops.convert_to_tensor(VECTORS), token, axis=0)}, alignment


def speaking_start(tables):
    state, memory = start(tables)
    return {**state, "vector": np.zeros((len(tables), 3), "float32")}, memory


def vector_of(state):
    return state["vector"]


def contrasted(table, k, alpha):
    """Su et al. 2022, equation 5."""
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    ids = []
    for t in range(STEPS):
        row = table[ids[-1] if ids else BOS, t]
        likely = sorted(WORDS, key=lambda word: (-row[word], word))[:k]
        merits = [
            (1 - alpha) * np.exp(row[w]) - alpha * max((unit[w] @ unit[j] for j in ids), default=0.0) for w in likely
        ]
        ids.append(likely[int(np.argmax(merits))])
        if ids[-1] == EOS:
            break
    return ids


@settings(max_examples=25, deadline=None)
# Not alpha 1: of two words that both came before, with a cosine of 1 each, rounding would choose.
@given(seed=st.integers(0, 10**6), k=st.sampled_from([2, 4]), alpha=st.sampled_from([0.3, 0.6, 0.9]))
def test_contrastive_search_is_that_of_the_paper(seed, k, alpha):
    tables = random_tables(seed, batch=3)
    run = compiled(contrastive_search, speaking_step, representation=vector_of, candidates=k, max_length=STEPS)
    result = numpy(run(*speaking_start(tables), alpha=ops.convert_to_tensor(np.float32(alpha))))
    for b in range(3):
        expected = contrasted(tables[b].astype("float64"), k, alpha)
        assert list(result["ids"][b, 0, : result["lengths"][b, 0]]) == expected
        previous = [BOS, *expected[:-1]]
        total = sum(tables[b, p, t, w] for t, (p, w) in enumerate(zip(previous, expected, strict=True)))
        assert result["log_probs"][b, 0] == pytest.approx(total, abs=1e-5)  # float32 sums of at most five terms
        np.testing.assert_array_equal(result["alignments"][b, 0, : len(expected), 0], previous)


@pytest.mark.parametrize("options", [{"candidates": 1}, {"alpha": 0.0}])
def test_contrastive_search_without_contrast_is_greedy(options):
    tables = random_tables(8, batch=3)
    found = numpy(contrastive_search(speaking_step, *speaking_start(tables), vector_of, max_length=STEPS, **options))
    greedy = numpy(greedy_search(table_step, *start(tables), max_length=STEPS))
    for name in set(greedy) - {"margins"}:
        np.testing.assert_allclose(found[name], greedy[name], err_msg=name, **FLOAT32)


def test_margins_of_contrastive_search():
    tables = np.full((1, VOCABULARY, STEPS, VOCABULARY), -np.inf, "float32")
    tables[:, :, :, 3:6] = np.log([0.5, 0.3, 0.2])
    for candidates, expected in ((1, np.log(0.5 / 0.3)), (2, 0.2), (3, 0.2)):
        options = {"candidates": candidates, "alpha": 0.0, "max_length": 1}
        found = numpy(contrastive_search(speaking_step, *speaking_start(tables), vector_of, **options))
        assert found["margins"][0] == pytest.approx(expected, rel=2e-6)  # float32 differences of logarithms


@pytest.mark.parametrize(("options", "message"), [({"candidates": 0}, "candidates >= 1"), ({"alpha": 2}, "alpha <= 1")])
def test_wrong_arguments_of_contrastive_search(options, message):
    with pytest.raises(ValueError, match=message):
        contrastive_search(speaking_step, *speaking_start(random_tables(0)), vector_of, max_length=2, **options)


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
def test_an_ensemble_searches_the_mean_of_its_tables(combination):
    tables = [random_tables(seed) for seed in (1, 2, 3)]
    for table in tables:  # what `start` makes impossible
        table[..., [PAD, BOS]] = -np.inf
    if combination == "probabilities":
        mean = np.logaddexp.reduce(tables, axis=0, dtype="float64") - np.log(3)
    else:
        mean = np.mean(tables, axis=0, dtype="float64")
        mean = mean - np.log(np.sum(np.exp(mean), axis=-1, keepdims=True))
    expected = exhaustive_search(mean[0], STEPS, 1.0, EOS, WORDS)
    states, memories = zip(*(start(table) for table in tables), strict=True)
    step = ensemble_step([table_step] * 3, combination)
    result = numpy(beam_search(step, list(states), list(memories), beam_size=len(expected), max_length=STEPS))
    np.testing.assert_allclose(result["scores"][0], [entry[0] for entry in expected], **FLOAT32)
    assert tuple(result["ids"][0, 0, : result["lengths"][0, 0]]) == expected[0][1]


def test_wrong_arguments_of_an_ensemble():
    with pytest.raises(ValueError, match="Expected: one step or more"):
        ensemble_step([])
    with pytest.raises(ValueError, match="Expected: combination in"):
        ensemble_step([table_step], "votes")
