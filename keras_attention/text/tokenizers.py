"""Text to ids and back: sentencepiece unigram subwords, characters, whitespace words.

A tokenizer is trained from lines of text, saved into a folder as one JSON file (a subword tokenizer adds its
sentencepiece model), and loaded from there. Ids never include BOS or EOS: the model's own conventions add them (source
rows end with EOS, target inputs start with BOS). The first four ids are the same everywhere: padding 0, BOS 1, EOS 2,
unknown 3.

>>> tokenizer = CharacterTokenizer.train(["abc", "cab"])
>>> tokenizer.encode("abx")
[4, 5, 3]
>>> tokenizer.decode([4, 5, 2])
'ab'
"""

from __future__ import annotations

import abc
import collections
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from keras_attention.errors import UserError

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
UNKNOWN_ID = 3
KINDS = ("subword", "char", "word")
LONGEST_LINE = 2**30
"""Longest line, in bytes, that sentencepiece learns from; by default it silently drops those above 4192."""


class Tokenizer(abc.ABC):
    """str <-> ids. Equal text always gives equal ids; ids below 4 are special and are dropped by `decode`."""

    kind: ClassVar[str]

    @property
    @abc.abstractmethod
    def vocabulary_size(self) -> int:
        """Number of ids, including the four special ones."""

    @abc.abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without BOS and EOS; out-of-vocabulary parts become the unknown id 3."""

    @abc.abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; special ids are dropped."""

    @abc.abstractmethod
    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id, special ids included: labels for an alignment."""

    @abc.abstractmethod
    def pieces(self, text: str) -> list[str]:
        """Return the surface form of each id of `encode`: the text's own letters where the id is the unknown one."""

    @abc.abstractmethod
    def join(self, tokens: Iterable[str]) -> str:
        """Return the text of pieces, the inverse of `pieces`."""

    def word_numbers(self, tokens: Iterable[str]) -> list[int]:
        """Return the index of each piece's word, from 0; -1 for BOS, EOS, padding. By default each piece is a word."""
        numbers, word = [], -1
        for token in tokens:
            word += self._begins_word(token) or word < 0
            numbers.append(-1 if token in SPECIAL_TOKENS[:UNKNOWN_ID] else word)
        return numbers

    def _begins_word(self, token: str) -> bool:
        return token not in SPECIAL_TOKENS[:UNKNOWN_ID]

    def equals(self, other: Tokenizer) -> bool:
        """Return whether both tokenizers give the same ids."""
        return self.to_dict() == other.to_dict()

    @abc.abstractmethod
    def unknown(self, text: str) -> list[str]:
        """Return a text's characters (words, for a word tokenizer) that are out of vocabulary, in order."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the content of the tokenizer's JSON file."""

    def save(self, directory: str | pathlib.Path, name: str) -> list[str]:
        """Write `name`.tok.json (and `name`.tok.model for subwords) into `directory`; returns the file names."""
        path = pathlib.Path(directory) / f"{name}.tok.json"
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        return [path.name]


class VocabularyTokenizer(Tokenizer):
    """A tokenizer defined by a list of tokens: a token's position is its id."""

    separator: ClassVar[str]

    def __init__(self, vocabulary: Sequence[str]) -> None:
        vocabulary = list(vocabulary)
        if tuple(vocabulary[:4]) != SPECIAL_TOKENS:
            raise ValueError(
                "A vocabulary starts with the special tokens. "
                f"Expected {list(SPECIAL_TOKENS)}. Received: {vocabulary[:4]}"
            )
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("A vocabulary holds each token once. Expected distinct tokens. Received: repeated tokens")
        self.vocabulary = vocabulary
        self._ids = {token: index for index, token in enumerate(vocabulary) if index >= len(SPECIAL_TOKENS)}

    @staticmethod
    @abc.abstractmethod
    def split(text: str) -> list[str]:
        """Return the tokens of a text."""

    @classmethod
    def train(cls, lines: Iterable[str], size: int | None = None) -> VocabularyTokenizer:
        """Keep the most frequent tokens of `lines` (ties by code point): at most `size` ids, special ones included."""
        counts = collections.Counter(token for line in lines for token in cls.split(line))
        for special in SPECIAL_TOKENS:
            counts.pop(special, None)
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        if size is not None:
            ranked = ranked[: max(size - len(SPECIAL_TOKENS), 0)]
        return cls([*SPECIAL_TOKENS, *ranked])

    @property
    def vocabulary_size(self) -> int:
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(token, UNKNOWN_ID) for token in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        return self.separator.join(self.vocabulary[index] for index in ids if index >= len(SPECIAL_TOKENS))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self.vocabulary[index] for index in ids]

    def pieces(self, text: str) -> list[str]:
        return self.split(text)

    def join(self, tokens: Iterable[str]) -> str:
        return self.separator.join(tokens)

    def unknown(self, text: str) -> list[str]:
        return [token for token in self.split(text) if token not in self._ids]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocabulary": self.vocabulary}


class CharacterTokenizer(VocabularyTokenizer):
    """One token for each Unicode code point, blanks included."""

    kind = "char"
    separator = ""

    @staticmethod
    def split(text: str) -> list[str]:
        return list(text)


class WordTokenizer(VocabularyTokenizer):
    """One token for each run of characters separated by ASCII white space."""

    kind = "word"
    separator = " "
    _blanks: ClassVar[dict[int, str]] = dict.fromkeys(map(ord, "\t\n\r\f\v"), " ")

    @staticmethod
    def split(text: str) -> list[str]:
        return [word for word in text.translate(WordTokenizer._blanks).split(" ") if word]


class SubwordTokenizer(Tokenizer):
    """A sentencepiece unigram model (Kudo 2018) with special ids 0 to 3 in this package's order."""

    kind = "subword"

    def __init__(self, model: bytes) -> None:
        try:
            import sentencepiece
        except ImportError as error:
            raise UserError(
                "Subwords need sentencepiece, which is not installed. Install it: pip install 'keras-luong[train]'"
            ) from error
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(
                f"Expected the bytes of a sentencepiece model. Received: {len(model)} other bytes"
            ) from error
        special = (
            self._processor.pad_id(),
            self._processor.bos_id(),
            self._processor.eos_id(),
            self._processor.unk_id(),
        )
        if special != (0, 1, 2, 3):
            raise ValueError(
                f"Expected a sentencepiece model with pad, BOS, EOS, unknown = (0, 1, 2, 3). Received: {special}"
            )
        self._characters: frozenset[str] | None = None

    @classmethod
    def train(cls, lines: Iterable[str], size: int | None = None) -> SubwordTokenizer:
        """Train a unigram model of at most `size` pieces (8000); it covers every character of the text."""
        import sentencepiece

        buffer = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=buffer,
                model_type="unigram",
                vocab_size=8000 if size is None else size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                pad_id=0,
                bos_id=1,
                eos_id=2,
                unk_id=3,
                pad_piece=SPECIAL_TOKENS[0],
                bos_piece=SPECIAL_TOKENS[1],
                eos_piece=SPECIAL_TOKENS[2],
                unk_piece=SPECIAL_TOKENS[3],
                num_threads=1,
                minloglevel=2,
                max_sentence_length=LONGEST_LINE,
            )
        except RuntimeError as error:
            raise UserError(
                f"sentencepiece could not make subwords of this text (vocabulary {size}): {error}. "
                "Try another --vocabulary size, or --tokenizer char"
            ) from error
        return cls(buffer.getvalue())

    @property
    def vocabulary_size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> list[int]:
        return list(self._processor.encode(text))

    def sample(self, texts: Sequence[str], alpha: float, seed: int) -> list[list[int]]:
        """Sample a segmentation of each text, a deterministic function of `(texts, alpha, seed)`.

        P(segmentation) is proportional to its unigram probability to the power `alpha`: 0 samples uniformly, a large
        alpha only the best one (subword regularisation with all segmentations, Kudo 2018, section 3.2).
        """
        import threading

        import sentencepiece

        rows: list[list[int]] = []

        def draw() -> None:
            for text in texts:
                rows.append(list(self._processor.encode(text, enable_sampling=True, alpha=alpha, nbest_size=-1)))

        # Sentencepiece seeds one generator per thread, at the thread's first draw.
        sentencepiece.set_random_generator_seed(seed % 2**32)
        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()
        return rows

    def decode(self, ids: Iterable[int]) -> str:
        return str(self._processor.decode([int(index) for index in ids if index >= len(SPECIAL_TOKENS)]))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [str(self._processor.id_to_piece(int(index))) for index in ids]

    def pieces(self, text: str) -> list[str]:
        return [str(piece) for piece in self._processor.encode(text, out_type=str)]

    def join(self, tokens: Iterable[str]) -> str:
        return "".join(tokens).replace("\u2581", " ").strip()

    def _begins_word(self, token: str) -> bool:
        return token.startswith("\u2581")

    def equals(self, other: Tokenizer) -> bool:
        return isinstance(other, SubwordTokenizer) and self.model == other.model

    def unknown(self, text: str) -> list[str]:
        if UNKNOWN_ID not in self.encode(text):
            return []
        if self._characters is None:
            pieces = (self._processor.id_to_piece(index) for index in range(len(SPECIAL_TOKENS), self.vocabulary_size))
            self._characters = frozenset("".join(pieces))
        normalized = self._processor.normalize(text).replace(" ", "\u2581")
        return [character for character in normalized if character not in self._characters]

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "vocabulary_size": self.vocabulary_size}

    def save(self, directory: str | pathlib.Path, name: str) -> list[str]:
        model = pathlib.Path(directory) / f"{name}.tok.model"
        model.write_bytes(self.model)
        path = pathlib.Path(directory) / f"{name}.tok.json"
        path.write_text(json.dumps({**self.to_dict(), "model": model.name}, indent=0) + "\n", encoding="utf-8")
        return [path.name, model.name]


_CLASSES: dict[str, type[CharacterTokenizer] | type[WordTokenizer] | type[SubwordTokenizer]] = {
    "subword": SubwordTokenizer,
    "char": CharacterTokenizer,
    "word": WordTokenizer,
}


def train_tokenizer(kind: str, lines: Iterable[str], size: int | None = None) -> Tokenizer:
    """Train a tokenizer of `kind` ("subword", "char", "word") on `lines`; `size` bounds its vocabulary.

    Raises UserError for an unknown kind.
    """
    if kind not in _CLASSES:
        raise UserError(f"Unknown tokenizer. Expected one of {', '.join(KINDS)}. Received: {kind!r}")
    return _CLASSES[kind].train(lines, size)


def load_tokenizer(directory: str | pathlib.Path, name: str) -> Tokenizer:
    """Load the tokenizer saved in `directory` as `name` (with or without the ending `.tok.json`).

    Raises UserError that names a missing or damaged file.
    """
    path = pathlib.Path(directory) / (name if name.endswith(".json") else f"{name}.tok.json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["kind"]
        if kind == "subword":
            path = path.parent / content["model"]
            return SubwordTokenizer(path.read_bytes())
        return {"char": CharacterTokenizer, "word": WordTokenizer}[kind](content["vocabulary"])
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. Expected the tokenizer that training wrote there") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: damaged. Expected the tokenizer file that training wrote there. Received: {error}"
        ) from error
