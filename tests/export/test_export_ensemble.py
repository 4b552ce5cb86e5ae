"""Several models in one artefact: it answers as their ensemble, in every format and on the host."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from keras_attention import EncoderDecoder, Ensemble, UserError
from keras_attention.export import console as commands
from keras_attention.export import export, runtime
from keras_attention.translation.translator import Translator
from tests.export.test_export_artefact import make_run
from tests.support.export_models import LINES, cheap, tiny_model
from tests.support.parts import fast

__all__ = ["cheap"]

FORMATS = ["saved_model", "tflite", "onnx"]
MEMBERS: list[dict[str, Any]] = [
    {"seed": 3},
    {"seed": 4, "cell": "gru", "decoder_units": 13, "encoder_layers": 2},
    {"seed": 5, "attention": "location", "max_source_length": 23, "decoder_layers": 2},
]
ROWS = [[5, 9, 2], [4, 6, 7, 8, 10, 2], [12, 2], [16, 4, 4, 9, 11, 13, 5, 2]]
LIMITS: dict[str, Any] = {"beam_size": 3, "max_length": 9, "samples": ROWS}


@pytest.mark.parametrize("combination", fast(["probabilities", "logits"]))
def test_an_artefact_answers_as_the_ensemble(tmp_path: pathlib.Path, cheap: None, combination: str) -> None:
    models = [tiny_model(**config) for config in MEMBERS]
    formats = FORMATS if combination == "probabilities" else ["tflite"]
    report = export(models, tmp_path / "artefact", formats, combination=combination, **LIMITS)
    for parity in report.parities:
        assert parity.identical + parity.near_ties == parity.sentences == parity.host_loop_sentences == len(ROWS)
        if parity.format == "onnx":
            encode = parity.operators["encode"]
            assert (encode["LSTM"], encode["GRU"]) == (4, 4)
            assert "Loop" not in encode
            assert "Loop" not in parity.operators["decode_step"]
    ensemble = Ensemble([EncoderDecoder(model) for model in models], combination)
    alone = [EncoderDecoder(model) for model in models]
    artefact, differs = runtime.Artefact(tmp_path / "artefact", "litert"), 0
    for row in ROWS:
        source = np.asarray([row], np.int32)
        found = artefact.search(source)
        expected = ensemble.search(source, beam_size=3, max_length=9)
        np.testing.assert_array_equal(found["ids"], np.asarray(expected["ids"]))
        # Float32 kernels of LiteRT.
        np.testing.assert_allclose(found["scores"], np.asarray(expected["scores"]), atol=1e-4)
        others = [np.asarray(net.search(source, beam_size=3, max_length=9)["ids"]) for net in alone]
        differs += all((found["ids"] != other).any() for other in others)
    assert differs  # or it would not have been seen whether all of them are in it


@pytest.mark.slow
def test_what_the_manifest_says(tmp_path: pathlib.Path, cheap: None) -> None:
    export([tiny_model(**config) for config in MEMBERS[1:]], tmp_path / "artefact", "tflite", **LIMITS)
    manifest = json.loads((tmp_path / "artefact" / "manifest.json").read_text())
    assert [member["cell"] for member in manifest["members"]] == ["gru", "lstm"]
    assert manifest["max_source_length"] == 23
    names = set(manifest["signatures"]["encode"]["outputs"])
    assert {"state_0_h_0", "state_1_h_0", "state_1_c_1", "memory_0_values", "memory_1_mask"} <= names
    assert manifest["state_updates"]["state_1_c_1"] == "next_state_1_c_1"
    with pytest.raises(runtime.ArtefactError, match=r"too long for this model\. Expected: at most 23"):
        runtime.Artefact(tmp_path / "artefact").search(np.full((1, 24), 5))


@pytest.mark.slow
def test_runs_make_an_artefact_for_text(
    tmp_path: pathlib.Path, cheap: None, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / name).path for name in ("one", "two")]
    folder = commands.export_run(
        runs[0], ["tflite"], tmp_path / "artefact", ensemble=runs[1:], combination="logits", beam_size=2, max_length=9
    )
    assert "kinds, all built-in, no Flex, no fused LSTM" in capsys.readouterr().out
    texts = [hypotheses[0].text for hypotheses in runtime.Artefact(folder).translate(LINES)]
    expected = Translator.load(*runs, combination="logits").translate(LINES, beam_size=2, max_length=9)
    assert texts == [hypotheses[0].text for hypotheses in expected]


@pytest.mark.parametrize(
    ("others", "options", "message"),
    [
        ([{"target_vocabulary": 21}], {}, "These models make no ensemble. Expected: members of the same vocabularies"),
        ([{}], {"combination": "median"}, "These models make no ensemble. Expected: combination"),
        ([{}], {"to": "npu"}, "npu is for one translator"),
    ],
)
def test_mistakes(tmp_path: pathlib.Path, others: list[dict[str, Any]], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        export([tiny_model(), *(tiny_model(**one) for one in others)], tmp_path / "artefact", **options)
    with pytest.raises(UserError, match="Received: both in one list"):
        export([tiny_model(), tmp_path], tmp_path / "artefact", "tflite")
    assert not list(tmp_path.iterdir())
