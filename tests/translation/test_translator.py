"""A translator with constraints, samples, several models, given outputs and words it does not know."""

import math
import shutil

import keras
import numpy as np
import pytest

from keras_attention import EncoderDecoder, Ensemble, Seq2SeqConfig, UserError, build_seq2seq
from keras_attention.metrics.alignment import parse_pharaoh
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from keras_attention.translation import compiled as decoding
from keras_attention.translation import translator as translators
from keras_attention.translation.hypothesis import read_hypotheses
from keras_attention.translation.text_constraints import TextConstraints
from keras_attention.translation.translator import Translator
from tests.support.command import run_command
from tests.support.toy_run import another_run, edit_config

TEXTS = ["abc", "fed", "bead", "cab", "ace"]


@pytest.fixture(scope="module")
def translator(toy_run):
    return Translator.load(toy_run.path)


@pytest.fixture(scope="module")
def other_run(toy_run, toy_folder):
    return another_run(toy_run, toy_folder / "other")


def first(found):
    return [hypotheses[0] for hypotheses in found]


def test_constraints_are_met(translator):
    constraints = TextConstraints(prefixes="ab", phrases=["fe", "d"], banned=["c"])
    found = translator.translate(TEXTS, constraints=constraints, min_length=6, no_repeat_ngram=3)
    for hypothesis in first(found):
        assert len(hypothesis.tokens) >= 6
        assert hypothesis.text.startswith("ab")
        assert "fe" in hypothesis.text
        assert "d" in hypothesis.text
        assert "c" not in hypothesis.text
        triples = [hypothesis.text[i : i + 3] for i in range(len(hypothesis.text) - 2)]
        assert len(triples) == len(set(triples))


def test_each_text_has_its_own_constraints(translator):
    prefixes, phrases = ["a", "", "fe", "b", "c"], [["b"], [], ["a", "d"], [], ["e"]]
    found = first(
        translator.translate(TEXTS, constraints=TextConstraints(prefixes=prefixes, phrases=phrases), batch_size=2)
    )
    for hypothesis, prefix, wanted in zip(found, prefixes, phrases, strict=True):
        assert hypothesis.text.startswith(prefix)
        assert all(phrase in hypothesis.text for phrase in wanted)
    free = first(translator.translate(TEXTS))
    assert found[1].text == free[1].text


def test_a_greedy_search_meets_them_too(translator):
    for hypothesis in first(
        translator.translate(TEXTS, beam_size=1, constraints=TextConstraints(prefixes="ab", phrases=["f"]))
    ):
        assert hypothesis.text.startswith("ab")
        assert "f" in hypothesis.text


def test_samples_depend_on_the_seed_alone(translator):
    runs = [
        translator.translate(TEXTS, n_best=4, method="sample", temperature=2.0, seed=seed, batch_size=size)
        for seed, size in ((1, 32), (1, 2), (2, 32))
    ]
    texts = [[[hypothesis.text for hypothesis in row] for row in run] for run in runs]
    assert texts[0] == texts[1]  # however they are batched
    assert texts[0] != texts[2]
    greedy = [hypothesis.text for hypothesis in first(translator.translate(TEXTS, beam_size=1))]
    assert [h.text for h in first(translator.translate(TEXTS, method="sample", top_k=1))] == greedy
    assert [h.text for h in first(translator.translate(TEXTS, method="contrastive", beam_size=3, alpha=0.0))] == greedy


def test_groups_give_other_outputs_than_one_beam(translator):
    apart = translator.translate(TEXTS, beam_size=6, n_best=6, groups=6, diversity=50.0)
    for row in apart:
        assert len({hypothesis.tokens[0] for hypothesis in row}) == 6


def test_given_outputs_get_the_score_of_a_search_that_found_them(translator):
    found = [row for row in translator.translate(TEXTS, beam_size=4, n_best=3) if row[0].finished]
    texts = [
        text
        for text, row in zip(TEXTS, translator.translate(TEXTS, beam_size=4, n_best=3), strict=True)
        if row[0].finished
    ]
    outputs = [row[0] for row in found]
    for hypothesis, score in zip(outputs, translator.score(texts, [h.text for h in outputs], 1.0), strict=True):
        assert score.tokens == hypothesis.tokens
        assert score.log_prob == pytest.approx(hypothesis.log_prob, abs=1e-4)  # float32 sums
        assert score.score == pytest.approx(hypothesis.score, abs=1e-4)  # likewise
        assert score.log_probs.sum() == pytest.approx(score.log_prob, abs=1e-4)  # likewise
        np.testing.assert_allclose(score.alignment, hypothesis.alignment, atol=1e-5)  # float32, weights of at most 1
    with pytest.raises(UserError, match="Expected an output for each of 1 texts"):
        translator.score(["abc"], ["a", "b"])


@pytest.mark.slow
def test_several_models_answer_as_their_mean(toy_run, other_run):
    both = Translator.load(toy_run.path, other_run.path)
    alone = [Translator.load(path).score(TEXTS, TEXTS) for path in (toy_run.path, other_run.path)]
    together = both.score(TEXTS, TEXTS)
    for one, other, mean in zip(*alone, together, strict=True):
        expected = np.logaddexp(one.log_probs, other.log_probs) - math.log(2)
        np.testing.assert_allclose(mean.log_probs, expected, atol=1e-5)  # float32 logarithms of sums
        # Float32 sums of two.
        np.testing.assert_allclose(mean.alignment, (one.alignment + other.alignment) / 2, atol=1e-6)
    for hypothesis, text in zip(first(both.translate(TEXTS)), TEXTS, strict=True):
        if hypothesis.finished:  # the search steps through the same mean
            # Float32 sums.
            assert both.score([text], [hypothesis.text])[0].log_prob == pytest.approx(hypothesis.log_prob, abs=1e-4)
    twins = Translator.load(toy_run.path, toy_run.path, combination="logits")
    assert [h.text for h in first(twins.translate(TEXTS))] == [
        h.text for h in first(Translator.load(toy_run.path).translate(TEXTS))
    ]


@pytest.mark.slow
def test_an_ensemble_samples_and_contrasts(toy_run, other_run):
    both = Translator.load(toy_run.path, other_run.path)
    greedy = [h.text for h in first(both.translate(TEXTS, beam_size=1))]
    assert [h.text for h in first(both.translate(TEXTS, method="sample", top_k=1))] == greedy
    assert [h.text for h in first(both.translate(TEXTS, method="contrastive", beam_size=4, alpha=0.0))] == greedy


def test_runs_of_other_vocabularies_are_no_ensemble(toy_run, toy_folder, tmp_path):
    shutil.copytree(toy_run.path, tmp_path / "run")
    tokenizer = CharacterTokenizer([*Translator.load(toy_run.path).target_tokenizer.vocabulary[:-1], "z"])
    run = RunDirectory.open(tmp_path / "run")
    tokenizer.save(run.path, run.metadata["target_tokenizer"].removesuffix(".tok.json"))
    edit_config(run.path, run.metadata)
    with pytest.raises(UserError, match="another target vocabulary"):
        Translator.load(toy_run.path, tmp_path / "run")
    small = [
        EncoderDecoder(build_seq2seq(Seq2SeqConfig(size, 7, encoder_units=3, decoder_units=5))) for size in (7, 11)
    ]
    with pytest.raises(ValueError, match="Expected: members of the same vocabularies"):
        Ensemble(small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 40}, "may have outputs of 18 tokens, and what is asked for needs 40"),
        ({"constraints": TextConstraints(prefixes="a" * 30)}, "needs 30"),
        ({"constraints": TextConstraints(prefixes="aXb")}, "The prefix 'aXb' holds what the model cannot write: 'X'"),
        ({"constraints": TextConstraints(prefixes=["a"])}, "Expected a prefix for each of 5 texts. Received: 1"),
        ({"constraints": TextConstraints(phrases=["é"])}, "The phrase 'é' holds"),
        ({"constraints": TextConstraints(phrases=[""])}, "is empty"),
        ({"constraints": TextConstraints(phrases=[["a"]])}, "Expected phrases for each of 5 texts. Received: 1"),
        ({"constraints": TextConstraints(banned=["ab"])}, "'ab' is several tokens, a b"),
        ({"constraints": TextConstraints(banned=["a"], phrases=["ba"])}, "'a' is banned, and part of a phrase"),
        (
            {"no_repeat_ngram": 1, "min_length": 15},
            "no output is",
        ),
        ({"constraints": TextConstraints(phrases=["a"]), "method": "sample"}, "need a beam"),
        ({"groups": 5, "method": "sample"}, "groups is a setting of method 'beam'"),
        ({"coverage_penalty": 1.0, "method": "contrastive"}, "coverage_penalty is a setting of method 'beam'"),
        ({"groups": 2}, "Expected a divisor of the beam of 5. Received: 2"),
        ({"n_best": 2, "method": "contrastive"}, "Expected at most 1"),
    ],
)
def test_what_cannot_be_met_is_said(translator, options, message):
    with pytest.raises(UserError, match=message):
        translator.translate(TEXTS, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchPolicy(min_length=-1), "min_length is out of range"),
        (lambda: SearchPolicy(repetition_penalty=0), "repetition_penalty is out of range"),
        (lambda: SearchPolicy("sample", temperature=0), "temperature is out of range"),
        (lambda: SearchPolicy("sample", top_k=0), "top_k is out of range"),
        (lambda: SearchPolicy("sample", top_p=1.5), "top_p is out of range"),
        (lambda: SearchPolicy("contrastive", alpha=2), "alpha is out of range"),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("beam_size", [1, 3])
def test_probabilities_that_are_no_numbers(toy_run, beam_size):
    translator = Translator.load(toy_run.path)
    output = EncoderDecoder(translator.model).output
    output.bias.assign(np.full(output.bias.shape, np.nan, "float32"))
    with pytest.raises(UserError, match=r"probabilities are no numbers \(NaN\)"):
        translator.translate(["abc"], beam_size=beam_size)


def test_an_unknown_word_gives_way_to_the_one_it_attends_to():
    source, target = (WordTokenizer.train([line]) for line in ("das ist haus", "this is house"))
    text = "das ist Xanadu"
    ids = np.array([[[*target.encode("this is"), 3, 2]]])
    weights = np.array([[[[0.9, 0, 0.1, 0], [0, 0.9, 0.1, 0], [0.1, 0.2, 0.6, 0.1], [0, 0, 0, 1]]]])
    found = {
        "ids": ids,
        "lengths": np.array([[4]]),
        "alignments": weights,
        "scores": np.zeros((1, 1)),
        "log_probs": np.zeros((1, 1)),
        "finished": np.ones((1, 1), bool),
    }
    source_ids = [*source.encode(text), 2]
    for replace, expected in (
        (False, "this is"),
        (True, "this is Xanadu"),
        ({"Xanadu": "Shangdu"}, "this is Shangdu"),
        ({"ist": "is"}, "this is Xanadu"),
    ):
        hypothesis = read_hypotheses(found, 0, 1, (source, target), text, source_ids, replace)[0]
        assert hypothesis.text == expected


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer, SubwordTokenizer])
def test_pieces_are_written_as_the_text_and_join_to_it(kind):
    lines = ["ein mann liest ein buch", "eine frau liest", "ein buch"] * 9
    tokenizer = kind.train(lines, 30) if kind is SubwordTokenizer else kind.train(lines)
    text = "ein Ärger liest"
    pieces = tokenizer.pieces(text)
    assert len(pieces) == len(tokenizer.encode(text))
    assert tokenizer.join(pieces) == text
    assert tokenizer.equals(tokenizer)
    assert not tokenizer.equals(WordTokenizer.train(["x"]))


def test_the_command_line_translates_as_asked(toy_run, other_run, tmp_path):
    lines = "".join(f"{text}\n" for text in TEXTS).encode()
    asked = ["--prefix", "ab", "--require", "fe", "--ban", "c", "--min-length", 5, "--no-repeat-ngram", 3]
    done = run_command("translate", toy_run.path, "--with", other_run.path, *asked, stdin=lines)
    assert done.status == 0, done.err
    for text in done.out.splitlines():
        assert text.startswith("ab")
        assert "fe" in text
        assert "c" not in text
    drawn = [
        run_command(
            "translate", toy_run.path, "--method", "sample", "--seed", 3, "--temperature", 2, "--n-best", 2, stdin=lines
        )
        for _ in range(2)
    ]
    assert drawn[0].out == drawn[1].out
    assert len(drawn[0].out.splitlines()) == 2 * len(TEXTS)
    contrast = run_command(
        "translate", toy_run.path, "--method", "contrastive", "--alpha", 0.5, "--beam", 3, stdin=lines
    )
    assert len(contrast.out.splitlines()) == len(TEXTS)
    dictionary = tmp_path / "words.tsv"
    dictionary.write_text("X\tx\n", encoding="utf-8")
    done = run_command("translate", toy_run.path, "--dictionary", dictionary, stdin=b"aXb\n")
    assert done.status == 0, done.err


def test_links_go_from_word_to_word(toy_run, tmp_path):
    done = run_command(
        "translate", toy_run.path, "--pharaoh", tmp_path / "links", "--beam", 2, "--skip-errors", stdin=b"abc\n\nfe\n"
    )
    assert done.status == 0, done.err
    lines = (tmp_path / "links").read_text(encoding="utf-8").split("\n")
    assert len(lines) == 4
    assert lines[1] == ""
    for text, output, line in zip(["abc", "", "fe"], done.out.splitlines(), lines, strict=False):
        links = parse_pharaoh(line)
        assert [target for _, target in links] == list(range(len(output)))
        assert all(source < len(text) for source, _ in links)
    done = run_command("translate", toy_run.path, "--pharaoh", tmp_path / "none" / "links", stdin=b"abc\n")
    assert (done.status, "cannot be written" in done.err) == (1, True)


def test_the_command_line_scores_given_outputs(toy_run, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    target.write_text("".join(f"{text[::-1]}\n" for text in TEXTS), encoding="utf-8")
    done = run_command("score", toy_run.path, "--source", source, "--target", target)
    expected = Translator.load(toy_run.path).score(TEXTS, [text[::-1] for text in TEXTS])
    # Six decimals of float32 are written.
    assert [float(line) for line in done.out.splitlines()] == pytest.approx([s.score for s in expected], abs=1e-5)
    target.write_text("a\n", encoding="utf-8")
    done = run_command("score", toy_run.path, "--source", source, "--target", target)
    assert done.status == 1
    assert "not parallel" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "votes"], "Unknown method"),
        (["--temperature", 2, "--top-k", 3], "temperature is a setting of method 'sample'"),
        (["--require", "é"], "holds what the model cannot write"),
        (["--min-length", 90], "needs 90"),
        (["--length-penalty-kind", "mean"], "length_penalty_kind"),
        (["--combination", "votes"], "combination"),
    ],
)
def test_mistakes_on_the_command_line(toy_run, options, message):
    done = run_command("translate", toy_run.path, *options, stdin=b"abc\n")
    assert done.status == 1
    assert message in done.err
    assert "Traceback" not in done.err


def test_models_are_seen_by_keras(toy_run, other_run):
    search = Translator.load(toy_run.path, other_run.path)._search(policy=SearchPolicy(beam_size=2, max_length=5))
    assert len(search.weights) == 2 * len(keras.models.load_model(toy_run.path / "model.keras").weights)


def test_a_translator_keeps_the_searches_that_were_used_last(toy_run, monkeypatch):
    """Each beam is a compiled search of its own; one that went is made again, with the same outputs."""
    made = []

    class Counted(translators.SearchModel):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(translators, "SearchModel", Counted)
    monkeypatch.setattr(translators, "KEPT_SEARCHES", 2)
    translator = Translator.load(toy_run.path)

    def scores(*beams):
        return {beam: first(translator.translate(["abc"], beam_size=beam))[0].score for beam in beams}

    found = scores(1, 2, 1, 3)
    assert len(made) == 3
    assert scores(1, 3) == {beam: found[beam] for beam in (1, 3)}
    assert len(made) == 3
    assert scores(2) == {2: found[2]}
    assert len(made) == 4


def test_a_fork_of_a_translators_process_is_told(toy_run, monkeypatch):
    """It would hang: the backend's threads are not in the fork."""
    translator = Translator.load(toy_run.path)
    monkeypatch.setattr(decoding.os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="does not work in a forked process"):
        translator.translate(["abc"])
    with pytest.raises(RuntimeError, match="does not work in a forked process"):
        translator.score(["abc"], ["cba"])
