"""Tiny translators with a different prime for every size, and exports of them that cost little."""

import pathlib
import subprocess
import sys
import types
from typing import Any

import keras
import numpy as np
import pytest

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.export import exporter
from keras_attention.export.formats import child_process
from keras_attention.export.formats import converter as conversion
from keras_attention.export.formats.to_onnx import convert as to_onnx
from keras_attention.export.formats.to_onnx import int8 as onnx_int8
from keras_attention.export.formats.to_tflite import convert as litert
from keras_attention.export.formats.to_tflite import int8 as litert_int8
from tests.support import warm

LINES = [
    "The cat sat, on the mat!",
    "a dog — café déjà vu",
    "12 monkeys; 7 seas?",
    "Sunday, 22 Nov. 2026",
    "naïve façade 😀 smile",
    "one two three four five",
]
UNUSUAL = [
    "cat 😺 zzz",
    "",
    " ",
    "  double  space ",
    "tab\there",
    "ünseen ß 漢字",
    "e\u0301 combining",
    "<s> </s> <pad>",
    "a",
]


def tiny_model(spread: float = 0.5, seed: int = 3, **changes: Any) -> keras.Model:
    """An untrained encoder-decoder whose weights are spread enough that its translations differ."""
    sizes = {
        "source_vocabulary": 17,
        "target_vocabulary": 19,
        "embedding_size": 5,
        "encoder_units": 7,
        "decoder_units": 11,
    }
    model = build_seq2seq(Seq2SeqConfig(**(sizes | changes)))
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(generator.normal(scale=spread, size=weight.shape))
    return model


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters as processes that do not import TensorFlow again, and no time spent on timing."""

    def run_warm(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert child_process.command(arguments)[:2] == [sys.executable, "-P"]
        return warm.run(child_process.command(arguments)[2:], capture_output=True, **options)

    monkeypatch.setattr(conversion, "child_process", types.SimpleNamespace(run=run_warm))
    monkeypatch.setattr(exporter, "TIMING_SECONDS", 0.0)


@pytest.fixture
def converters_here(monkeypatch: pytest.MonkeyPatch, cheap: None) -> None:
    """Converters in this process, for tests that change what they do."""

    def run_here(format_name: str, program: str, arguments: list[str], output: pathlib.Path) -> None:
        {module.__name__: module for module in (litert, litert_int8, onnx_int8, to_onnx)}[program].main(arguments)

    monkeypatch.setattr(conversion, "run_converter", run_here)
