"""Luong attention for Keras 3: layers, an encoder-decoder, and searches, in pure `keras.ops`.

Importing this package registers its layers, so that plain `keras.models.load_model` reads models that use them.
"""

from keras_attention.attention.luong import BahdanauAttention, LuongAttention
from keras_attention.attention.masking import length_mask, masked_softmax
from keras_attention.attention.multi_head import MultiHeadLuongAttention
from keras_attention.errors import UserError
from keras_attention.models.bridge import Bridge
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.decoder import Decoder
from keras_attention.models.encoder import Encoder
from keras_attention.models.encoder_decoder import EncoderDecoder, build_seq2seq
from keras_attention.models.ensemble import Ensemble
from keras_attention.models.pointer_generator import CopiedWords, PointerGenerator
from keras_attention.models.shortlist import VocabularyShortlist
from keras_attention.models.transformer import AttentionDecoder, AttentionEncoder
from keras_attention.recurrent.attention_cell import AttentionCell
from keras_attention.recurrent.attention_rnn import AttentionRNN
from keras_attention.recurrent.stack import RecurrentStack
from keras_attention.search import (
    Constraints,
    SearchResult,
    agreement_search,
    allow_words,
    beam_search,
    contrastive_search,
    ensemble_step,
    greedy_search,
    sample_search,
)
from keras_attention.search_policy import SearchPolicy
from keras_attention.tfa_weights import load_tfa_attention_layer, load_tfa_bahdanau, load_tfa_luong
from keras_attention.translation.hypothesis import Hypothesis
from keras_attention.translation.translator import Translator
from keras_attention.version import VERSION

__version__ = VERSION

__all__ = [
    "AttentionCell",
    "AttentionDecoder",
    "AttentionEncoder",
    "AttentionRNN",
    "BahdanauAttention",
    "Bridge",
    "Constraints",
    "CopiedWords",
    "Decoder",
    "Encoder",
    "EncoderDecoder",
    "Ensemble",
    "Hypothesis",
    "LuongAttention",
    "MultiHeadLuongAttention",
    "PointerGenerator",
    "RecurrentStack",
    "SearchPolicy",
    "SearchResult",
    "Seq2SeqConfig",
    "Translator",
    "UserError",
    "VocabularyShortlist",
    "agreement_search",
    "allow_words",
    "beam_search",
    "build_seq2seq",
    "contrastive_search",
    "ensemble_step",
    "greedy_search",
    "length_mask",
    "load_tfa_attention_layer",
    "load_tfa_bahdanau",
    "load_tfa_luong",
    "masked_softmax",
    "sample_search",
]
