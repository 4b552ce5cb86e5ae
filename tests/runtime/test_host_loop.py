"""The runtime's host loop over a translator of tables: what it finds, and what its words cost by definition."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from keras_attention.export import manifest as artefact
from keras_attention.export import runtime
from keras_attention.export.runtime.inputs import checked_source
from tests.support import host_cases, host_tables
from tests.support.host_cases import CASES, LENGTH, SEARCHES, SOURCE
from tests.support.host_tables import EOS, PAD, Search, Tables, Translator
from tests.support.search_reference import Rules


def search(
    name: str, beams: int, source: np.ndarray = SOURCE, tables: Tables | None = None, **more: Any
) -> dict[str, Any]:
    """Result of the host loop; `more` is fixed at export too."""
    manifest, given = host_cases.manifest(name, beams, **more), host_cases.knobs(name)
    prefix = np.full((len(source), 2), PAD, np.int32)
    for line, ids in zip(prefix, given["prefix"], strict=True):
        line[: len(ids)] = ids
    knobs = runtime.knob_values(manifest, len(source), {**given, "prefix": prefix})
    return runtime.search_on_host(Translator(tables or Tables.random(5)), manifest, source, beams, knobs)


def expected(name: str, beams: int) -> dict[str, np.ndarray]:
    return host_tables.as_arrays(host_cases.expected(name, beams), beams, LENGTH, SOURCE.shape[1])


@pytest.mark.parametrize("beams", [1, 3, 700])
@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_found_is_what_its_words_cost(name: str, beams: int) -> None:
    """The widest beam holds everything that there is to find."""
    found = search(name, beams)
    for output, value in expected(name, beams).items():
        received = found[output]
        if value.ndim > 2:
            assert not value[:, :, received.shape[2] :].any()
            value = value[:, :, : received.shape[2]]
        # float32 sums of four log-probabilities and of five logarithms, beside float64.
        np.testing.assert_allclose(received, value, rtol=1e-5, atol=1e-5, err_msg=output)
    assert (found["lengths"] > 0).sum(axis=1).min() > min(beams, 9) // 2


@pytest.mark.parametrize("beams", [19, 700])
@pytest.mark.parametrize("name", ["plain", "covered", "no bigram twice"])
def test_what_ended_comes_first(name: str, beams: int) -> None:
    """The hypotheses are those of the same search, each with its own scores and weights, in another order."""
    whole = expected(name, beams)
    order = np.argsort(~whole["finished"], axis=1, kind="stable")
    assert (order != np.arange(beams)).any(axis=1).sum() > 1  # it matters in most rows
    found = search(name, beams, finished_first=True)
    for output, value in whole.items():
        value = value[np.arange(len(order))[:, None], order]
        # float32 sums of four log-probabilities and of five logarithms, beside float64.
        np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=1e-5, err_msg=output)


def test_of_equal_scores_the_lower_word_comes_first() -> None:
    even = np.full((host_tables.CODES, host_tables.VOCABULARY), -2.0, np.float32)
    even[:, [PAD, host_tables.BOS]] = -np.inf
    tables = Tables(even, Tables.random(1).weights)
    found = search("at least three, one banned", 3, tables=tables)
    # EOS, 2, is the lowest word but may not come before the third; a fourth one costs more than it lengthens.
    assert found["ids"][0].tolist() == [[3, 3, EOS, PAD], [3, 3, 3, EOS], [3, 3, 3, 3]]


@pytest.mark.parametrize("case", CASES["limits"], ids=str)
def test_limits_are_those_of_each_row_alone(case: dict[str, Any]) -> None:
    """Rows of 5, 2 and 3 tokens that never end by themselves."""
    tables, limits = Tables.random(3, eos=-np.inf), case["lengths"]
    manifest = host_tables.manifest(2, 7, max_length_factor=case["factor"], max_length_offset=case["offset"])
    knobs = runtime.knob_values(manifest, 3, {})
    found = runtime.search_on_host(Translator(tables), manifest, SOURCE, 2, knobs)
    assert found["lengths"].tolist() == [[limit, limit] for limit in limits]
    assert not found["finished"].any()
    capped = runtime.search_on_host(Translator(tables), manifest, SOURCE, 2, {**knobs, "max_length": np.array(3)})
    assert capped["lengths"][:, 0].tolist() == [min(limit, 3) for limit in limits]


@pytest.mark.parametrize("case", CASES["wrong_sources"], ids=str)
def test_sources_that_are_none(case: dict[str, Any]) -> None:
    manifest = host_tables.manifest(2, LENGTH, max_source_length=5)
    other = [5, 2, *[PAD] * (len(case["row"]) - 2)]
    with pytest.raises(runtime.ArtefactError) as caught:
        checked_source([other, case["row"]], manifest)
    assert case.get("python", case["message"]) in str(caught.value)


@pytest.mark.parametrize("case", CASES["wrong_knobs"], ids=lambda case: str(case["knobs"]))
def test_knobs_that_are_none(case: dict[str, Any]) -> None:
    with pytest.raises(runtime.ArtefactError) as caught:
        runtime.knob_values(host_tables.manifest(2, LENGTH), len(SOURCE), case["knobs"])
    assert case["python"] in str(caught.value)


def test_lengths_of_sources() -> None:
    """A frame counts where one of its numbers is not 0, a row up to the last one that does."""
    frames = np.zeros((3, 4, 2), np.float32)
    frames[0, 1, 1] = 1.0
    frames[0, 3, 0] = -1.0
    frames[1, 0] = frames[1, 2, 0] = 1.0
    assert runtime.source_lengths(frames).tolist() == [4, 3, 0]
    assert runtime.source_lengths(np.array([[4, 0, 5, 0], [7, 8, 9, 2], [0, 0, 0, 0]])).tolist() == [3, 4, 0]


def test_the_graph_s_outputs_where_a_format_has_no_graph() -> None:
    """As wide as the graph's buffers, padding behind."""
    manifest = host_tables.manifest(3, 9)
    tables = Tables.random(5, eos=4.0)
    inputs = {"source_ids": SOURCE, **runtime.knob_values(manifest, 3, {})}
    found = runtime.run_translate(Translator(tables), manifest, inputs)
    lists = [host_tables.beam(tables, row, 3, 9, Search(), Rules()) for row in SOURCE]
    for name, value in host_tables.as_arrays(lists, 3, 9, SOURCE.shape[1]).items():
        # float32 sums of at most nine log-probabilities, beside float64
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


WORDS = ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c"]


@pytest.fixture
def translator(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> runtime.Artefact:
    """An artefact of words, of which the tables are the only graphs."""
    text = json.dumps({"kind": "word", "vocabulary": WORDS})
    (tmp_path / "words.json").write_text(text, encoding="utf-8")
    entry = {"kind": "word", "file": "words.json", "files": ["words.json"]}
    fields = {"tokenizers": {"source": entry, "target": entry}, "format_version": runtime.FORMAT_VERSION}
    manifest = artefact.complete(host_tables.manifest(2, 5, **fields), tmp_path)
    artefact.write_manifest(manifest, tmp_path)
    monkeypatch.setitem(runtime.BACKENDS, "onnx", lambda *_: Translator(Tables.random(5)))
    monkeypatch.setattr(runtime.BACKENDS["onnx"], "format", "onnx", raising=False)
    return runtime.Artefact(tmp_path, "onnx")


def test_sentences_keep_their_own_prefixes_and_places(translator: runtime.Artefact) -> None:
    """Batches of two, of different lengths: what each sentence becomes is what it becomes alone."""
    sentences = ["a b", "c", "b a c a", "c c", "a"]
    prefixes = ["a", "b b", "", "c a", "b"]
    together = list(translator.translate(sentences, n_best=2, batch_size=2, prefix=prefixes))
    alone = [
        next(translator.translate([one], n_best=2, prefix=begun))
        for one, begun in zip(sentences, prefixes, strict=True)
    ]
    for sentence, begun, found, single in zip(sentences, prefixes, together, alone, strict=True):
        rules = Rules(prefix=tuple(WORDS.index(word) for word in begun.split()))
        source = np.array([*(WORDS.index(word) for word in sentence.split()), EOS])
        wanted = host_tables.beam(Tables.random(5), source, 2, 5, Search(), rules)
        assert len(found) == len(single) == len(wanted)
        for one, other, (score, ids, log_prob, alignment) in zip(found, single, wanted, strict=True):
            words = [i for i in ids if i != EOS]
            assert one.ids == other.ids == words
            assert one.text == " ".join(WORDS[i] for i in words if i > host_tables.UNK)
            assert one.tokens == [WORDS[i] for i in words]
            assert one.source_tokens == [*sentence.split(), "</s>"]
            assert one.finished == (ids[-1] == EOS)
            # float32 sums of at most five log-probabilities, beside float64
            np.testing.assert_allclose([one.score, one.log_prob], [score, log_prob], rtol=1e-5)
            np.testing.assert_allclose(one.alignment, alignment, rtol=1e-6)  # float32, as it was given


def test_slots_that_stay_empty_are_no_hypotheses(translator: runtime.Artefact) -> None:
    """The end and an unknown word are all that is left to begin with."""
    (found,) = translator.translate(["a b"], n_best=3, beam_size=3, banned=["a", "b", "c"], max_length=1)
    assert sorted((one.ids, one.finished) for one in found) == [([], True), ([host_tables.UNK], False)]


def test_a_file_of_the_right_size_with_another_letter(translator: runtime.Artefact) -> None:
    path = translator.directory / "words.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"a"', '"d"'), encoding="utf-8")
    with pytest.raises(runtime.ArtefactError, match=r"words.json was changed after the export"):
        runtime.Artefact(translator.directory, "onnx")
