"""The order of hypotheses that ended and of those that did not; float dtypes other than float32; no rows at all."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.search import agreement_search, beam_search, contrastive_search, greedy_search, sample_search

VOCABULARY, LENGTH, ROWS = 7, 5, 30


def tables(seed: int = 0, rows: int = ROWS) -> np.ndarray:
    """Log-probabilities `(B, V, V)` of each word after each word; integers over 4, so that few scores tie."""
    values = np.random.default_rng(seed).normal(scale=2.0, size=(rows, VOCABULARY, VOCABULARY))
    values -= np.log(np.exp(values).sum(axis=2, keepdims=True))
    return values.astype("float32")


def step(token, state, memory):
    own = ops.take_along_axis(memory, ops.reshape(token, (-1, 1, 1)), axis=1)[:, 0]
    return own, state, ops.zeros((ops.shape(token)[0], 1), dtype=memory.dtype)


def found(search=beam_search, dtype="float32", rows=ROWS, **options):
    memory = ops.convert_to_tensor(tables(rows=rows), dtype=dtype)
    options = {"max_length": LENGTH, "source_length": 1, **options}
    result = search(step, ops.zeros((rows, 1)), memory, batch_size=rows, **options)
    return {name: ops.convert_to_numpy(value) for name, value in result.items()}


@pytest.mark.parametrize("kind", ["gnmt", "average"])
@pytest.mark.parametrize("alpha", [-1.0, -0.3, 0.0, 1.0])
def test_the_first_hypothesis_does_not_hang_on_when_the_search_stops(alpha, kind) -> None:
    options = {"beam_size": 4, "length_penalty": alpha, "length_penalty_kind": kind}
    whole, early = found(**options), found(stop="best", **options)
    for name in ("ids", "lengths", "scores", "finished"):
        np.testing.assert_array_equal(early[name][:, 0], whole[name][:, 0], err_msg=name)


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"stop": "best"}], ids=str)
def test_what_ended_comes_first(options) -> None:
    options = {"beam_size": 4, "max_length": 3, **options}
    plain, sorted_ = found(**options), found(finished_first=True, **options)
    order = np.argsort(~plain["finished"], axis=1, kind="stable")
    assert (order != np.arange(4)).any(axis=1).sum() > 5  # it matters in some rows
    rows = np.arange(ROWS)[:, None]
    for name, value in plain.items():
        expected = value if name == "margins" else value[rows, order]
        if name != "margins":
            np.testing.assert_array_equal(sorted_[name], expected, err_msg=name)
    assert (sorted_["margins"] >= plain["margins"]).all()


SEARCHES = {
    "beam": (beam_search, {"beam_size": 3}),
    "groups": (beam_search, {"beam_size": 4, "groups": 2, "coverage_penalty": 0.0}),
    "greedy": (greedy_search, {}),
    "sample": (sample_search, {"num_samples": 2, "seed": 3, "top_p": 0.9}),
    "agreement": (agreement_search, {"beam_size": 3}),
    "contrastive": (contrastive_search, {"candidates": 3}),
}


def searched(name, **options):
    search, fixed = SEARCHES[name]
    if name != "contrastive":
        return found(search, **fixed, **options)
    options.setdefault("rows", ROWS)
    rows, dtype = options.pop("rows"), options.pop("dtype", "float32")
    memory = ops.convert_to_tensor(tables(rows=rows), dtype=dtype)
    result = search(step, ops.ones((rows, 2)), memory, lambda state: state, max_length=LENGTH, **fixed)
    return {key: ops.convert_to_numpy(value) for key, value in result.items()}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_step_may_compute_in_another_float_dtype(name, dtype) -> None:
    """Results are float32, and add up what the step said."""
    if dtype == "float64" and keras.backend.backend() == "jax":
        dtype = "float16"  # JAX has no float64 unless it is told to
    result = searched(name, dtype=dtype)
    assert {key: value.dtype.name for key, value in result.items() if key in ("scores", "log_probs", "alignments")} == (
        dict.fromkeys(("log_probs", "scores", "alignments"), "float32")
    )
    table = ops.convert_to_numpy(ops.cast(ops.convert_to_tensor(tables(), dtype=dtype), "float32"))
    if name != "agreement":
        ids, lengths = result["ids"][:, 0], result["lengths"][:, 0]
        for row in range(ROWS):
            words = [1, *ids[row, : lengths[row]]]
            total = sum(float(table[row, a, b]) for a, b in itertools.pairwise(words))
            np.testing.assert_allclose(result["log_probs"][row, 0], total, rtol=1e-5)  # float32 sums of a few numbers


@pytest.fixture
def floatx(request):
    """Keras' default float, put back afterwards."""
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"], indirect=True)
def test_keras_default_float(floatx) -> None:
    """The searches of a step and those of a model."""
    for name in SEARCHES:
        assert searched(name)["scores"].dtype == "float32"
    if floatx == "bfloat16" and keras.backend.backend() == "tensorflow":
        return  # TensorFlow has no orthogonal matrices in it, with which Keras begins recurrent kernels
    sizes = {"source_vocabulary": 7, "target_vocabulary": 6, "embedding_size": 3}
    net = EncoderDecoder(build_seq2seq(Seq2SeqConfig(**sizes, encoder_units=2, decoder_units=5)))
    source = np.array([[4, 5, 2], [6, 2, 0]])
    for result in (
        net.search(source, beam_size=3, max_length=4, coverage_penalty=0.2),
        net.sample(source, max_length=4, seed=1),
        net.contrast(source, max_length=4),
        net.agree(source, max_length=4),
    ):
        assert np.isfinite(ops.convert_to_numpy(result["scores"])[:, 0]).all()


@pytest.mark.parametrize("name", SEARCHES)
def test_no_rows(name) -> None:
    """As many hypotheses of none as of one."""
    empty, one = searched(name, rows=0), searched(name, rows=1)
    assert {key: value.shape for key, value in empty.items()} == {
        key: (0, *value.shape[1:]) for key, value in one.items()
    }
