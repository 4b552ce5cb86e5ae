"""Tokenizers: ids and back, files, and what they refuse."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import (
    CharacterTokenizer,
    SubwordTokenizer,
    VocabularyTokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)
from keras_attention.types import UNK_ID

LINES = ["ein hund läuft über den schnee", "zwei hunde laufen", "ein kind läuft", "der hund schläft im schnee"] * 5


@pytest.fixture(scope="module")
def subwords() -> SubwordTokenizer:
    return SubwordTokenizer.train(LINES, 60)


def test_characters_are_ranked_by_frequency_after_the_special_ids() -> None:
    tokenizer = CharacterTokenizer.train(["abb", "bc"])
    assert tokenizer.vocabulary == ["<pad>", "<s>", "</s>", "<unk>", "b", "a", "c"]
    assert tokenizer.encode("cab?") == [6, 5, 4, 3]
    assert tokenizer.decode([1, 6, 5, 4, 2, 0, 3]) == "cab"
    assert tokenizer.tokens([6, 2]) == ["c", "</s>"]
    assert tokenizer.unknown("ca?b!") == ["?", "!"]


def test_tokens_of_equal_count_are_ranked_by_code_point_wherever_they_come_first() -> None:
    assert CharacterTokenizer.train(["cdbab", "ad"]).vocabulary[4:] == ["a", "b", "d", "c"]
    assert WordTokenizer.train(["cd b ab", "b"], 6).vocabulary[4:] == ["b", "ab"]


def test_a_bounded_vocabulary_keeps_the_most_frequent() -> None:
    assert WordTokenizer.train(["a b a c", "b a"], 6).vocabulary[4:] == ["a", "b"]


def test_words_are_split_at_ascii_white_space_alone() -> None:
    tokenizer = WordTokenizer.train(["K AE\tT", "K\u00a0X"])
    assert tokenizer.split(" K  AE\tT\n") == ["K", "AE", "T"]
    assert tokenizer.split("K\u00a0X") == ["K\u00a0X"]
    assert tokenizer.decode(tokenizer.encode("T AE K")) == "T AE K"


@given(st.text(max_size=30))
def test_characters_come_back_whatever_the_text(text: str) -> None:
    tokenizer = CharacterTokenizer.train([text])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert all(index >= 4 for index in ids)


def test_a_special_token_in_the_text_is_text() -> None:
    tokenizer = WordTokenizer.train(["a <s> </s> b"])
    assert tokenizer.encode("a <s> b") == [4, 3, 5]


def test_subwords_have_our_special_ids_and_come_back(subwords: SubwordTokenizer) -> None:
    for line in LINES:
        ids = subwords.encode(line)
        assert min(ids) >= 4
        assert max(ids) < subwords.vocabulary_size
        assert subwords.decode([1, *ids, 2, 0]) == line
        assert "".join(subwords.tokens(ids)).replace("\u2581", " ").strip() == line
    assert subwords.tokens([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]


def test_subwords_tell_the_characters_they_never_saw(subwords: SubwordTokenizer) -> None:
    assert subwords.unknown("ein hund läuft") == []
    assert subwords.unknown("ein Qualle") == ["Q"]
    assert 3 in subwords.encode("Q")


def test_subwords_are_the_same_each_time(subwords: SubwordTokenizer) -> None:
    assert SubwordTokenizer.train(LINES, 60).model == subwords.model


@pytest.mark.parametrize("kind", ["subword", "char", "word"])
def test_saved_and_loaded(kind: str, tmp_path) -> None:
    tokenizer = train_tokenizer(kind, LINES, 60)
    files = tokenizer.save(tmp_path, "source")
    assert files[0] == "source.tok.json"
    assert sorted(files) == sorted(path.name for path in tmp_path.iterdir())
    assert json.loads((tmp_path / files[0]).read_text(encoding="utf-8"))["kind"] == kind
    for name in ("source", "source.tok.json"):
        loaded = load_tokenizer(tmp_path, name)
        assert loaded.vocabulary_size == tokenizer.vocabulary_size
        assert loaded.encode(LINES[0]) == tokenizer.encode(LINES[0])


def test_errors_name_the_file(tmp_path) -> None:
    with pytest.raises(UserError, match=r"source\.tok\.json: no such file"):
        load_tokenizer(tmp_path, "source")
    for content in ("{", "[]", '{"kind": "byte"}', '{"kind": "char"}', '{"kind": "char", "vocabulary": ["a"]}'):
        (tmp_path / "source.tok.json").write_text(content)
        with pytest.raises(UserError, match=r"source\.tok\.json: damaged"):
            load_tokenizer(tmp_path, "source")
    SubwordTokenizer.train(LINES, 60).save(tmp_path, "joint")
    (tmp_path / "joint.tok.model").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"joint\.tok\.model: damaged"):
        load_tokenizer(tmp_path, "joint")
    (tmp_path / "joint.tok.model").unlink()
    with pytest.raises(UserError, match=r"joint\.tok\.model: no such file"):
        load_tokenizer(tmp_path, "joint")


def test_a_vocabulary_needs_the_special_tokens_and_no_repeats() -> None:
    with pytest.raises(ValueError, match="starts with the special tokens"):
        CharacterTokenizer(["a", "b"])
    with pytest.raises(ValueError, match="each token once"):
        CharacterTokenizer(["<pad>", "<s>", "</s>", "<unk>", "a", "a"])
    assert issubclass(WordTokenizer, VocabularyTokenizer)


def test_unknown_kind() -> None:
    with pytest.raises(UserError, match=r"Expected one of subword, char, word\. Received: 'byte'"):
        train_tokenizer("byte", LINES)


def test_subwords_are_learnt_from_lines_of_any_length() -> None:
    """By default sentencepiece leaves lines of more than 4,192 bytes out, so that their letters are unknown."""
    tokenizer = train_tokenizer("subword", ["some words"] * 20 + ["ž" * 3000], 20)
    assert UNK_ID not in tokenizer.encode("ž")
