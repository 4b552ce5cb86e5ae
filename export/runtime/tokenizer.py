"""Tokenizers of an artefact: text to ids and back."""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from .errors import ArtefactError, require
from .manifest import check_inside


class Tokenizer:
    """The tokenizer of one side of an artefact: subwords, characters or words."""

    def __init__(self, path: pathlib.Path, special_ids: Mapping[str, int]):
        content = json.loads(path.read_text(encoding="utf-8"))
        self.kind: str = content["kind"]
        self.special, self.unknown = set(special_ids.values()), special_ids["unk"]
        if self.kind == "subword":
            check_inside(path.parent, content["model"])
            model = path.parent / content["model"]
            self.processor = require("sentencepiece", "sentencepiece").SentencePieceProcessor(model_file=str(model))
        else:
            self.vocabulary: list[str] = content["vocabulary"]
            self.ids = {piece: i for i, piece in enumerate(self.vocabulary) if i not in self.special}

    def encode(self, text: str) -> list[int]:
        """Return ids without BOS and EOS."""
        if self.kind == "subword":
            return list(self.processor.encode(text))
        return [self.ids.get(piece, self.unknown) for piece in self.pieces(text)]

    def pieces(self, text: str) -> list[str]:
        """Return the piece of each id of `encode`."""
        if self.kind == "subword":
            return [str(piece) for piece in self.processor.encode(text, out_type=str)]
        return list(text) if self.kind == "char" else [word for word in re.split("[ \t\n\r\f\v]+", text) if word]

    def copied(self, text: str, most: int) -> list[str]:
        """Return the unknown words of a source that a model can copy: V, V + 1, ... are their ids."""
        read = zip(self.pieces(text), self.encode(text), strict=True) if most else ()
        return list(dict.fromkeys(piece for piece, i in read if i == self.unknown))[:most]

    def encode_source(self, text: str, copied: Sequence[str]) -> list[int]:
        """Return the ids of a source, with those of the words that can be copied."""
        ids = self.encode(text)
        if not copied:
            return ids
        more = {piece: self.size + number for number, piece in enumerate(copied)}
        return [more.get(piece, i) if i == self.unknown else i for piece, i in zip(self.pieces(text), ids, strict=True)]

    @property
    def size(self) -> int:
        """V, the number of ids."""
        return int(self.processor.get_piece_size()) if self.kind == "subword" else len(self.vocabulary)

    def tokens(self, ids: Iterable[int], copied: Sequence[str] = ()) -> list[str]:
        """Return the piece of each id."""
        return [self._token(int(i), copied) for i in ids]

    def _token(self, i: int, copied: Sequence[str]) -> str:
        if i >= self.size:
            if i - self.size < len(copied):
                return copied[i - self.size]
            i = self.unknown
        return str(self.processor.id_to_piece(i)) if self.kind == "subword" else self.vocabulary[i]

    def written(self, text: str, what: str) -> list[int]:
        """Return the ids of a prefix, a phrase or a banned token.

        Raises:
            ArtefactError: if the vocabulary lacks a part of it.
        """
        ids = self.encode(text) if text else []
        if self.unknown in ids:
            raise ArtefactError(f"The {what} {text!r} holds what the model cannot write. Expected: known words")
        return ids

    def decode(self, ids: Iterable[int], copied: Sequence[str] = ()) -> str:
        """Return the text of ids, without special ids and ids that have no piece."""
        kept = [int(i) for i in ids if int(i) not in self.special and int(i) < self.size + len(copied)]
        if self.kind == "subword":
            if all(i < self.size for i in kept):
                return str(self.processor.decode(kept))
            return "".join(self.tokens(kept, copied)).replace("\u2581", " ").strip()
        return ("" if self.kind == "char" else " ").join(self.tokens(kept, copied))
