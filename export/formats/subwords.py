"""Subword tokenizers for files that read text."""

from typing import Any

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer
from keras_attention.types import UNK_ID

SPACE = "\u2581"
"""sentencepiece's mark for a space."""


def subword_models(tokenizers: tuple[Tokenizer, Tokenizer] | None, file: str) -> list[Any]:
    """Return the sentencepiece models of source and target. Raises UserError without them; `file`: name of its kind."""
    from sentencepiece import sentencepiece_model_pb2

    models = []
    for side, tokenizer in zip(("source", "target"), tokenizers or (None, None), strict=True):
        if not isinstance(tokenizer, SubwordTokenizer):
            kind = "none" if tokenizer is None else tokenizer.kind
            raise UserError(
                f"Text inside {file} file needs subword tokenizers. Expected: --tokenizer subword, or no --text. "
                f"Received: {kind} on the {side} side"
            )
        model = sentencepiece_model_pb2.ModelProto()
        model.ParseFromString(tokenizer.model)
        models.append(model)
    return models


def written_pieces(tokenizer: Tokenizer) -> list[str]:
    """Return the text that each id adds: none for special ids."""
    return ["" if i <= UNK_ID else token for i, token in enumerate(tokenizer.tokens(range(tokenizer.vocabulary_size)))]
