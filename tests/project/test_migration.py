"""docs/migrating-from-tfa.md: a row for every name, and code that does what Addons did."""

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import AttentionRNN, LuongAttention, RecurrentStack, greedy_search
from keras_attention.attention.alignments import hardmax, monotonic_alignment
from tests.support import addons

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


def test_sampling(page):
    """A drawn word is one that the model finds possible; after EOS there is padding."""
    drawn = numpy(page["drawn"]).astype("int32")
    assert drawn.shape == (3, 20)
    for row in drawn:
        ends = np.flatnonzero(row == 2)
        assert row[: ends[0] if len(ends) else None].all()
        assert not len(ends) or not row[ends[0] + 1 :].any()
    greedy = greedy_search(page["step"], page["start"], page["prepared"], max_length=20)
    cold = page["sample_search"](page["step"], page["start"], page["prepared"], temperature=1e-6, seed=1, max_length=20)
    np.testing.assert_array_equal(numpy(cold["ids"])[:, 0], numpy(greedy["ids"])[:, 0])


def test_scheduled_inputs(page, rng):
    target = np.array([[1, 4, 4, 4, 0], [1, 3, 3, 3, 3]])
    step = table_step(np.log(np.array([1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 1.0], "float32")))  # always draws 5
    arguments = (step, np.zeros(2), None, target)
    np.testing.assert_array_equal(page["scheduled_inputs"](*arguments, 0.0, rng), target)
    np.testing.assert_array_equal(page["scheduled_inputs"](*arguments, 1.0, rng), [[1, 5, 5, 5, 0], [1, 5, 5, 5, 5]])
    many = np.tile(target, (1000, 1))
    mixed = page["scheduled_inputs"](step, np.zeros(2000), None, many, 0.25, rng)
    assert np.mean(mixed[:, 1] == 5) == pytest.approx(0.25, abs=0.04)  # four standard deviations


def test_coverage_penalty(page):
    """Formula 14 of Wu et al. from what the page's search says of its hypotheses."""
    found, mask = page["found_by_beam"], numpy(page["prepared"]["mask"]) > 0
    lengths, alignments = numpy(found["lengths"]), numpy(found["alignments"])
    plain = numpy(found["log_probs"]) / ((5.0 + lengths) / 6.0) ** 0.6
    expected = np.array(
        [
            [plain[b, k] + 0.2 * sum(np.log(min(alignments[b, k, :, s].sum(), 1.0)) for s in np.flatnonzero(mask[b]))
             for k in range(4)]
            for b in range(3)
        ]
    )  # fmt: skip
    np.testing.assert_allclose(numpy(found["scores"]), expected, rtol=1e-4, atol=1e-5)  # float32 sums of few terms
    assert np.abs(expected - plain).max() > 1e-3  # the penalty does something


@pytest.mark.parametrize("cells", [lambda: [keras.layers.LSTMCell(5), keras.layers.GRUCell(11)], lambda: None])
def test_the_cell_output_is_that_of_the_top_cell(page, cells, rng):
    recurrent = cells() or RecurrentStack("lstm", 11, 2, return_cell_state=True)
    cell = page["CellOutput"](recurrent, LuongAttention("general"), attentional_size=19)
    layer = AttentionRNN(cell, return_state=True)
    arrays = [rng.normal(size=shape).astype("float32") for shape in ((2, 5, 3), (2, 7, 13))]
    output, state = layer(*arrays)
    np.testing.assert_array_equal(numpy(output), numpy(state["h_1"]))
    assert output.shape == (2, 11)


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
