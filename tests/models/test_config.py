"""What a `Seq2SeqConfig` takes: values of its fields' types, and one message for any other."""

import re
from typing import Any

import pytest

from keras_attention import Seq2SeqConfig, build_seq2seq


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ({"input_feeding": "maybe"}, "Expected: input_feeding, true or false. Received: input_feeding='maybe'"),
        ({"residual": 1}, "Expected: residual, true or false. Received: residual=1"),
        ({"dropout": "much"}, "Expected: dropout, a number. Received: dropout='much'"),
        ({"dropout": True}, "Expected: dropout, a number. Received: dropout=True"),
        ({"encoder_units": 0}, "Expected: encoder_units >= 1. Received: encoder_units=0"),
        ({"source_vocabulary": 4}, "Expected: source_vocabulary >= 5. Received: source_vocabulary=4"),
        ({"target_vocabulary": 4}, "Expected: target_vocabulary >= 5. Received: target_vocabulary=4"),
    ],
    ids=str,
)
def test_a_config_holds_values_of_its_types(field: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        Seq2SeqConfig(**{"source_vocabulary": 9, "target_vocabulary": 11, **field})


def test_a_number_may_be_whole() -> None:
    assert build_seq2seq(Seq2SeqConfig(9, 11, dropout=0)).count_params() > 0
    assert Seq2SeqConfig(9, 11, alignment="monotonic", score_bias_init=-2).score_bias_init == -2


def test_what_both_sides_share_reaches_both() -> None:
    shared: dict[str, Any] = {"dropout": 0.1, "word_dropout": 0.2, "weight_dropout": 0.3}
    shared |= {"residual": True, "variational_dropout": True}
    model = build_seq2seq(Seq2SeqConfig(9, 11, **shared))
    for name in ("encoder", "decoder"):
        told = model.get_layer(name).get_config()
        assert {field: told[field] for field in shared} == shared, name
    shared = {"dropout": 0.1, "word_dropout": 0.2, "feed_forward_units": 7}
    choices: dict[str, Any] = {"cell": "self_attention", "attention": "dot", "encoder_units": 6, "decoder_units": 6}
    model = build_seq2seq(Seq2SeqConfig(9, 11, **choices, **shared))
    for name in ("encoder", "decoder"):
        told = model.get_layer(name).get_config()
        assert {field: told[field] for field in shared} == shared, name
