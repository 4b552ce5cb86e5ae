"""Exports of a model with a shortlist: every format finds what Keras finds, and multiplies by candidates alone."""

import pathlib
from typing import Any

import numpy as np
import onnx
import pytest

from keras_attention import UserError
from keras_attention.export import export, runtime
from tests.export.test_export_npu import rows
from tests.support.export_models import cheap, tiny_model

__all__ = ["cheap"]

WORDS = 211


def shortlisted(tie: str = "target") -> Any:
    model = tiny_model(spread=0.4, target_vocabulary=WORDS, shortlist=3, tie_embeddings=tie)
    table = np.random.default_rng(0).integers(4, WORDS, (17, 3))
    model.get_layer("shortlist").fill(table, [5, 6])
    return model


@pytest.mark.slow
def test_every_format_finds_what_keras_finds(tmp_path: pathlib.Path, cheap: None) -> None:
    """The export itself fails otherwise: batches of several rows, knobs turned, single steps."""
    report = export(shortlisted(), tmp_path / "artefact", samples=rows(6), max_length=7, beam_size=3)
    for parity in report.parities:
        assert parity.identical == parity.sentences == 6
        assert parity.host_loop_identical == 6
    graph = onnx.load(str(tmp_path / "artefact" / "onnx" / "decode_step.onnx")).graph
    constants = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    sizes = [
        constants[name] for node in graph.node if node.op_type == "MatMul" for name in node.input if name in constants
    ]
    assert sizes
    assert not any(WORDS in size for size in sizes)


@pytest.mark.slow
@pytest.mark.parametrize("tie", ["none", "target"])
def test_int8_holds_it_too(tmp_path: pathlib.Path, cheap: None, tie: str) -> None:
    """What is looked up outside of the loop reaches it, in both formats: the same words may be written."""
    model = shortlisted(tie)
    output = tmp_path / "artefact"
    export(model, output, precision="dynamic_int8", samples=rows(6), max_length=7, beam_size=3, loss_limit=100.0)
    source = np.asarray([[4, 5, 6, 2]], np.int32)
    allowed = np.flatnonzero(np.asarray(model.get_layer("shortlist")(source))[0])
    for backend in ("litert", "onnx"):
        found = runtime.Artefact(output, backend).search(source)
        assert set(found["ids"].reshape(-1).tolist()) <= {0, *allowed.tolist()}


def test_an_npu_takes_none(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="npu cannot hold shortlist=3"):
        export(shortlisted(), tmp_path / "artefact", to="npu", samples=rows(2), calibration=rows(100))
