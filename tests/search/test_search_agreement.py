"""Agreement of two directions over tables: against all hypotheses there are, by NumPy, and its laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_attention import Constraints, agreement_search, allow_words, beam_search
from tests.support.reference import length_penalty
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

BACKWARD = EOS
ALL = 128
"""A beam that holds every hypothesis: 40 that end, and 81 that do not, of at most four words."""
LETTERS = [word for word in WORDS if word != EOS]
FLOAT32 = {"rtol": 5e-6, "atol": 5e-6}  # float32 sums of at most five log-probabilities


def endings(min_length=0, banned=()):
    """The words of every hypothesis that ends, EOS aside."""
    for count in range(STEPS):
        for words in itertools.product([word for word in LETTERS if word not in banned], repeat=count):
            if count + 1 >= min_length:
                yield words


def log_prob(table, words, first):
    ids = (*words, EOS)
    return sum(table[previous, t, word] for t, (previous, word) in enumerate(zip((first, *ids), ids, strict=False)))


def ranked(table, weight, alpha, kind="gnmt", candidates=None):
    """All hypotheses that end, best first: (score, ids, agreed log-probability)."""
    found = []
    for words in endings() if candidates is None else candidates:
        agreed = (1 - weight) * log_prob(table, words, BOS) + weight * log_prob(table, words[::-1], BACKWARD)
        count = len(words) + 1
        found.append(
            (agreed / (length_penalty(count, alpha) if kind == "gnmt" else count**alpha), (*words, EOS), agreed)
        )
    return sorted(found, key=lambda entry: -entry[0])


def hypotheses(result, row=0):
    lengths = result["lengths"][row]
    return [tuple(ids[:length].tolist()) for ids, length in zip(result["ids"][row], lengths, strict=True) if length]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    weight=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    alpha=st.sampled_from([0.0, 1.0, 2.2]),
    kind=st.sampled_from(["gnmt", "average"]),
)
def test_a_beam_that_holds_everything_finds_what_both_directions_like_best(seed, weight, alpha, kind):
    tables = random_tables(seed, batch=2)
    run = compiled(agreement_search, beam_size=ALL, max_length=STEPS, length_penalty_kind=kind)
    given_ = {"backward_weight": np.float32(weight), "length_penalty": np.float32(alpha)}
    found = numpy(run(*start(tables), **given_))
    for row in range(2):
        expected = ranked(tables[row], weight, alpha, kind)
        assert sorted(hypotheses(found, row)) == sorted(ids for _, ids, _ in expected)  # each once, and all that end
        assert hypotheses(found, row)[0] == expected[0][1]
        filled = len(expected)
        np.testing.assert_allclose(found["scores"][row, :filled], [score for score, _, _ in expected], **FLOAT32)
        agreed = {ids: value for _, ids, value in expected}
        values = [agreed[ids] for ids in hypotheses(found, row)]
        np.testing.assert_allclose(found["log_probs"][row, :filled], values, **FLOAT32)
        assert found["finished"][row, :filled].all()
        assert (found["lengths"][row, filled:] == 0).all()
        assert np.isneginf(found["scores"][row, filled:]).all()
        assert (found["ids"][row, filled:] == PAD).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), beam_size=st.sampled_from([1, 2, 4]), weight=st.sampled_from([0.0, 0.4, 1.0]))
@pytest.mark.slow
def test_a_narrow_beam_ranks_what_one_beam_in_each_direction_ends(seed, beam_size, weight):
    tables = random_tables(seed, batch=3)
    options = {"beam_size": beam_size, "max_length": STEPS, "length_penalty": 0.8}
    found = numpy(compiled(agreement_search, backward_weight=weight, **options)(*start(tables)))
    ahead = numpy(compiled(beam_search, **options)(*start(tables)))
    behind = numpy(compiled(beam_search, bos_id=BACKWARD, **options)(*start(tables)))
    for row in range(3):
        candidates = {ids[:-1] for ids in hypotheses(ahead, row) if ids[-1] == EOS}
        candidates |= {ids[-2::-1] for ids in hypotheses(behind, row) if ids[-1] == EOS and len(ids) > 1}
        candidates |= {() for ids in hypotheses(behind, row) if ids == (EOS,)}
        if not candidates:
            assert hypotheses(found, row) == hypotheses(ahead, row)
            np.testing.assert_allclose(found["scores"][row], ahead["scores"][row], **FLOAT32)
            continue
        expected = ranked(tables[row], weight, 0.8, candidates=sorted(candidates))[:beam_size]
        assert hypotheses(found, row) == [ids for _, ids, _ in expected]
        np.testing.assert_allclose(found["scores"][row, : len(expected)], [one[0] for one in expected], **FLOAT32)


def test_alignments_are_those_of_the_forward_direction():
    """The tables' alignments name the word before and the step."""
    found = numpy(compiled(agreement_search, beam_size=8, max_length=STEPS)(*start(random_tables(3, batch=2))))
    for row in range(2):
        for slot, ids in enumerate(hypotheses(found, row)):
            expected = np.zeros((STEPS, 3))
            for t, previous in enumerate((BOS, *ids[:-1])):
                expected[t] = previous, t, 1
            np.testing.assert_array_equal(found["alignments"][row, slot], expected)


def test_rows_of_either_direction_have_their_own_limits():
    tables = random_tables(11, batch=3)
    limits = np.array([2, 4, 3], np.int32)
    found = numpy(compiled(agreement_search, beam_size=ALL, capacity=STEPS)(*start(tables), max_length=limits))
    for row, limit in enumerate(limits):
        candidates = [words for words in endings() if len(words) < limit]
        expected = ranked(tables[row], 0.5, 1.0, candidates=candidates)
        assert sorted(hypotheses(found, row)) == sorted(ids for _, ids, _ in expected)


@pytest.mark.parametrize("batch", [2, 1])
def test_constraints_hold_in_both_directions_and_for_each_row(batch):
    tables = random_tables(12, batch=batch)
    least, allowed = np.array([3, 0], np.int32), np.stack([allow_words(VOCABULARY, banned=[word]) for word in (3, 4)])
    least, allowed = least[:batch], allowed[:batch]

    def search(step, state, memory, min_length, allowed):
        rules = Constraints(min_length=min_length, allowed=allowed)
        return agreement_search(step, state, memory, beam_size=ALL, max_length=STEPS, constraints=rules)

    found = numpy(compiled(search)(*start(tables), min_length=least, allowed=allowed))
    for row, (shortest, banned) in enumerate(((3, 3), (0, 4))[:batch]):
        expected = ranked(tables[row], 0.5, 1.0, candidates=list(endings(shortest, (banned,))))
        assert sorted(hypotheses(found, row)) == sorted(ids for _, ids, _ in expected)
        assert hypotheses(found, row)[0] == expected[0][1]


def test_a_row_of_which_nothing_ends_has_what_the_forward_beam_found():
    tables = random_tables(13, batch=2)
    tables[0, ..., EOS] = -np.inf
    options = {"beam_size": 3, "max_length": STEPS}
    found = numpy(compiled(agreement_search, **options)(*start(tables)))
    ahead = numpy(compiled(beam_search, **options)(*start(tables)))
    for name in ("ids", "lengths", "log_probs", "scores", "finished", "alignments"):
        np.testing.assert_allclose(found[name][0], ahead[name][0], err_msg=name, **FLOAT32)
    assert found["finished"][1, 0]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_what_a_direction_can_never_write_is_no_candidate_unless_it_does_not_count(weight):
    tables = random_tables(3, batch=2)
    tables[:, BACKWARD, 0, 3] = -np.inf  # nothing that ends with 3 is written backwards
    tables[:, BOS, 0, 4] = -np.inf  # nothing that begins with 4 is written forwards
    found = numpy(compiled(agreement_search, beam_size=ALL, backward_weight=weight, max_length=STEPS)(*start(tables)))
    for row in range(2):
        candidates = [
            words
            for words in endings()
            if not words or ((weight == 0 or words[-1] != 3) and (weight == 1 or words[0] != 4))
        ]
        with np.errstate(invalid="ignore"):
            expected = ranked(np.maximum(tables[row], -1e30), weight, 1.0, candidates=candidates)
        assert sorted(hypotheses(found, row)) == sorted(ids for _, ids, _ in expected)
        filled = len(expected)
        np.testing.assert_allclose(found["scores"][row, :filled], [score for score, _, _ in expected], **FLOAT32)
        assert np.isneginf(found["scores"][row, filled:]).all()
    assert not np.isnan(found["margins"]).any()


def test_a_beam_begins_each_row_with_its_own_word():
    tables, options = random_tables(15, batch=2), {"beam_size": 4, "max_length": STEPS}
    run = compiled(beam_search, source_length=3, **options)
    both = numpy(run(*start(tables), bos_id=np.array([BACKWARD, BOS], np.int32)))
    for row, first in enumerate((BACKWARD, BOS)):
        alone = numpy(compiled(beam_search, bos_id=first, **options)(*start(tables)))
        assert hypotheses(both, row) == hypotheses(alone, row)
        np.testing.assert_allclose(both["scores"][row], alone["scores"][row], **FLOAT32)


def test_margins_are_at_most_those_of_the_ranking_and_of_both_beams():
    tables = random_tables(14, batch=4)
    options = {"beam_size": 3, "max_length": STEPS}
    found = numpy(compiled(agreement_search, **options)(*start(tables)))
    scores = np.where(found["lengths"] > 0, found["scores"], np.nan)
    gaps = np.nanmin(-np.diff(scores, axis=1), axis=1)
    for first in (BOS, BACKWARD):
        beam = numpy(compiled(beam_search, bos_id=first, **options)(*start(tables)))
        gaps = np.fmin(gaps, beam["margins"])
    assert (found["margins"] <= gaps + 1e-6).all()  # float32 differences of scores of some units
    assert (found["margins"] >= 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backward_weight": 1.5}, "Expected: 0 <= backward_weight <= 1. Received: backward_weight=1.5"),
        ({"constraints": Constraints(prefix=np.array([[3]]))}, "know one direction"),
        ({"constraints": Constraints(phrases=np.array([[[3]]]))}, "know one direction"),
        ({"beam_size": 0}, "Expected: beam_size >= 1"),
        ({"max_length": np.array([2])}, "Expected: capacity"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        agreement_search(table_step, *start(random_tables(0)), **{"max_length": STEPS, **options})
