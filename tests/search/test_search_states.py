"""Every search with a step that remembers all it read, and for which padding is likeliest: against NumPy, by scores."""

import functools
import itertools

import numpy as np
import pytest
from keras import ops

from keras_attention import (
    Constraints,
    agreement_search,
    beam_search,
    contrastive_search,
    ensemble_step,
    greedy_search,
    sample_search,
)
from tests.support.reference import length_penalty
from tests.support.search_reference import Rules, beam_reference
from tests.support.search_tables import (
    BOS,
    DIGESTS,
    EOS,
    PAD,
    PLACES,
    RECALLED,
    digest_of,
    numpy,
    recalled,
    recalling,
    recalling_step,
    tensors,
)

FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}  # sums of at most seven float32 of order 1
LONGEST, LIMITS, ALPHA = 7, np.array([7, 5], "int32"), 0.8
BACKWARD = 4
BOUNDED = {"max_length": LIMITS, "capacity": LONGEST, "length_penalty": ALPHA}
VECTORS = np.random.default_rng(2).normal(size=(DIGESTS, 3)).astype("float32")
PHRASES = [[(3, 4), (3, 5)], [(6,), (3, 6)]]  # two that begin alike, and one that is part of the other


def reference(answers, row, beam_size, first=BOS, **options):
    return beam_reference(answers, beam_size, int(LIMITS[row]), ALPHA, first, EOS, RECALLED, **options)


def check_row(found, row, expected, answers, margin, first=BOS):
    """One row of a result, held to hypotheses (score, ids, log-probability) and a margin."""
    width = found["ids"].shape[1]
    np.testing.assert_array_equal(found["lengths"][row], [len(ids) for _, ids, _ in expected])
    ids, alignments = np.zeros((width, LONGEST), int), np.zeros((width, LONGEST, PLACES))
    for slot, (_, words, _) in enumerate(expected):
        ids[slot, : len(words)] = words
        alignments[slot, : len(words)] = [answers((first, *words[:t]))[1] for t in range(len(words))]
    np.testing.assert_array_equal(found["ids"][row], ids)
    np.testing.assert_array_equal(found["finished"][row], [words[-1] == EOS for _, words, _ in expected])
    np.testing.assert_allclose(found["scores"][row], [score for score, _, _ in expected], **FLOAT32)
    np.testing.assert_allclose(found["log_probs"][row], [total for _, _, total in expected], **FLOAT32)
    np.testing.assert_allclose(found["alignments"][row], alignments, **FLOAT32)
    np.testing.assert_allclose(found["margins"][row], min(margin, 1e30), **FLOAT32)


def log_prob(answers, ids, first=BOS):
    return sum(answers((first, *ids[:t]))[0][word] for t, word in enumerate(ids))


@pytest.mark.parametrize(
    ("beam_size", "groups", "diversity", "beta"),
    [(4, 1, 0.0, 0.0), (4, 1, 0.0, 0.3), (6, 3, 0.7, 0.0), (4, 4, 1.3, 0.0), (6, 2, 0.4, 0.3)],
)
def test_a_beam_follows_the_states_of_its_hypotheses(beam_size, groups, diversity, beta) -> None:
    state, memory = recalling(3, 2)
    covered = np.array([PLACES, PLACES - 2])
    options = {"groups": groups, "diversity": diversity, "coverage_penalty": beta}
    mask = np.arange(PLACES)[None] < covered[:, None]
    found = numpy(
        beam_search(
            recalling_step, *tensors((state, memory)), beam_size=beam_size, source_mask=mask, **BOUNDED, **options
        )
    )
    for row in range(2):
        answers = recalled(memory, row)
        positions = {"beta": beta, "positions": int(covered[row])}
        expected, margin = reference(answers, row, beam_size, groups=groups, diversity=diversity, **positions)
        check_row(found, row, expected, answers, margin)


def test_the_margin_of_groups_counts_neighbours_of_the_final_ranking_alone() -> None:
    """Within the second group the diversity puts a hypothesis above one that scores 0.8 more."""
    state, memory = recalling(6, 2)
    options = {"beam_size": 6, "groups": 2, "diversity": 1.5, **BOUNDED}
    found = numpy(beam_search(recalling_step, *tensors((state, memory)), **options))
    answers = recalled(memory, 0)
    expected, margin = reference(answers, 0, 6, groups=2, diversity=1.5)
    check_row(found, 0, expected, answers, margin)
    assert found["margins"][0] > 0.04  # well apart, so that the margin tells


@pytest.mark.parametrize("phrases", [PHRASES, PHRASES[::-1]])
def test_a_beam_with_phrases_follows_the_states_of_its_hypotheses(phrases) -> None:
    state, memory = recalling(5, 2)
    ids = np.array([[[*words, *[PAD] * (2 - len(words))] for words in row] for row in phrases], "int32")
    constraints = Constraints(phrases=ids)
    start = tensors((state, memory))
    found = numpy(beam_search(recalling_step, *start, beam_size=4, constraints=constraints, **BOUNDED))
    for row in range(2):
        answers = recalled(memory, row)
        expected, margin = reference(answers, row, 4, rules=Rules(phrases=phrases[row]))
        assert len({ids for _, ids, _ in expected}) == 4
        check_row(found, row, expected, answers, margin)


def test_a_word_that_two_phrases_share_is_one_candidate() -> None:
    """It is the least likely one, and nothing else leaves room for both phrases."""
    state, memory = recalling(41, 1)
    memory["answers"] = np.maximum(memory["answers"], -5.0)
    memory["answers"][..., 3] = -9.0
    constraints = Constraints(phrases=np.array([[[3, 4], [3, 5]]], "int32"))
    start = tensors((state, memory))
    found = numpy(beam_search(recalling_step, *start, beam_size=2, max_length=4, constraints=constraints))
    both = [(3, 4, 3, 5), (3, 5, 3, 4)]
    values = {words: log_prob(recalled(memory, 0), words) for words in both}
    both.sort(key=lambda words: -values[words])
    np.testing.assert_array_equal(found["ids"][0], both)
    np.testing.assert_allclose(found["log_probs"][0], [values[words] for words in both], **FLOAT32)


RULES = {
    "minimum": {"min_length": 4},
    "no-word-twice": {"no_repeat_ngram": 1},
    "no-two-words-twice": {"no_repeat_ngram": 2},
    "words-banned": {"allowed": frozenset({2, 3, 6})},
    "prefix-that-repeats": {"prefix": (5, 3, 5), "repetition_penalty": 1.7},
    "repetition": {"repetition_penalty": 2.3},
}


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("name", RULES)
def test_searches_under_constraints_follow_their_states(name, beam_size) -> None:
    state, memory = recalling(43, 2)
    rules, given = Rules(**RULES[name]), dict(RULES[name])
    if rules.prefix:
        given["prefix"] = np.array([rules.prefix] * 2, "int32")
    if "allowed" in given:
        given["allowed"] = np.array([word in rules.allowed for word in range(max(RECALLED) + 1)])
    options = {"constraints": Constraints(**given), **BOUNDED}
    start = tensors((state, memory))
    results = [numpy(beam_search(recalling_step, *start, beam_size=beam_size, **options))]
    if beam_size == 1:
        results.append(numpy(greedy_search(recalling_step, *start, **options)))
    for row in range(2):
        answers = recalled(memory, row)
        expected, margin = reference(answers, row, beam_size, rules=rules)
        for found in results:
            check_row(found, row, expected, answers, margin)


def test_greedy_search_follows_its_state() -> None:
    state, memory = recalling(7, 2)
    found = numpy(greedy_search(recalling_step, *tensors((state, memory)), **BOUNDED))
    for row in range(2):
        answers = recalled(memory, row)
        check_row(found, row, *reference(answers, row, 1)[:1], answers, reference(answers, row, 1)[1])


def drawn(answers, chances):
    """Words by inverting the distribution function, and the smallest distance of a chance from a border."""
    ids, margin = (), np.inf
    for chance in chances:
        weights = np.exp(answers((BOS, *ids))[0][list(RECALLED)])
        borders = np.cumsum(weights / weights.sum())
        margin = min(margin, *np.abs(borders[:-1] - chance))
        ids = (*ids, RECALLED[int(np.searchsorted(borders[:-1], chance, side="right"))])
        if ids[-1] == EOS:
            break
    return ids, margin


def test_samples_follow_their_states_and_have_the_smallest_of_their_margins() -> None:
    state, memory = recalling(11, 2)
    uniforms = np.random.default_rng(11).random((2, 3, LONGEST)).astype("float32")
    start = tensors((state, memory))
    found = numpy(sample_search(recalling_step, *start, num_samples=3, uniforms=uniforms, **BOUNDED))
    for row in range(2):
        answers, expected, margins = recalled(memory, row), [], []
        for chances in uniforms[row, :, : LIMITS[row]]:
            ids, margin = drawn(answers, chances)
            total = log_prob(answers, ids)
            expected.append((total / length_penalty(len(ids), ALPHA), ids, total))
            margins.append(margin)
        assert min(margins) < 0.5 * max(margins)  # far apart: no other would be taken for the smallest
        check_row(found, row, expected, answers, min(margins))


def vector_of(state):
    return ops.take(ops.convert_to_tensor(VECTORS), state["digest"], axis=0)


def contrasted(answers, most, k, alpha):
    """Su et al. 2022, equation 5: the words, and the margin."""
    unit, ids, margin = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), (), np.inf

    def vector(words):
        return unit[digest_of((BOS, *words), 7)]

    while len(ids) < most and EOS not in ids:
        row = answers((BOS, *ids))[0]
        order = sorted(RECALLED, key=lambda word: -row[word])
        merits = []
        for word in order[:k]:
            alike = [vector((*ids, word)) @ vector(ids[: t + 1]) for t in range(len(ids))]
            merits.append((1 - alpha) * np.exp(row[word]) - alpha * max(alike, default=0.0))
        first, second = np.sort(merits)[::-1][:2]
        margin = min(margin, first - second, row[order[k - 1]] - row[order[k]] if k < len(order) else np.inf)
        ids = (*ids, order[int(np.argmax(merits))])
    return ids, margin


@pytest.mark.parametrize(("candidates", "alpha"), [(3, 0.4), (5, 0.6)])
def test_contrastive_search_follows_the_states_of_the_chosen_words(candidates, alpha) -> None:
    state, memory = recalling(13, 2)
    options = {"candidates": candidates, "alpha": alpha, **BOUNDED}
    found = numpy(contrastive_search(recalling_step, *tensors((state, memory)), vector_of, **options))
    for row in range(2):
        answers = recalled(memory, row)
        ids, margin = contrasted(answers, int(LIMITS[row]), candidates, alpha)
        total = log_prob(answers, ids)
        check_row(found, row, [(total / length_penalty(len(ids), ALPHA), ids, total)], answers, margin)


@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_both_directions_follow_the_states_of_what_they_write_and_read(weight) -> None:
    state, memory = recalling(17, 2)
    options = {"beam_size": 3, "backward_weight": weight, "backward_id": BACKWARD, **BOUNDED}
    found = numpy(agreement_search(recalling_step, *tensors((state, memory)), **options))
    for row in range(2):
        answers, candidates, margins = recalled(memory, row), set(), []
        for first in (BOS, BACKWARD):
            written, margin = reference(answers, row, 3, first)
            ended = [ids[:-1] for _, ids, _ in written if ids[-1] == EOS]
            candidates |= set(ended if first == BOS else [ids[::-1] for ids in ended])
            margins.append(margin)
        ranked = []
        for words in candidates:
            ways = [log_prob(answers, (*words[::step], EOS), first) for step, first in ((1, BOS), (-1, BACKWARD))]
            agreed = (1 - weight) * ways[0] + weight * ways[1]
            ranked.append((agreed / length_penalty(len(words) + 1, ALPHA), (*words, EOS), agreed))
        ranked.sort(reverse=True)
        assert len(ranked) >= 3
        margins += [one[0] - other[0] for one, other in itertools.pairwise(ranked)]
        check_row(found, row, ranked[:3], answers, min(margins))


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
def test_each_member_of_an_ensemble_follows_its_own_state(combination) -> None:
    members = [recalling(19, 2, factor=7, padding=0.0), recalling(23, 2, factor=11, padding=0.0)]
    for _, memory in members:
        memory["answers"][..., BOS] = -9.0  # a mean of infinities is none
    states, memories = ([member[part] for member in members] for part in (0, 1))
    step = ensemble_step([recalling_step, recalling_step], combination)
    found = numpy(beam_search(step, *tensors((states, memories)), beam_size=4, **BOUNDED))
    for row in range(2):
        each = [recalled(memory, row) for memory in memories]

        def answers(read, each=each):
            (one, one_weights), (other, other_weights) = (member(read) for member in each)
            mean = np.logaddexp(one, other) - np.log(2) if combination == "probabilities" else (one + other) / 2
            if combination == "logits":
                mean = mean - np.log(np.exp(mean).sum())
            return mean, (one_weights + other_weights) / 2

        check_row(found, row, *reference(answers, row, 4)[:1], answers, reference(answers, row, 4)[1])


UNIFORMS = np.array([[[0.0, 0.9, 0.2, 0.7, 0.4, 0.0, 0.6], [0.99, 0.0, 0.5, 0.3, 0.1, 0.8, 0.0]]] * 2, "float32")
COVERED = np.arange(PLACES) < np.array([[PLACES], [PLACES - 2]])
SEARCHES = {
    "greedy": (greedy_search, {}),
    "beam": (beam_search, {"beam_size": 3}),
    "beam-of-one": (beam_search, {"beam_size": 1}),
    "groups": (beam_search, {"beam_size": 4, "groups": 2}),
    "coverage": (beam_search, {"beam_size": 3, "coverage_penalty": 0.4, "source_mask": COVERED}),
    "best": (beam_search, {"beam_size": 3, "stop": "best"}),
    "phrases": (beam_search, {"beam_size": 3}),
    "sampling": (sample_search, {"num_samples": 2}),
    "sampling-top-k": (sample_search, {"num_samples": 2, "top_k_words": 4}),
    "sampling-top-p": (sample_search, {"num_samples": 2, "top_p": 0.9}),
    "contrastive": (functools.partial(contrastive_search, representation=vector_of), {"candidates": 3}),
    "agreement": (agreement_search, {"beam_size": 3, "backward_id": BACKWARD}),
    "ensemble": (beam_search, {"beam_size": 3}),
}


def search(name, start, step=recalling_step, rename=lambda word: word, **ids):
    """A search of `SEARCHES`, its ids given their new names."""
    function, options = SEARCHES[name]
    options = {**options, **BOUNDED, **ids}
    if name == "phrases":
        rows = [[[3, 4], [3, 5]], [[6, PAD], [3, 6]]]
        options["constraints"] = Constraints(phrases=rename(np.array(rows, "int32")))
    if function is sample_search:
        options["uniforms"] = UNIFORMS
    if name == "agreement" and ids:
        options["backward_id"] = int(rename(np.array(BACKWARD)))
    if name == "ensemble":
        start, step = ([start[0]] * 2, [start[1]] * 2), ensemble_step([step, step])
    return numpy(function(step, *tensors(start), **options))


@pytest.mark.parametrize("name", SEARCHES)
def test_padding_is_never_chosen_however_likely(name) -> None:
    state, memory = recalling(29, 2)
    without = {**memory, "answers": memory["answers"].copy()}
    assert (memory["answers"].argmax(axis=-1) == PAD).mean() > 0.5  # most often the likeliest
    without["answers"][..., PAD] = -np.inf
    likely, impossible = search(name, (state, memory)), search(name, (state, without))
    for field in likely:
        np.testing.assert_allclose(likely[field], impossible[field], err_msg=field, **FLOAT32)
    inside = np.arange(LONGEST) < likely["lengths"][..., None]
    np.testing.assert_array_equal(likely["ids"] != PAD, inside)


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "sampling"])  # it draws in the order of ids
def test_the_special_words_may_have_any_ids(name) -> None:
    """The same search with all words renamed, padding not being 0, says the same."""
    names = np.array([5, 6, 4, 0, 3, 1, 2], "int32")
    old = ops.convert_to_tensor(np.argsort(names).astype("int32"))

    def renamed_step(token, state, memory):
        log_probs, state, alignment = recalling_step(ops.take(old, token), state, memory)
        return ops.take(log_probs, old, axis=1), state, alignment

    start = recalling(31, 2)
    plain = search(name, start)
    ids = dict(zip(("pad_id", "bos_id", "eos_id"), names[[PAD, BOS, EOS]].tolist(), strict=True))
    renamed = search(name, start, renamed_step, lambda words: names[words], **ids)
    np.testing.assert_array_equal(renamed.pop("ids"), names[plain.pop("ids")])
    for field in plain:
        np.testing.assert_allclose(renamed[field], plain[field], err_msg=field, **FLOAT32)


def test_what_can_still_overtake_the_best_is_searched_on_where_long_outputs_are_punished() -> None:
    """With alpha -1 a total is divided by less with each word: the next word is the last chance."""
    state, memory = recalling(37, 1, padding=-90.0)
    memory["answers"][...] = -50.0
    memory["answers"][0, digest_of([BOS], 7), [EOS, 3]] = -1.0, -0.6
    memory["answers"][0, digest_of([BOS, 3], 7), EOS] = -0.1
    options = {"beam_size": 2, "max_length": 5, "length_penalty": -1.0}
    for stop in ("all", "best"):
        found = numpy(beam_search(recalling_step, *tensors((state, memory)), stop=stop, **options))
        assert found["ids"][0, 0].tolist() == [3, EOS, PAD, PAD, PAD]
        assert found["scores"][0, 0] == pytest.approx(-0.7 * 7 / 6, abs=1e-5)  # float32
