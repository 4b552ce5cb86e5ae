"""A run that an earlier version wrote: it loads, and says what it said then."""

import pathlib

import pytest

from keras_attention.translation.translator import Translator
from tests.support.command import run_command

SAVED = pathlib.Path(__file__).resolve().parents[1] / "saved_before"
SAID = {
    "ab cd": ("dccba", -1.388512),
    "abc": ("cba", -0.565560),
    "abc def": ("d ccba", -1.835581),
    "abc fed": ("d ccba", -1.828904),
    "def": ("def", -1.139103),
    "fed": ("def", -1.132785),
}
"""Outputs and scores of that version's own `translate --scores`."""


def test_a_run_of_before_translates_as_before() -> None:
    found = Translator.load(SAVED / "run").translate(list(SAID))
    assert [best.text for best, *_ in found] == [text for text, _ in SAID.values()]
    # Six decimals were printed; float32 sums of some ten terms may differ in the last of them on another processor.
    assert [best.score for best, *_ in found] == pytest.approx([score for _, score in SAID.values()], abs=5e-6)


@pytest.mark.slow
@pytest.mark.once(reason="a converter of TensorFlow")
def test_a_run_of_before_is_exported(tmp_path: pathlib.Path) -> None:
    run = run_command("export", SAVED / "run", "--to", "tflite", "--output", tmp_path / "artefact")
    assert run.status == 0, run.err
