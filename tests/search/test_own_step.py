"""examples/own_step.py: the searches on a language model of stock Keras layers."""

import pathlib
import runpy

import numpy as np
import pytest
from keras import ops

from keras_attention import Constraints, beam_search, sample_search

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "own_step.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def model(example):
    return example["train"](epochs=40)


def spelled(example, found):
    return [example["spell"](ids) for ids in ops.convert_to_numpy(found["ids"])[0]]


@pytest.mark.slow
def test_a_model_of_ones_own_is_searched(example, model):
    options = {"max_length": 12, "source_length": 1}
    free = beam_search(model.step, model.start(1), (), **options)
    assert spelled(example, free)[0] in example["WORDS"]
    prefix = Constraints(prefix=np.array([example["encode"]("wh")], "int32"))
    assert all(
        word.startswith("wh")
        for word in spelled(example, beam_search(model.step, model.start(1), (), constraints=prefix, **options))
    )
    drawn = sample_search(model.step, model.start(1), (), num_samples=20, seed=3, temperature=0.5, **options)
    known = [word for word in spelled(example, drawn) if word in example["WORDS"]]
    assert len(set(known)) >= 3


@pytest.mark.slow
def test_its_steps_are_its_call(example, model):
    """What the searches add up is what the model, called on the whole word, says of it."""
    found = beam_search(model.step, model.start(1), (), max_length=12, source_length=1, length_penalty=0.0)
    ids, length = ops.convert_to_numpy(found["ids"])[0, 0], int(ops.convert_to_numpy(found["lengths"])[0, 0])
    log_probs = ops.convert_to_numpy(ops.log_softmax(model(np.array([[1, *ids[: length - 1]]], "int32"))))[0]
    total = sum(log_probs[t, word] for t, word in enumerate(ids[:length]))
    # Float32 sums of at most 12 terms.
    assert ops.convert_to_numpy(found["log_probs"])[0, 0] == pytest.approx(total, abs=2e-5)
