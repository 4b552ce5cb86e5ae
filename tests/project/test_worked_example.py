"""docs/worked-example.md: its numbers, the phrases of its tiny model, and its heat map."""

import importlib.util
import pathlib
import sys
from types import ModuleType

import keras
import numpy as np
import pytest

from keras_attention import LuongAttention
from keras_attention.attention import scores

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The page gives two decimals.
HALF_A_DIGIT = 0.005


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worked_example", ROOT / "examples" / "worked_example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dot_scores(example: ModuleType) -> None:
    found = scores.dot_score(example.DECODER_OUTPUT[None, None], example.ENCODER_OUTPUTS[None])
    np.testing.assert_allclose(np.asarray(found)[0, 0], [-0.41, 0.01], atol=HALF_A_DIGIT)


def test_weights_and_context(example: ModuleType) -> None:
    weights, context = example.by_hand("dot")
    np.testing.assert_allclose(weights, [0.40, 0.60], atol=HALF_A_DIGIT)
    # 0.3984 (-0.76, 0.75) + 0.6016 (0.01, -0.01)
    np.testing.assert_allclose(context, [-0.297, 0.293], atol=0.0005)


def test_cosine(example: ModuleType) -> None:
    found = scores.cosine_score(example.DECODER_OUTPUT[None, None], example.ENCODER_OUTPUTS[None])
    np.testing.assert_allclose(np.asarray(found)[0, 0, 0], -0.39, atol=HALF_A_DIGIT)


def test_general_with_the_identity_is_dot(example: ModuleType) -> None:
    attention = LuongAttention(score="general")
    attention.build((1, 1, 2), (1, 2, 2))
    attention.set_weights([np.eye(2)])
    _, weights = attention(
        example.DECODER_OUTPUT[None, None], example.ENCODER_OUTPUTS[None], return_attention_scores=True
    )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weights)[0, 0], [0.40, 0.60], atol=HALF_A_DIGIT)


@pytest.mark.slow
def test_the_script_translates_and_draws(
    example: ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new folder" / "map.png"
    monkeypatch.setattr(sys, "argv", ["worked_example.py", "--output", str(path)])
    example.main()
    printed = capsys.readouterr().out
    assert '"Let\'s" 0.40, "go" 0.60' in printed
    assert "Let's go -> Vamos </s>" in printed
    assert "to go -> ir </s>" in printed
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_page_prints_what_the_script_prints(example: ModuleType) -> None:
    page = (ROOT / "docs" / "worked-example.md").read_text(encoding="utf-8")
    for number in ("-0.76", "0.75", "0.91", "0.38", "-0.41", "0.40", "0.60", "-0.39"):
        assert number in page
