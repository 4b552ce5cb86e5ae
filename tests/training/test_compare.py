"""Runs compared: significance by resampling, the sentences that differ most, and the page that shows attention."""

import html.parser
import json
import re

import numpy as np
import pytest

from keras_attention import UserError
from keras_attention.training.compare import _bleu_tests, _error_tests, compare, differences
from keras_attention.training.data.pairs import Pairs
from keras_attention.translation.attention_page import write_attention_page
from keras_attention.translation.hypothesis import Hypothesis
from keras_attention.translation.translator import Translator
from tests.support.command import run_command
from tests.support.toy_run import another_run


def pairs_of(references):
    sources = [f"source {number}" for number in range(len(references))]
    return Pairs(sources, [[one] for one in references], [f"text:{number}" for number in range(len(references))])


def test_a_clear_difference_is_significant_and_none_is_not():
    rng = np.random.default_rng(0)
    pairs = pairs_of([f"w{number}" for number in range(400)])
    good = [reference[0] for reference in pairs.references]
    half = [text if rng.random() < 0.5 else "x" for text in good]
    other_half = [text if rng.random() < 0.5 else "x" for text in good]
    found = _error_tests("exact", ["half", "other", "good", "twin"], [half, other_half, good, half], pairs, "none", 500)
    assert "p_value" not in found[0]["exact_match"]
    assert found[1]["exact_match"]["p_value"] > 0.05  # two halves drawn alike: no level would call it clear
    assert found[2]["exact_match"]["p_value"] < 0.01  # all right against half of 400
    assert found[3]["exact_match"]["p_value"] == 1.0
    share = np.mean([a == b for a, b in zip(half, good, strict=True)])
    assert found[0]["exact_match"]["score"] == pytest.approx(100 * share)
    # Half the width of a 95 % interval of a share is 1.96 standard deviations; the draws are 500.
    assert found[0]["exact_match"]["interval"] == pytest.approx(196 * (share * (1 - share) / 400) ** 0.5, rel=0.15)


def test_word_error_rates_do_not_count_blanks():
    found = _error_tests("g2p", ["one", "two"], [["A B", "C"], ["A  B", "D"]], pairs_of(["A B", "C"]), "none", 100)
    assert [system["wer"]["score"] for system in found] == [0.0, 50.0]


def test_bleu_is_that_of_sacrebleu():
    rng = np.random.default_rng(1)
    words = [f"w{number}" for number in range(30)]
    references = [" ".join(rng.choice(words, 9)) for _ in range(60)]
    bad = [" ".join(word if rng.random() < 0.6 else "x" for word in text.split()) for text in references]
    found = _bleu_tests(
        "translation", ["bad", "good", "twin"], [bad, references, bad], pairs_of(references), "none", 200
    )
    assert found[1]["bleu"]["score"] == pytest.approx(100.0)
    assert found[1]["bleu"]["p_value"] < 0.01  # all right against three words of five
    assert found[2]["bleu"]["p_value"] == 1.0
    assert found[0]["chrf"]["score"] < 90


def test_the_sentences_that_differ_most_come_first():
    pairs = pairs_of(["a b c", "d e", "f"])
    found = differences("g2p", [["a b c", "d e", "f"], ["a b c", "x", "x y z"]], pairs, 5)
    assert [(entry["source"], entry["scores"]) for entry in found] == [
        ("source 2", [0.0, 3.0]),
        ("source 1", [0.0, 2.0]),
    ]


def test_sentences_that_got_better_or_worse_differ_alike():
    pairs = pairs_of(["a b c", "d e", "f", "g"])
    found = differences("g2p", outputs := [["x y z", "x", "f", "g"], ["a b c", "d e", "x", "g"]], pairs, 5)
    assert [(entry["source"], entry["scores"]) for entry in found] == [
        ("source 0", [3.0, 0.0]),
        ("source 1", [2.0, 0.0]),
        ("source 2", [0.0, 1.0]),
    ]
    assert differences("g2p", outputs, pairs, 2) == found[:2]


def test_edits_are_those_from_the_nearest_reference():
    pairs = Pairs(["s"], [["a b c d", "a b", "x"]], ["text:0"])
    [found] = differences("g2p", [["a b c"], ["a b c d"]], pairs, 5)
    assert found["scores"] == [1.0, 0.0]


def test_the_command_compares_runs(toy_run, toy_folder, tmp_path):
    other = another_run(toy_run, tmp_path / "compared").path
    text = ["--source", toy_folder / "source.txt", "--target", toy_folder / "target.txt"]
    done = run_command("compare", toy_run.path, other, *text, "--samples", 100, "--beam", 2)
    assert done.status == 0, done.err
    result = json.loads(done.out.splitlines()[-1])
    assert [system["run"] for system in result["systems"]] == [str(toy_run.path), str(other)]
    assert 0 < result["systems"][1]["exact_match"]["p_value"] <= 1
    assert result["differences"][0]["source"] in done.out
    done = run_command("compare", toy_run.path, *text)
    assert (done.status, done.err) == (1, "error: Expected two runs or more to compare. Received: 1\n")
    with pytest.raises(UserError, match="Expected 100 samples or more"):
        compare([toy_run.path, other], source=text[1], target=text[3], samples=9)


def test_the_command_ranks_what_ended_first(toy_run, toy_folder, tmp_path, monkeypatch):
    other = another_run(toy_run, tmp_path / "compared").path
    text = ["--source", toy_folder / "source.txt", "--target", toy_folder / "target.txt", "--samples", 100]
    asked, translate = [], Translator.translate

    def watched(*given, **named):
        asked.append(named["policy"].finished_first)
        return translate(*given, **named)

    monkeypatch.setattr(Translator, "translate", watched)
    for more in ([], ["--finished-first"]):
        assert run_command("compare", toy_run.path, other, *text, "--beam", 2, *more).status == 0
    assert asked == [False, False, True, True]


class Checked(html.parser.HTMLParser):
    """The words of each list, and whatever would be fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.lists, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        if tag == "ul":
            self.lists.append([])
        if tag == "li":
            self.lists[-1].append("")

    def handle_data(self, data):
        if self.lists and self.lists[-1] and self.get_starttag_text().startswith("<li"):
            self.lists[-1][-1] += data.strip()


def test_a_page_holds_words_and_weights_and_fetches_nothing(tmp_path):
    weights = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]], np.float32)
    hypothesis = Hypothesis("<b> & c", ["<b>", "& c", "</s>"], -1.0, -1.0, weights, ["\u2581x", "</s>"], True)
    write_attention_page(tmp_path / "page.html", [hypothesis, hypothesis], sources=["<x>", "x"])
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Checked()
    page.feed(text)
    assert not page.fetched
    assert [words[: len(hypothesis.source_tokens)] for words in page.lists[::2]] == [["x", "</s>"]] * 2
    assert [len(words) for words in page.lists[1::2]] == [3, 3]
    assert "<b>" not in text
    assert "source: &lt;x&gt;</div>" in text
    assert "<li> x</li>" in text  # the mark of sentencepiece is a space
    [found] = re.findall(r"const weights = (.*);", text)
    np.testing.assert_allclose(json.loads(found), [weights.tolist()] * 2)


def test_the_command_writes_picture_and_page(toy_run, tmp_path):
    files = tmp_path / "a.png", tmp_path / "a.html"
    done = run_command("attention", toy_run.path, "abc", "--output", files[0], "--page", files[1])
    assert done.status == 0, done.err
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert all(str(file) in done.err for file in files)
