"""docs/migrating-from-tfa.md: a row for every name, and code that does what Addons did."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import (
    AttentionRNN,
    EncoderDecoder,
    LuongAttention,
    Seq2SeqConfig,
    build_seq2seq,
    greedy_search,
)
from keras_attention.alignment import hardmax, monotonic_alignment
from tests import addons

NAMES = [
    "AttentionMechanism",
    "LuongAttention",
    "BahdanauAttention",
    "LuongMonotonicAttention",
    "BahdanauMonotonicAttention",
    "AttentionWrapper",
    "AttentionWrapperState",
    "hardmax",
    "monotonic_attention",
    "safe_cumprod",
    "Decoder",
    "BaseDecoder",
    "BasicDecoder",
    "BasicDecoderOutput",
    "dynamic_decode",
    "Sampler",
    "CustomSampler",
    "TrainingSampler",
    "ScheduledEmbeddingTrainingSampler",
    "ScheduledOutputTrainingSampler",
    "GreedyEmbeddingSampler",
    "SampleEmbeddingSampler",
    "InferenceSampler",
    "BeamSearchDecoder",
    "BeamSearchDecoderMixin",
    "BeamSearchDecoderOutput",
    "BeamSearchDecoderState",
    "FinalBeamSearchDecoderOutput",
    "tile_batch",
    "gather_tree",
    "gather_tree_from_array",
    "sequence_loss",
    "SequenceLoss",
]
POSITIONS = 7


@pytest.fixture(name="rng")
def make_rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(name="page", scope="module")
def run_page() -> dict[str, Any]:
    """Running it is a test in itself."""
    return addons.page_code()


def numpy(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), "float64")


def test_a_row_for_every_name():
    text = addons.PAGE.read_text(encoding="utf-8")
    table = text.split("## Every name")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| \S", table, re.MULTILINE) == NAMES


def test_links_within_the_page():
    text = addons.PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^##+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


@pytest.mark.parametrize(
    ("timesteps", "batch"),
    [
        (a, b)
        for a in ("average", "sum", None)
        for b in ("average", "sum", None)
        if (a == b or not a or not b) and (a or b)
    ],
)
def test_sequence_loss(page, timesteps, batch, rng):
    logits, targets = rng.normal(size=(3, 5, 7)), rng.integers(0, 7, size=(3, 5))
    weights = rng.uniform(0.5, 2.0, size=(3, 5)) * (rng.uniform(size=(3, 5)) < 0.7)
    axis = None if timesteps and batch else 1 if timesteps else 0
    found = page["sequence_loss"](
        logits.astype("float32"), targets, weights.astype("float32"), axis, average="average" in (timesteps, batch)
    )
    # float32 sums of 15 losses near 2
    np.testing.assert_allclose(
        numpy(found), addons.sequence_loss(logits, targets, weights, timesteps, batch), rtol=1e-5
    )


def table_step(log_probs):
    """A step that gives the same log-probabilities at every position, and counts in its state."""

    def step(token, state, memory):
        rows = ops.shape(token)[0]
        return ops.tile(ops.convert_to_tensor(log_probs)[None], (rows, 1)), state + 1, ops.ones((rows, 1))

    return step


def test_sample(page):
    probabilities = np.array([0.3, 0.0, 0.2, 0.4, 0.1], "float32")  # padding is never drawn: the rest is normalised
    step = table_step(np.log(np.maximum(probabilities, 1e-9)))
    for temperature in (1.0, 2.0):
        ids = page["sample"](step, np.zeros(4000), None, 4000, max_length=3, temperature=temperature, seed=7)
        expected = np.where(np.arange(5) > 1, probabilities, 0.0) ** (1 / temperature)
        # Four standard deviations of a share of 4000 draws are 0.03.
        np.testing.assert_allclose(np.bincount(ids[:, 0], minlength=5) / 4000, expected / expected.sum(), atol=0.03)
        ended = ids[:, 0] == 2
        assert not ids[ended, 1:].any()
        assert ids[~ended, 1].all()
    cold = page["sample"](page["step"], page["start"], page["prepared"], 3, max_length=20, temperature=1e-6, seed=1)
    greedy = greedy_search(page["step"], page["start"], page["prepared"], max_length=20)
    np.testing.assert_array_equal(cold, numpy(greedy["ids"])[:, 0])


def test_sample_of_an_encoder_decoder(page):
    translator = EncoderDecoder(
        build_seq2seq(Seq2SeqConfig(11, 13, embedding_size=3, encoder_units=5, decoder_units=7))
    )
    source = np.array([[4, 5, 6, 2], [7, 2, 0, 0]])
    state, memory = translator.encode(source)
    cold = page["sample"](translator.step, state, memory, 2, max_length=6, temperature=1e-6, seed=1)
    np.testing.assert_array_equal(cold, numpy(translator.search(source, beam_size=1, max_length=6)["ids"])[:, 0])


def test_scheduled_inputs(page, rng):
    target = np.array([[1, 4, 4, 4, 0], [1, 3, 3, 3, 3]])
    step = table_step(np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 1.0], "float32")))  # always draws 5
    arguments = (step, np.zeros(2), None, target)
    np.testing.assert_array_equal(page["scheduled_inputs"](*arguments, 0.0, rng), target)
    np.testing.assert_array_equal(page["scheduled_inputs"](*arguments, 1.0, rng), [[1, 5, 5, 5, 0], [1, 5, 5, 5, 5]])
    many = np.tile(target, (1000, 1))
    mixed = page["scheduled_inputs"](step, np.zeros(2000), None, many, 0.25, rng)
    assert np.mean(mixed[:, 1] == 5) == pytest.approx(0.25, abs=0.04)  # four standard deviations


def test_coverage_penalty(page, rng):
    alignments = rng.uniform(0.0, 0.4, size=(2, 3, 5, 4)).astype("float32")
    mask = np.array([[True] * 4, [True, True, False, False]])
    scores = np.array([[-1.0, -2.0, -np.inf], [-3.0, -4.0, -5.0]], "float32")
    found = page["with_coverage_penalty"](
        {"alignments": ops.convert_to_tensor(alignments), "scores": ops.convert_to_tensor(scores)}, mask, 0.2
    )
    expected = [
        [scores[b, k] + 0.2 * sum(np.log(min(alignments[b, k, :, s].sum(), 1.0)) for s in range(4) if mask[b, s])
         for k in range(3)]
        for b in range(2)
    ]  # fmt: skip
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5)  # float32 sums of few terms


def test_the_cell_output_saves(page, tmp_path):
    inputs, memory = keras.Input((None, 3)), keras.Input((None, 13))
    cell = page["CellOutput"](keras.layers.LSTMCell(11), LuongAttention("general"), attentional_size=19)
    model = keras.Model([inputs, memory], AttentionRNN(cell)(inputs, memory))
    model.save(tmp_path / "model.keras")
    arrays = [np.ones((2, 5, 3), "float32"), np.ones((2, 7, 13), "float32")]
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numpy(loaded(arrays)), numpy(model(arrays)))


def test_the_parallel_mode_is_not_the_recursion(rng):
    """Why there is no such mode here. Near the middle of (0, 1) and over few positions, it agrees."""
    chosen, first = rng.uniform(0.3, 0.7, size=POSITIONS), np.eye(POSITIONS)[0]
    second = addons.recursive(chosen, first)
    np.testing.assert_allclose(addons.parallel(chosen, second), addons.recursive(chosen, second), rtol=1e-9)  # float64
    chosen, previous = np.full(400, 0.1), np.eye(400)[300]  # the numbers of the page
    assert addons.parallel(chosen, previous).sum() == pytest.approx(2e-4, abs=2e-5)  # the page gives one digit
    # 0.9 ** 100, 2.7e-5, is past the end.
    assert addons.recursive(chosen, previous).sum() == pytest.approx(1.0, abs=1e-4)


def test_lowest_level_functions(rng):
    """`monotonic_attention` and `hardmax`, by the names that the page gives."""
    chosen, previous = rng.uniform(size=(3, POSITIONS)), addons.reference.softmax(rng.normal(size=(3, POSITIONS)))
    found = monotonic_alignment(*(ops.convert_to_tensor(one, dtype="float32") for one in (chosen, previous)))
    expected = [addons.recursive(*row) for row in zip(chosen, previous, strict=True)]
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5, atol=1e-6)  # sums of 7 products in float32
    ones, at = (chosen > 0.5).astype("float32"), np.eye(POSITIONS, dtype="float32")[[0, 2, 4]]
    expected = [addons.hard(*row) for row in zip(ones, at, strict=True)]
    found = monotonic_alignment(ops.convert_to_tensor(ones), ops.convert_to_tensor(at))
    np.testing.assert_array_equal(numpy(found), expected)
    np.testing.assert_array_equal(numpy(hardmax(chosen.astype("float32"))).argmax(-1), chosen.argmax(-1))
