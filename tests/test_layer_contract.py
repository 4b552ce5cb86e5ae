"""Every public layer keeps the contract of a Keras layer."""

import numpy as np
import pytest
from keras import ops

from keras_attention import Decoder, Encoder, LuongAttention, RecurrentStack
from keras_attention.arguments import SCORES
from tests.layer_contract import check_layer

# TensorFlow has no QR in bfloat16, which the orthogonal initializer of Keras' own recurrent layers asks for.
RECURRENT_DTYPES = ("float16", "mixed_float16", "mixed_bfloat16")


def normal(*shape):
    return np.random.default_rng(11).normal(size=shape).astype("float32")


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("score", SCORES)
def test_luong_attention(score, use_scale, tmp_path):
    extra = {"concat": {"units": 13}, "location": {"max_source_length": 17}}.get(score, {})
    depth = 7 if score in ("dot", "scaled_dot", "cosine") else 11
    check_layer(
        lambda **kwargs: LuongAttention(score, use_scale=use_scale, **extra, **kwargs),
        lambda layer, tensors: layer(tensors[0], tensors[1]),
        [normal(2, 3, 7), normal(2, 5, depth)],
        tmp_path,
    )


@pytest.mark.parametrize("cell", ["lstm", "gru"])
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
    )


@pytest.mark.parametrize("input_feeding", [False, True])
def test_decoder(input_feeding, tmp_path):
    def call(layer, tensors):
        values = tensors[1]
        encoded = {"values": values, "mask": values[:, :, 0] > -9.0, "state": {"h_0": ops.sum(values, axis=1)}}
        return layer(tensors[0], encoded)

    # The scan of input feeding has no XLA form on TensorFlow (Keras 3.15: a TensorArray of no fixed size).
    check_layer(
        lambda **kwargs: Decoder("lstm", 7, attention={"score": "concat"}, input_feeding=input_feeding, **kwargs),
        call,
        [normal(2, 5, 3), normal(2, 3, 11)],
        tmp_path,
        dtypes=RECURRENT_DTYPES,
        xla=not input_feeding,
    )
