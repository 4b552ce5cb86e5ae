"""Greedy and beam search over tables of log-probabilities: against exhaustive search, and the laws of a search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_attention import beam_search, greedy_search
from keras_attention.search import length_limits
from keras_attention.search.contract import top_k
from tests.support import reference
from tests.support.search_reference import exhaustive_search
from tests.support.search_tables import (
    BOS,
    EOS,
    POSITIONS,
    STEPS,
    VOCABULARY,
    WORDS,
    attending_step,
    compiled,
    numpy,
    random_attention,
    random_tables,
    start,
    table_step,
)

FLOAT32 = {"rtol": 5e-6, "atol": 5e-6}  # float32 sums of at most five log-probabilities


def search(tables, beam_size, alpha=0.0, max_length=STEPS):
    return numpy(
        compiled(beam_search, beam_size=beam_size, max_length=max_length)(*start(tables), length_penalty=alpha)
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.6, 1.0, 2.0]), max_length=st.integers(1, 4))
def test_a_beam_as_wide_as_the_search_space_is_exhaustive(seed, alpha, max_length):
    tables = random_tables(seed)
    expected = exhaustive_search(tables[0].astype("float64"), max_length, alpha, EOS, WORDS)
    width = len(expected)
    result = search(tables, width + 3, alpha, max_length)
    np.testing.assert_allclose(result["scores"][0, :width], [entry[0] for entry in expected], **FLOAT32)
    np.testing.assert_allclose(
        sorted(result["log_probs"][0, :width]), sorted(entry[2] for entry in expected), **FLOAT32
    )
    best = tuple(result["ids"][0, 0, : result["lengths"][0, 0]])
    if expected[0][0] - expected[1][0] > 1e-4:
        assert best == expected[0][1]
    assert np.isneginf(result["scores"][0, width:]).all()
    assert not result["lengths"][0, width:].any()


def covering(function, tables, attention, alpha, beta, mask, **options):
    state, memory = start(tables)
    memory["attention"] = ops.convert_to_tensor(attention)
    penalties = {"length_penalty": alpha, "coverage_penalty": beta, "source_mask": ops.convert_to_tensor(mask)}
    return numpy(function(attending_step, state, memory, max_length=STEPS, **penalties, **options))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 1.0]), beta=st.sampled_from([0.2, 3.0]))
def test_a_wide_beam_is_exhaustive_with_a_coverage_penalty(seed, alpha, beta):
    tables, attention = random_tables(seed), random_attention(seed)
    mask = np.arange(POSITIONS)[None] < POSITIONS - seed % 2
    expected = exhaustive_search(
        tables[0].astype("float64"), STEPS, alpha, EOS, WORDS, attention[0].astype("float64"), beta, int(mask.sum())
    )
    width = len(expected)
    result = covering(beam_search, tables, attention, alpha, beta, mask, beam_size=width)
    np.testing.assert_allclose(result["scores"][0], [entry[0] for entry in expected], **FLOAT32)
    if expected[0][0] - expected[1][0] > 1e-4:
        assert tuple(result["ids"][0, 0, : result["lengths"][0, 0]]) == expected[0][1]


def test_a_beam_of_one_is_greedy_with_a_coverage_penalty():
    tables, attention = random_tables(3, batch=3), random_attention(3, batch=3)
    mask = np.array([[True, True, True], [True, True, False], [True, False, False]])
    greedy = covering(greedy_search, tables, attention, 1.0, 0.5, mask)
    beam = covering(beam_search, tables, attention, 1.0, 0.5, mask, beam_size=1)
    plain = covering(greedy_search, tables, attention, 1.0, 0.0, mask)
    for name in greedy:
        np.testing.assert_allclose(greedy[name], beam[name], err_msg=name, **FLOAT32)
    np.testing.assert_array_equal(greedy["ids"], plain["ids"])
    assert (greedy["scores"] < plain["scores"]).any()


def test_a_beta_that_is_a_tensor_of_zero_changes_nothing():
    tables, attention, mask = random_tables(5), random_attention(5), np.ones((1, POSITIONS), bool)
    tensor = covering(beam_search, tables, attention, 1.0, ops.convert_to_tensor(0.0), mask, beam_size=4)
    number = covering(beam_search, tables, attention, 1.0, 0.0, mask, beam_size=4)
    for name in number:
        np.testing.assert_array_equal(tensor[name], number[name], err_msg=name)


@pytest.mark.parametrize("search", [greedy_search, beam_search])
def test_a_coverage_penalty_needs_a_mask(search):
    """Without one, padding would count as words left untranslated."""
    tables = random_tables(5)
    for beta, told in ((0.5, "0.5"), (ops.convert_to_tensor(0.0), ".*0")):
        with pytest.raises(ValueError, match=rf"Expected: source_mask, bool .*Received: coverage_penalty={told}"):
            search(table_step, *start(tables), max_length=STEPS, coverage_penalty=beta)
    assert search(table_step, *start(tables), max_length=STEPS, coverage_penalty=0)["ids"].shape[0] == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 1.0]))
def test_a_beam_of_one_is_greedy(seed, alpha):
    tables = random_tables(seed, batch=3)
    greedy = numpy(compiled(greedy_search, max_length=STEPS)(*start(tables), length_penalty=alpha))
    beam = search(tables, 1, alpha)
    for name in greedy:
        np.testing.assert_allclose(greedy[name], beam[name], err_msg=name, **FLOAT32)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), beam_size=st.sampled_from([1, 2, 5]))
def test_a_batch_gives_exactly_the_ids_of_its_rows(seed, beam_size):
    tables = random_tables(seed, batch=5, integers=True)
    together = search(tables, beam_size)
    for b in range(5):
        alone = search(tables[b : b + 1], beam_size)
        np.testing.assert_array_equal(alone["ids"][0], together["ids"][b])
        np.testing.assert_array_equal(alone["scores"][0], together["scores"][b])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 1.0]))
def test_scores_lengths_and_alignments_belong_to_their_hypothesis(seed, alpha):
    tables = random_tables(seed)
    result = search(tables, 5, alpha)
    for k in range(5):
        length = result["lengths"][0, k]
        if length == 0:
            continue
        ids = result["ids"][0, k]
        previous = [BOS, *ids[: length - 1]]
        total = sum(tables[0, p, t, w] for t, (p, w) in enumerate(zip(previous, ids[:length], strict=True)))
        assert result["log_probs"][0, k] == pytest.approx(total, abs=1e-5)  # float32 sums of at most five terms
        # Likewise.
        assert result["scores"][0, k] == pytest.approx(total / reference.length_penalty(length, alpha), abs=1e-5)
        assert result["finished"][0, k] == (ids[length - 1] == EOS)
        assert not ids[length:].any()
        alignment = result["alignments"][0, k]
        np.testing.assert_array_equal(alignment[:length, 0], previous)  # re-ordered with its beam
        np.testing.assert_array_equal(alignment[:length, 1], np.arange(length))
        assert not alignment[length:].any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 2, 5]), width=st.sampled_from([320, 331, 352, 383]))
def test_the_largest_of_many_are_in_the_order_of_a_stable_sort(seed, k, width):
    """Wide rows go by blocks of 32: of whole ones and with a rest, and with many ties within and between blocks."""
    values = np.random.default_rng(seed).integers(-9, 3, (3, width)).astype("float32")
    values[values == -2] = -np.inf
    best, positions = top_k(ops.convert_to_tensor(values), k)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ops.convert_to_numpy(positions), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(best), np.take_along_axis(values, expected, axis=1))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 2, 7]))
def test_the_largest_are_in_the_order_of_a_stable_sort(seed, k):
    values = np.random.default_rng(seed).integers(-2, 2, (3, 11)).astype("float32")  # eleven places for four values
    values[values == -2] = -np.inf
    best, positions = top_k(ops.convert_to_tensor(values), k)
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ops.convert_to_numpy(positions), expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(best), np.take_along_axis(values, expected, axis=1))


def test_ties_go_to_the_lower_id():
    result = search(np.zeros((1, VOCABULARY, STEPS, VOCABULARY)), 3, max_length=1)
    np.testing.assert_array_equal(result["ids"][0, :, 0], [2, 3, 4])
    assert result["margins"][0] == 0.0


def test_a_finished_hypothesis_is_frozen():
    tables = np.full((1, VOCABULARY, STEPS, VOCABULARY), -10.0)
    tables[0, BOS, 0, EOS] = -0.5
    tables[0, :, :, 3] = -1.0
    short, long = search(tables, 2, max_length=1), search(tables, 2, max_length=4)
    assert short["log_probs"][0, 0] == long["log_probs"][0, 0] == -0.5
    assert long["lengths"][0, 0] == 1
    np.testing.assert_array_equal(long["ids"][0, 1], [3, 3, 3, 3])
    assert not long["finished"][0, 1]


def test_each_row_has_its_own_maximum_length():
    tables = np.full((3, VOCABULARY, STEPS, VOCABULARY), -9.0)
    tables[..., 4] = -1.0
    limits = np.array([1, 3, 9], "int32")
    for function, arguments in ((beam_search, {"beam_size": 2}), (greedy_search, {})):
        state, memory = start(tables)
        result = numpy(function(table_step, state, memory, max_length=limits, capacity=STEPS, **arguments))
        np.testing.assert_array_equal(result["lengths"][:, 0], [1, 3, STEPS])  # never past the buffers


def test_limits_follow_the_source():
    np.testing.assert_array_equal(
        ops.convert_to_numpy(length_limits(np.array([1, 4, 50]), 20, factor=1.5, offset=2)), [3, 8, 20]
    )
    np.testing.assert_array_equal(ops.convert_to_numpy(length_limits(np.array([1]), 20, factor=0.5)), [1])


def test_margins_are_the_gaps_of_the_reference():
    tables = np.full((1, VOCABULARY, STEPS, VOCABULARY), -50.0)
    tables[0, BOS, 0, [2, 3, 4, 5]] = [-1.0, -1.5, -3.0, -3.25]
    result = search(tables, 3, max_length=1)
    assert result["margins"][0] == pytest.approx(0.25)  # kept -3.0, dropped -3.25
    result = search(tables, 2, max_length=1)
    assert result["margins"][0] == pytest.approx(0.5)  # -1.0 before -1.5 in the final ranking


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_size": 0}, "Expected: beam_size >= 1. Received: beam_size=0"),
        ({"beam_size": 2, "max_length": 0}, "Expected: capacity, a positive int"),
        ({"beam_size": 2, "max_length": np.array([2])}, "Expected: capacity, a positive int"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        beam_search(table_step, *start(random_tables(0)), **arguments)


@pytest.mark.parametrize("function", [greedy_search, beam_search])
def test_a_known_source_length_saves_a_step(function):
    tables = np.full((1, VOCABULARY, STEPS, VOCABULARY), -9.0)
    tables[..., 4] = -1.0  # never EOS: as many steps as words
    state, memory = start(tables)
    calls = {}
    for known in (POSITIONS, None):
        calls[known] = 0

        def counted(token, state, memory, known=known):
            calls[known] += 1
            return table_step(token, state, memory)

        result = numpy(function(counted, state, memory, max_length=STEPS, source_length=known))
        assert result["alignments"].shape[-1] == POSITIONS
    assert calls[None] == calls[POSITIONS] + 1


def test_no_tensor_to_read_the_batch_size_from():
    with pytest.raises(ValueError, match="Expected: `batch_size`"):
        beam_search(table_step, {}, {}, max_length=3)
