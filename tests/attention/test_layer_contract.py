"""Every public layer keeps the contract of a Keras layer."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import BahdanauAttention, Decoder, Encoder, LuongAttention, MultiHeadLuongAttention, RecurrentStack
from tests.support.layer_contract import check_layer
from tests.support.mechanisms import SAME_DEPTH
from tests.support.parts import fast

# The orthogonal initializer of Keras' own recurrent layers asks for a QR, which on a CPU TensorFlow has in float16 only
# of the short types, JAX and PyTorch in none.
MIXED = ("mixed_float16", "mixed_bfloat16")
RECURRENT_DTYPES = ("float16", *MIXED) if keras.backend.backend() == "tensorflow" else MIXED

LUONG = {
    "dot": {"use_scale": True},
    "scaled dot, sparse": {"score": "scaled_dot", "alignment": "sparsemax", "dropout": 0.25},
    "general": {"score": "general"},
    "general, hard": {"score": "general", "alignment": "hardmax", "use_scale": True},
    "general, monotonic": {"score": "general", "alignment": "monotonic", "sigmoid_noise": 0.5, "score_bias_init": 0.5},
    "dot, hard monotonic": {"alignment": "hard_monotonic", "use_scale": True},
    "concat": {"score": "concat", "units": 13},
    "additive, coverage": {"score": "additive", "use_coverage": True},
    "additive, local-m": {"score": "additive", "window": "local_m", "half_width": 1},
    "location": {"score": "location", "max_source_length": 17},
    "cosine, local-p": {"score": "cosine", "use_scale": True, "window": "local_p", "half_width": 2},
}
"""Every score, window, normaliser, kind of monotonic alignment, and coverage, at least once."""

OTHERS = {
    "bahdanau": (BahdanauAttention, {"units": 13}),
    "bahdanau, normalised": (BahdanauAttention, {"normalize": True, "window": "local_p", "half_width": 2}),
    "heads": (MultiHeadLuongAttention, {"num_heads": 3, "head_size": 5}),
    "heads, coverage": (MultiHeadLuongAttention, {"num_heads": 2, "head_size": 3, "score": "additive"}),
    "heads, monotonic": (MultiHeadLuongAttention, {"num_heads": 2, "head_size": 3, "alignment": "monotonic"}),
}


def normal(*shape):
    return np.random.default_rng(11).normal(size=shape).astype("float32")


def check_attention(attention, arguments, tmp_path, depth):
    untaught = ()
    if arguments.get("alignment") in ("hardmax", "hard_monotonic"):
        untaught = ("kernel", "scale", "score_bias")  # a choice has no slope
    # A hard choice falls another way where a low precision rounds two scores to one, and a floor likewise.
    exact = untaught or arguments.get("window") == "local_p"
    check_layer(
        lambda **kwargs: attention(**arguments, **kwargs),
        lambda layer, tensors: layer(tensors[0], tensors[1]),
        [normal(2, 3, 7), normal(2, 5, depth)],
        tmp_path,
        dtypes=("float16",) if exact else ("float16", "bfloat16", "mixed_float16"),
        masked=lambda layer, tensors, mask: layer(tensors[0], tensors[1], value_mask=mask),
        untaught=untaught,
        random=bool(arguments.get("dropout") or arguments.get("sigmoid_noise")),
    )


@pytest.mark.parametrize("name", fast(LUONG, "dot", "additive, coverage", "location", "general, monotonic"))
def test_luong_attention(name, tmp_path):
    arguments = {"score": "dot", **LUONG[name]}
    check_attention(LuongAttention, arguments, tmp_path, 7 if arguments["score"] in SAME_DEPTH else 11)


@pytest.mark.parametrize("name", fast(OTHERS, "bahdanau, normalised", "heads, coverage"))
def test_bahdanau_and_multi_head_attention(name, tmp_path):
    check_attention(*OTHERS[name], tmp_path, 11)


@pytest.mark.parametrize("cell", fast(["lstm", "gru"], "lstm"))
def test_recurrent_stack(cell, tmp_path):
    check_layer(
        lambda **kwargs: RecurrentStack(cell, 7, num_layers=2, bidirectional=True, **kwargs),
        lambda layer, tensors: layer(tensors[0])[0],
        [normal(2, 5, 3)],
        tmp_path,
        dtypes=RECURRENT_DTYPES,
    )


def test_encoder(tmp_path):
    check_layer(
        lambda **kwargs: Encoder("gru", 7, **kwargs),
        lambda layer, tensors: layer(tensors[0], tensors[0][:, :, 0] > -9.0)["values"],
        [normal(2, 5, 3)],
        tmp_path,
        dtypes=RECURRENT_DTYPES,
        masked=lambda layer, tensors, mask: layer(tensors[0], mask)["values"],
    )


@pytest.mark.parametrize("input_feeding", fast([False, True], True))
def test_decoder(input_feeding, tmp_path):
    def masked(layer, tensors, mask):
        # The mean in the bridge counts on an encoder's padding, which is zeros.
        values = ops.where(ops.expand_dims(mask, -1), tensors[1], 0.0)
        encoded = {"values": values, "mask": mask, "state": {"h_0": values[:, 0]}}
        return layer(tensors[0], encoded)

    check_layer(
        lambda **kwargs: Decoder("lstm", 7, attention={"score": "concat"}, input_feeding=input_feeding, **kwargs),
        lambda layer, tensors: masked(layer, tensors, tensors[1][:, :, 0] > -9.0),
        [normal(2, 5, 3), normal(2, 3, 11)],
        tmp_path,
        dtypes=RECURRENT_DTYPES,
        masked=masked,
        empty_is_zero=False,  # the attentional vector still says what the recurrence knows
    )
