"""What a user may get wrong on the command line of `export`: one line, status 1, nothing left behind."""

import json
import pathlib
from typing import Any

import pytest

from tests.export.test_export_artefact import make_run
from tests.support.command import run_command
from tests.support.toy_run import edit_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run").path


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--to", "watch"], ("Unknown export format", "tflite, onnx, npu", "Received: watch")),
        (["--target", "npu"], ("--target is no longer an option", "--to npu")),
        (["--precision", "int4"], ("Unknown precision", "'int4'")),
        (["--calibration", "FILE"], ("Only int8 takes ranges", "Received: precision float32")),
        (["--to", "npu", "--source-length", "1"], ("source_length of 2 or more", "Received: 1")),
        (["--to", "npu", "--calibration", "FILE"], ("100",)),
        (["--to", "npu", "--calibration", "nowhere"], ("nowhere",)),
        (["--precision", "int8", "--to", "onnx", "--calibration", "FILE"], ("100",)),
        (["--method", "agreement"], ("one direction", "train --backward 0.5")),
        (["--method", "agreement", "--backward-weight", "1.5"], ("backward_weight is out of range", "Received: 1.5")),
        (["--backward-weight", "0.4"], ("backward_weight is a setting of method 'agreement'",)),
    ],
)
def test_a_mistake_on_the_command_line(run: pathlib.Path, tmp_path: pathlib.Path, options: Any, parts: Any) -> None:
    """One line, status 1, and nothing where the artefact should be."""
    (tmp_path / "few.txt").write_text("a cat\n" * 99, encoding="utf-8")
    options = [str(tmp_path / "few.txt") if option == "FILE" else option for option in options]
    done = run_command("export", run, "--output", tmp_path / "artefact", *options)
    assert done.status == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert all(part in line for part in parts)
    assert [path.name for path in tmp_path.iterdir()] == ["few.txt"]


def test_agreement_wants_both_directions_of_every_run(tmp_path: pathlib.Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("both", "one")]
    config = json.loads((runs[0].path / "config.json").read_text(encoding="utf-8"))
    config["training"] = {"settings": {"backward": 0.5}}
    edit_config(runs[0].path, config)
    options = ["--with", str(runs[1].path), "--method", "agreement"]
    done = run_command("export", runs[0].path, *options, "--output", tmp_path / "artefact")
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert f"{runs[1].path} was trained to write in one direction" in line
    assert not (tmp_path / "artefact").exists()


@pytest.mark.parametrize(
    ("changes", "part"), [({"cell": "gru"}, "cell='gru'"), ({"bridge": "copy", "decoder_units": 14}, "bridge='copy'")]
)
def test_a_model_that_an_npu_cannot_hold(tmp_path: pathlib.Path, changes: dict[str, Any], part: str) -> None:
    run = make_run(tmp_path / "run", **changes)
    done = run_command("export", run.path, "--to", "npu", "--output", tmp_path / "artefact")
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert (done.status, part in line) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
