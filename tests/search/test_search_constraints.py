"""Constraints, diverse groups and early stopping of a search: against exhaustive search, and their laws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_attention import beam_search, greedy_search
from keras_attention.search import Constraints, allow_words
from tests.support.search_reference import Rules, exhaustive_search
from tests.support.search_tables import (
    EOS,
    PAD,
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


def constrained(step, state, memory, by=beam_search, ngram=0, **tensors):
    """A search whose constraints are tensors."""
    fields = {field.name for field in dataclasses.fields(Constraints)}
    given_ = {name: tensors.pop(name) for name in list(tensors) if name in fields}
    return by(step, state, memory, constraints=Constraints(no_repeat_ngram=ngram, **given_), **tensors)


def padded(rows, width):
    return np.array([[*row, *[PAD] * (width - len(row))] for row in rows], "int32")


def as_tensors(rules):
    """`Rules` as tensors of one shape each, whatever they ask for."""
    tensors = {
        "min_length": np.int32(rules.min_length),
        "allowed": np.array([word in rules.allowed for word in range(VOCABULARY)]),
        "prefix": padded([rules.prefix], 3),
        "repetition_penalty": np.float32(rules.repetition_penalty),
    }
    if rules.phrases is not None:
        tensors["phrases"] = padded([*rules.phrases, *[()] * (2 - len(rules.phrases))], 2)[None]
    return {name: ops.convert_to_tensor(value) for name, value in tensors.items()}


@st.composite
def some_rules(draw, phrases=True):
    """Rules that may, or may not, be satisfiable; phrases hold no word twice."""
    words = draw(st.permutations([3, 4, 5]))
    chosen = draw(st.sampled_from([(), (tuple(words[:1]),), (tuple(words[:2]),), (tuple(words[:2]), tuple(words[2:]))]))
    return Rules(
        min_length=draw(st.integers(0, 4)),
        allowed=frozenset(WORDS) - draw(st.sampled_from([frozenset(), frozenset({4}), frozenset({EOS})])),
        prefix=tuple(draw(st.lists(st.sampled_from([3, 4, 5]), max_size=3))),
        phrases=chosen if phrases else (),
        no_repeat_ngram=draw(st.integers(0, 3)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.5])),
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rules=some_rules(),
    alpha=st.sampled_from([0.0, 1.0]),
    kind=st.sampled_from(["gnmt", "average"]),
    beta=st.sampled_from([0.0, 0.5]),
)
@pytest.mark.slow
def test_a_wide_beam_is_exhaustive_whatever_is_asked(seed, rules, alpha, kind, beta):
    tables, attention = random_tables(seed), random_attention(seed)
    expected = exhaustive_search(
        tables[0].astype("float64"),
        STEPS,
        alpha,
        EOS,
        WORDS,
        attention[0].astype("float64"),
        beta,
        rules=rules,
        kind=kind,
    )
    state, memory = start(tables)
    memory["attention"] = ops.convert_to_tensor(attention)
    run = compiled(
        constrained,
        attending_step,
        beam_size=121,  # all hypotheses of an alphabet of three words and EOS up to four words
        max_length=STEPS,
        ngram=rules.no_repeat_ngram,
        length_penalty_kind=kind,
    )
    penalties = {"length_penalty": ops.convert_to_tensor(alpha), "coverage_penalty": ops.convert_to_tensor(beta)}
    mask = ops.convert_to_tensor(np.ones((1, POSITIONS), bool))
    result = numpy(run(state, memory, source_mask=mask, **penalties, **as_tensors(rules)))
    width = len(expected)
    np.testing.assert_allclose(result["scores"][0, :width], [entry[0] for entry in expected], **FLOAT32)
    assert np.isneginf(result["scores"][0, width:]).all()
    found = {tuple(result["ids"][0, k, : result["lengths"][0, k]]): result["log_probs"][0, k] for k in range(width)}
    assert found.keys() == {entry[1] for entry in expected}
    for _, ids, log_prob in expected:  # of the model, whatever the repetition penalty made of it
        assert found[ids] == pytest.approx(log_prob, abs=1e-5)  # float32 sums of at most five terms


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rules=some_rules(phrases=False), alpha=st.sampled_from([0.0, 1.0]))
def test_a_beam_of_one_is_greedy_under_constraints(seed, rules, alpha):
    rules.phrases = None
    tables, tensors = random_tables(seed, batch=3), as_tensors(rules)
    tensors["length_penalty"] = ops.convert_to_tensor(alpha)
    fixed = {"ngram": rules.no_repeat_ngram, "max_length": STEPS}
    beam = numpy(compiled(constrained, beam_size=1, **fixed)(*start(tables), **tensors))
    greedy = numpy(compiled(constrained, by=greedy_search, **fixed)(*start(tables), **tensors))
    for name in set(greedy) - {"margins"}:
        np.testing.assert_allclose(greedy[name], beam[name], err_msg=name, **FLOAT32)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), rules=some_rules(), groups=st.sampled_from([1, 2]))
def test_a_batch_gives_exactly_the_ids_of_its_rows_under_constraints(seed, rules, groups):
    tables, tensors = random_tables(seed, batch=3, integers=True), as_tensors(rules)
    tensors["repetition_penalty"] = ops.convert_to_tensor(np.float32(2.0))
    run = compiled(
        constrained, ngram=rules.no_repeat_ngram, max_length=STEPS, beam_size=4, groups=groups, diversity=1.0
    )
    fixed = {**tensors, "length_penalty": ops.convert_to_tensor(0.0)}
    rows = {name: ops.repeat(tensors[name], 3, axis=0) for name in ("prefix", "phrases")}
    together = numpy(run(*start(tables), **{**fixed, **rows}))
    for b in range(3):
        alone = numpy(run(*start(tables[b : b + 1]), **fixed))
        np.testing.assert_array_equal(alone["ids"][0], together["ids"][b])
        np.testing.assert_array_equal(alone["scores"][0], together["scores"][b])


def holds(ids, phrase):
    return any(tuple(ids[i : i + len(phrase)]) == tuple(phrase) for i in range(len(ids) - len(phrase) + 1))


def test_constraints_are_honoured_in_a_thousand_random_cases():
    """A beam of 3 over 13 words: nothing like exhaustive, and still no row breaks a rule or goes without."""
    rng, batch, vocabulary, steps = np.random.default_rng(7), 1000, 13, 11
    tables = random_tables(7, batch, vocabulary=vocabulary, steps=3)
    lengths = rng.integers(1, 9, batch).astype("int32")
    prefixes = [list(rng.integers(3, vocabulary, rng.integers(0, 4))) for _ in range(batch)]
    phrases = [
        [list(part) for part in np.split(rng.permutation(np.arange(3, vocabulary))[:3], [rng.integers(0, 4)])]
        for _ in range(batch)
    ]
    constraints = Constraints(
        min_length=lengths,
        prefix=padded(prefixes, 3),
        phrases=np.stack([padded(row, 3) for row in phrases]),
        allowed=allow_words(vocabulary, banned=[0, 1]),
    )
    result = numpy(beam_search(table_step, *start(tables), beam_size=3, max_length=steps, constraints=constraints))
    assert (result["lengths"][:, 0] > 0).all()
    for b in range(batch):
        for k in range(3):
            length = result["lengths"][b, k]
            if length:
                ids = list(result["ids"][b, k, :length])
                assert length >= lengths[b]
                assert ids[: len(prefixes[b])] == prefixes[b]
                assert all(holds(ids, phrase) for phrase in phrases[b]), (ids, phrases[b])


def diverse_greedy(table, groups, diversity, steps):
    """Vijayakumar et al. 2016, algorithm 1, with groups of one hypothesis, word by word: ids and log-probabilities."""
    ids, totals = [[] for _ in range(groups)], [0.0] * groups
    for t in range(steps):
        counts = np.zeros(VOCABULARY)
        for g in range(groups):
            if EOS in ids[g]:
                continue
            row = table[ids[g][-1] if ids[g] else 1, t]
            word = max(WORDS, key=lambda w: row[w] - diversity * counts[w])
            counts[word] += 1
            totals[g] += row[word]
            ids[g].append(word)
    return {tuple(row): total for row, total in zip(ids, totals, strict=True)}


@pytest.mark.parametrize("seed", range(8))
def test_diverse_groups_of_one_are_those_of_the_paper(seed):
    tables = random_tables(seed)
    expected = diverse_greedy(tables[0].astype("float64"), 3, 1.5, STEPS)
    run = compiled(beam_search, beam_size=3, groups=3, max_length=STEPS, length_penalty=0.0)
    result = numpy(run(*start(tables), diversity=ops.convert_to_tensor(1.5)))
    found = {tuple(result["ids"][0, k, : result["lengths"][0, k]]): result["scores"][0, k] for k in range(3)}
    assert found.keys() == expected.keys()
    for ids, total in expected.items():  # the diversity is no part of the score
        assert found[ids] == pytest.approx(total, abs=1e-5)  # float32 sums of at most five terms
    assert (np.diff(result["scores"][0]) <= 0).all()


def test_a_strong_diversity_makes_groups_begin_with_different_words():
    tables = random_tables(3, batch=5)
    run = compiled(beam_search, beam_size=4, groups=4, max_length=STEPS, length_penalty=0.0)
    apart = numpy(run(*start(tables), diversity=ops.convert_to_tensor(100.0)))
    together = numpy(run(*start(tables), diversity=ops.convert_to_tensor(0.0)))
    assert all(len(set(row)) == 4 for row in apart["ids"][:, :, 0])
    assert all(len({tuple(ids) for ids in row}) == 1 for row in together["ids"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.0, 0.6, 2.0]), kind=st.sampled_from(["gnmt", "average"]))
def test_to_stop_at_the_best_does_not_lose_it(seed, alpha, kind):
    tables = random_tables(seed, batch=5)
    tables[..., EOS] += np.random.default_rng(seed).choice([0.0, -3.0])
    tables = np.minimum(tables, 0.0)
    results = [
        numpy(
            compiled(beam_search, beam_size=4, max_length=9, stop=stop, length_penalty_kind=kind)(
                *start(tables), length_penalty=ops.convert_to_tensor(alpha)
            )
        )
        for stop in ("all", "best")
    ]
    for name in ("ids", "scores", "log_probs", "lengths", "finished", "alignments"):
        np.testing.assert_array_equal(results[0][name][:, 0], results[1][name][:, 0], err_msg=name)


def test_to_stop_at_the_best_saves_steps_and_does_not_depend_on_the_batch():
    tables = np.full((2, VOCABULARY, STEPS, VOCABULARY), -5.0)
    tables[0, :, 0, EOS] = -0.1
    tables[1, :, :, 3] = -0.1
    for stop, longest in (("all", STEPS), ("best", 1)):
        options = {"beam_size": 3, "max_length": STEPS, "stop": stop, "length_penalty": 0.0}
        alone = numpy(beam_search(table_step, *start(tables[:1]), **options))
        both = numpy(beam_search(table_step, *start(tables), **options))
        assert alone["lengths"].max() <= longest
        np.testing.assert_array_equal(alone["ids"][0], both["ids"][0])
        assert (both["lengths"][1, 0], both["finished"][1, 0]) == (STEPS, False)


def test_a_row_that_no_hypothesis_satisfies_gets_none():
    tables = random_tables(0, batch=2)
    allowed = np.ones((2, VOCABULARY), bool)
    allowed[0] = False
    for function, options in ((beam_search, {"beam_size": 2}), (greedy_search, {})):
        result = numpy(
            function(table_step, *start(tables), max_length=STEPS, constraints=Constraints(allowed=allowed), **options)
        )
        assert np.isneginf(result["scores"][0]).all()
        assert np.isfinite(result["scores"][1, 0])
        assert not any(result[name][0].any() for name in ("lengths", "ids", "finished", "alignments"))


def test_words_that_may_follow():
    np.testing.assert_array_equal(np.flatnonzero(allow_words(7, allowed=[4, 6])), [EOS, 4, 6])
    np.testing.assert_array_equal(np.flatnonzero(~allow_words(7, banned=[4, 6])), [4, 6])
    with pytest.raises(ValueError, match="Expected: ids of the vocabulary"):
        allow_words(7, banned=[7])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_length": 5}, "Expected: min_length <= max_length. Received: min_length=5, max_length=4"),
        ({"no_repeat_ngram": -1}, "Expected: no_repeat_ngram >= 0"),
        ({"repetition_penalty": 0.0}, "Expected: repetition_penalty > 0"),
        ({"prefix": [[3, EOS]]}, "The search adds EOS itself"),
        ({"prefix": [[0, 3]]}, "Expected: padding on the right of prefix"),
        ({"prefix": [[-1]]}, "Expected: ids of the vocabulary in prefix"),
        ({"prefix": [[3] * 5]}, "Expected: prefix of at most max_length=4 words. Received: 5"),
        ({"phrases": [[[3, 4, 5], [4, 5, 0]]]}, "Expected: phrases of at most max_length=4 words. Received: 5"),
    ],
)
def test_constraints_that_cannot_be_met(fields, message):
    with pytest.raises(ValueError, match=message):
        beam_search(table_step, *start(random_tables(0)), max_length=STEPS, constraints=Constraints(**fields))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 2, "beam_size": 3}, "Expected: groups, a divisor of beam_size=3. Received: groups=2"),
        ({"stop": "never"}, "Expected: stop in"),
        ({"length_penalty_kind": "mean"}, "Expected: length_penalty_kind in"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        beam_search(table_step, *start(random_tables(0)), max_length=STEPS, **options)


def test_greedy_search_knows_no_phrases():
    with pytest.raises(ValueError, match="Expected: beam_search, of any beam_size"):
        greedy_search(table_step, *start(random_tables(0)), max_length=2, constraints=Constraints(phrases=[[[3]]]))
