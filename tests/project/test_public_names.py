"""The public names of every package: one that goes, or is added, is a decision."""

import importlib

import pytest

import keras_attention

LIBRARY = (
    *("AttentionCell", "AttentionDecoder", "AttentionEncoder", "AttentionRNN"),
    *("BahdanauAttention", "Bridge", "Constraints", "CopiedWords"),
    *("Decoder", "Encoder", "EncoderDecoder", "Ensemble"),
    *("Hypothesis", "LuongAttention", "MultiHeadLuongAttention", "PointerGenerator"),
    *("RecurrentStack", "SearchPolicy", "SearchResult", "Seq2SeqConfig"),
    *("Translator", "UserError", "VocabularyShortlist", "agreement_search"),
    *("allow_words", "beam_search", "build_seq2seq", "contrastive_search"),
    *("ensemble_step", "greedy_search", "length_mask", "load_tfa_attention_layer"),
    *("load_tfa_bahdanau", "load_tfa_luong", "masked_softmax", "sample_search"),
)
PUBLIC = {
    "keras_attention": LIBRARY,
    "keras_attention.training": ("average", "evaluate", "shortlist", "synthesize", "train"),
    "keras_attention.export": ("ExportResult", "benchmark", "export", "verify"),
}


@pytest.mark.once(reason="computes nothing")
@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(PUBLIC[name])
    assert all(hasattr(module, public) for public in PUBLIC[name])


def test_what_the_library_exports_says_what_it_is() -> None:
    assert [name for name in LIBRARY if not getattr(keras_attention, name).__doc__] == []
