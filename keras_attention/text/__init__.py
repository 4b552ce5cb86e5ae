"""Text and token ids: tokenizers, and line readers."""

from keras_attention.text.tokenizers import (
    KINDS,
    SPECIAL_TOKENS,
    UNKNOWN_ID,
    CharacterTokenizer,
    SubwordTokenizer,
    Tokenizer,
    VocabularyTokenizer,
    WordTokenizer,
    load_tokenizer,
    train_tokenizer,
)

__all__ = [
    "KINDS",
    "SPECIAL_TOKENS",
    "UNKNOWN_ID",
    "CharacterTokenizer",
    "SubwordTokenizer",
    "Tokenizer",
    "VocabularyTokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "train_tokenizer",
]
