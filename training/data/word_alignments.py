"""Word alignments given for training text: from lines of links to a guide for the attention over tokens."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.metrics.alignment import parse_pharaoh
from keras_attention.text.lines import decode_lines
from keras_attention.text.tokenizers import Tokenizer

from .pairs import Ids, Pairs

Links = list[tuple[int, int]]


def read_links(path: str | pathlib.Path, pairs: Pairs) -> list[Links]:
    """The links of each pair, from a file in Pharaoh format that is parallel to the training text.

    A pair knows its line; lines of text that were left out, or held out for validation, have links that nobody reads.

    Raises:
        UserError: for a missing file, a line that is none of links, fewer lines than the text has, a link to a word
            that there is not, or a source with several targets: only the line of the first is known.
    """
    path = pathlib.Path(path)
    try:
        lines = list(decode_lines(path.read_bytes().removesuffix(b"\n").split(b"\n"), str(path)))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}. Expected lines of links, 0-0 1-2") from error
    for accepted, origin in zip(pairs.references, pairs.origins, strict=True):
        if len(accepted) > 1:
            raise UserError(
                f"{origin}: a source with {len(accepted)} targets, each of which has links of its own. "
                "Expected --source and --target, not --tsv, with --alignments"
            )
    found = []
    sources, targets, origins = pairs.flat()
    for source, target, origin in zip(sources, targets, origins, strict=True):
        number = int(origin.rpartition(":")[2])
        if number > len(lines):
            raise UserError(f"{path}: {len(lines)} lines. Expected links for {origin}, one line for each of the text")
        try:
            links = parse_pharaoh(lines[number - 1])
        except UserError as error:
            raise UserError(f"{path}:{number}: {error}") from error
        sizes = len(source.split()), len(target.split())
        for link in links:
            if any(word >= size for word, size in zip(link, sizes, strict=True)):
                raise UserError(
                    f"{path}:{number}: link {link[0]}-{link[1]}. Expected words of {origin}, which has "
                    f"{sizes[0]} in the source and {sizes[1]} in the target, counted from 0"
                )
        found.append(links)
    return found


def make_guide(
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    links: Sequence[Links],
    tokenizers: tuple[Tokenizer, Tokenizer],
    shape: tuple[int, int],
) -> npt.NDArray[np.float32]:
    """`g_t(s)` `(B, T, S)`: even over the tokens of the source words that token t's word is linked to; zero for none.

    Args:
        sources, targets: ids without EOS.
        links: of each pair, between words (source, target).
        tokenizers: of source and target; they say which word a token belongs to.
        shape: T and S.
    """
    guide = np.zeros((len(sources), *shape), np.float32)
    for row, (source, target, pairs) in enumerate(zip(sources, targets, links, strict=True)):
        if not pairs:
            continue
        numbers = [
            np.array(tokenizer.word_numbers(tokenizer.tokens(ids)), np.int64)
            for tokenizer, ids in zip(tokenizers, (source, target), strict=True)
        ]
        words = np.zeros((max(numbers[1].max(initial=-1), max(t for _, t in pairs)) + 1, len(source)), np.float32)
        for s, t in pairs:
            words[t, numbers[0] == s] = 1.0
        here = words[numbers[1]]
        guide[row, : len(target), : len(source)] = here / np.maximum(here.sum(axis=1, keepdims=True), 1.0)
    return guide
