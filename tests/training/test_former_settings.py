"""Runs saved with names of settings that have changed since: they open, translate and resume."""

import json
import pathlib
from typing import Any

import pytest

from keras_attention.errors import UserError
from keras_attention.former_settings import REMOVED, RENAMED
from keras_attention.run_directory import RunDirectory
from keras_attention.training.loop.history import read_history
from tests.support.toy_run import train_toy

SAVED = pathlib.Path(__file__).resolve().parents[1] / "saved_before" / "run"


def make_former(run: RunDirectory, **more: Any) -> None:
    """Write config.json with the former names, as an earlier version did."""
    path = run.path / "config.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    del metadata["fingerprint"]
    former = {now: before for before, now in RENAMED.items()}
    for record in ("settings", "chosen"):
        saved = metadata["training"].get(record, {})
        metadata["training"][record] = {former.get(name, name): value for name, value in saved.items()}
    metadata["training"]["settings"].update(more)
    path.write_text(json.dumps(metadata), encoding="utf-8")


def test_a_run_of_before_has_present_names() -> None:
    before = json.loads((SAVED / "config.json").read_text(encoding="utf-8"))["training"]["settings"]
    now = RunDirectory.open(SAVED).metadata["training"]["settings"]
    assert set(before) >= {*RENAMED, *REMOVED}
    assert not set(now) & {*RENAMED, *REMOVED}
    for name, value in before.items():
        if name not in REMOVED:
            assert now[RENAMED.get(name, name)] == value


@pytest.mark.slow
def test_a_training_with_former_names_resumes(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=1)
    make_former(run, **REMOVED)
    again = train_toy(tmp_path / "run", toy_folder, epochs=2)
    assert [row["epoch"] for row in read_history(again.path / "history.csv")] == [1, 2]
    saved = json.loads((again.path / "config.json").read_text(encoding="utf-8"))["training"]["settings"]
    assert not set(saved) & {*RENAMED, *REMOVED}


@pytest.mark.slow
def test_a_removed_setting_that_had_an_effect_is_not_dropped_in_silence(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=1)
    make_former(run, consistency=2.0)
    assert RunDirectory.open(run.path).task == "exact"
    with pytest.raises(UserError, match=r"consistency: 2\.0 there, None now"):
        train_toy(tmp_path / "run", toy_folder, epochs=2)
