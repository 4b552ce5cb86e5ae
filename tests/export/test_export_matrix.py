"""Every score, mechanism, cell, bridge and feeding as TFLite and ONNX: verified at several batch sizes and lengths."""

import pathlib

import pytest

from keras_attention.export import export
from tests.support.export_models import cheap, tiny_model
from tests.support.parts import fast

__all__ = ["cheap"]

NO_RECURRENCE = {
    "cell": "self_attention",
    "attention": "scaled_dot",
    "attention_heads": 2,
    "encoder_units": 14,
    "decoder_units": 14,
}
CONFIGS = {
    "general": {},
    "dot, gru, two layers, copy, fed": {
        "attention": "dot",
        "cell": "gru",
        "encoder_layers": 2,
        "decoder_layers": 2,
        "decoder_units": 14,
        "bridge": "copy",
        "input_feeding": True,
    },
    "scaled dot, copy": {"attention": "scaled_dot", "decoder_units": 14, "bridge": "copy"},
    "concat, final, one direction, many words": {
        "attention": "concat",
        "bridge_input": "final",
        "bidirectional": False,
        "target_vocabulary": 701,  # the searches look for the best of so many by blocks
    },
    "cosine, fed, two layers, tied": {
        "attention": "cosine",
        "decoder_units": 14,
        "input_feeding": True,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "tie_embeddings": "target",
    },
    "none": {"attention": "none", "decoder_units": 14},
    "local-p, coverage, heads, fed": {
        "attention": "additive",
        "window": "local_p",
        "half_width": 2,
        "use_coverage": True,
        "attention_heads": 7,
        "input_feeding": True,
    },
    "sparsemax, local location, scaled": {
        "attention": "location",
        "max_source_length": 23,
        "use_scale": True,
        "window": "local_m",
        "half_width": 3,
        "alignment": "sparsemax",
    },
    "hardmax, bahdanau": {"attention": "normalized_additive", "alignment": "hardmax", "style": "bahdanau"},
    "monotonic heads": {"attention": "scaled_dot", "attention_heads": 2, "alignment": "monotonic"},
    "hard monotonic, fed": {"alignment": "hard_monotonic", "input_feeding": True},
    "layer norm, fed": {"cell": "layer_norm_lstm", "input_feeding": True},
    "gnmt": {"style": "gnmt", "decoder_layers": 3, "encoder_layers": 2, "residual": True},
    "copying": {"source_vocabulary": 19, "copy_words": 3},
    "features": {"source_vocabulary": 0, "source_features": 3},
    "self-attention": {**NO_RECURRENCE, "encoder_layers": 2, "decoder_layers": 2, "tie_embeddings": "target"},
    "self-attention, additive": {**NO_RECURRENCE, "attention": "additive"},
}
"""Every value of every feature at least once, several in one model where they do not touch each other."""


@pytest.mark.slow
def test_a_model_without_recurrence_as_saved_model(tmp_path: pathlib.Path, cheap: None) -> None:
    """The third format, for the model whose step reads a cache; the others are below."""
    report = export(tiny_model(**CONFIGS["self-attention"]), tmp_path / "artefact", "saved_model", max_length=13)
    (parity,) = report.parities
    assert parity.identical + parity.near_ties == parity.sentences == parity.host_loop_sentences == 8


@pytest.mark.parametrize("name", fast(CONFIGS, "dot, gru, two layers, copy, fed"))
def test_artefacts_equal_keras(name: str, tmp_path: pathlib.Path, cheap: None) -> None:
    config = CONFIGS[name]
    report = export(tiny_model(**config), tmp_path / "artefact", ["tflite", "onnx"], beam_size=3, max_length=13)
    tflite, onnx = report.parities
    assert tflite.operators["custom"] == {}
    loop_free = config.get("cell") != "layer_norm_lstm"
    encode, step = onnx.operators["encode"], onnx.operators["decode_step"]
    assert "Loop" not in step
    if loop_free:
        assert "Loop" not in encode
        directions = 0 if "self-attention" in name else 1 if config.get("bidirectional") is False else 2
        nodes = {config.get("cell", "lstm").upper(): config.get("encoder_layers", 1) * directions}
        assert [encode.get(kind, 0) for kind in ("LSTM", "GRU")] == [nodes.get(kind, 0) for kind in ("LSTM", "GRU")]
    assert bool(report.warnings) != loop_free
    for parity in report.parities:
        assert parity.identical + parity.near_ties == parity.sentences == 8
        assert parity.host_loop_sentences == 8
