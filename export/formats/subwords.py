"""What files that read text need of subword tokenizers."""

from typing import Any

from keras_attention.errors import UserError
from keras_attention.text.tokenizers import SubwordTokenizer, Tokenizer
from keras_attention.types import UNK_ID

SPACE = "\u2581"
"""What stands for a space in a piece."""


def subword_models(tokenizers: tuple[Tokenizer, Tokenizer] | None, file: str) -> list[Any]:
    """The sentencepiece models of source and target. Raises UserError where there are none; `file`: a, and its kind."""
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
    """What each id adds to a text: nothing where it is special."""
    return ["" if i <= UNK_ID else token for i, token in enumerate(tokenizer.tokens(range(tokenizer.vocabulary_size)))]
