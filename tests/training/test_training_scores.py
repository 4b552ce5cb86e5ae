"""The loss, the schedule and the scores, against closed forms."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import edit_distance, error_rates, exact_match, score_outputs
from keras_attention.training.config import TrainConfig
from keras_attention.training.loop.schedules import Plateau, after_epoch, learning_rate
from keras_attention.training.losses.cross_entropy import TokenCrossEntropy


def reference_loss(labels, logits, smoothing):
    """A loop over tokens with dense smoothed labels."""
    total, count = 0.0, 0
    for row, scores in zip(labels, logits.astype(np.float64), strict=True):
        for label, values in zip(row, scores, strict=True):
            if label != 0:
                log_probs = values - np.log(np.sum(np.exp(values - values.max()))) - values.max()
                wanted = np.full(len(values), smoothing / len(values))
                wanted[label] += 1 - smoothing
                total -= float(wanted @ log_probs)
                count += 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_a_mean_over_real_tokens_of_smoothed_cross_entropy(smoothing) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (3, 5, 7)).astype("float32")
    labels = generator.integers(1, 7, (3, 5))
    labels[0, 2:] = 0
    labels[2, 4:] = 0
    loss = TokenCrossEntropy(smoothing)
    found = float(loss(labels, logits))
    assert found == pytest.approx(reference_loss(labels, logits, smoothing), rel=1e-6)  # float32 sums
    logits[0, 2:] = 1e4
    assert float(loss(labels, logits)) == pytest.approx(found, rel=1e-6)  # float32 sums


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary_whatever_the_smoothing() -> None:
    labels = np.asarray([[3, 2, 0]])
    for smoothing in (0.0, 0.3):
        found = float(TokenCrossEntropy(smoothing)(labels, np.zeros((1, 3, 11), "float32")))
        assert found == pytest.approx(math.log(11), rel=1e-6)  # float32 sums


def test_the_loss_survives_extreme_logits_and_a_batch_of_padding() -> None:
    loss = TokenCrossEntropy(0.1)
    logits = np.zeros((1, 1, 5), "float32")
    logits[0, 0, 1] = 1e5
    assert np.isfinite(float(loss(np.asarray([[3]]), logits)))
    assert float(loss(np.zeros((2, 3), int), np.zeros((2, 3, 5), "float32"))) == 0.0


def test_sample_weights_count_on_both_sides_of_the_fraction() -> None:
    generator = np.random.default_rng(1)
    logits, labels = generator.normal(size=(2, 3, 5)).astype("float32"), np.asarray([[1, 2, 0], [3, 4, 2]])
    loss = TokenCrossEntropy(0.1)
    alone = float(loss(labels[1:], logits[1:]))
    # Float32 sums.
    assert float(loss(labels, logits, sample_weight=np.asarray([0.0, 5.0]))) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 5)], ids=str)
def test_sample_weights_do_not_make_padding_count(shape) -> None:
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(3, 5, 7)).astype("float32"), generator.integers(1, 7, (3, 5))
    labels[0, 2:] = labels[2, 4:] = 0
    weights = generator.uniform(0.5, 2.0, shape)
    log_probs = logits.astype("float64") - np.log(np.exp(logits.astype("float64")).sum(-1, keepdims=True))
    own = weights.reshape(3, -1) * (labels != 0)
    expected = -(own * np.take_along_axis(log_probs, labels[..., None], -1)[..., 0]).sum() / own.sum()
    found = TokenCrossEntropy()(labels, logits, sample_weight=weights)
    assert float(found) == pytest.approx(expected, rel=1e-6)  # float32 sums


def test_the_loss_is_saved_with_a_model() -> None:
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(TokenCrossEntropy(0.2)))
    assert loss.label_smoothing == 0.2
    with pytest.raises(ValueError, match=r"Expected 0 <= label_smoothing < 1\. Received: 1"):
        TokenCrossEntropy(1.0)


def test_plateaus_halve_and_ties_go_to_the_lower_loss() -> None:
    state = Plateau()
    for epoch, (score, loss) in enumerate([(5.0, 2.0), (5.0, 1.0), (4.0, 0.5), (5.0, 1.5), (4.9, 1.0), (6.0, 9.0)]):
        state = after_epoch(state, epoch, score, loss, higher_is_better=True, patience=2)
        if epoch == 1:
            assert (state.best_epoch, state.since_best) == (1, 0)
        if epoch == 3:
            assert (state.halvings, state.since_best, state.since_change) == (1, 2, 0)
    assert state == Plateau(best=6.0, best_loss=9.0, best_epoch=5, halvings=1)
    assert learning_rate(state, 1e-3, 1e-5) == 5e-4
    assert learning_rate(Plateau(halvings=20), 1e-3, 1e-5) == 1e-5
    assert not state.improved_by(math.nan, 1.0, True)
    assert state.improved_by(5.9, 1.0, False)


def test_only_a_better_score_or_a_lower_loss_is_better() -> None:
    state = Plateau(best=5.0, best_loss=2.0, best_epoch=0)
    assert not state.improved_by(5.0, 2.0, True)
    assert not state.improved_by(5.0, 2.0, False)
    assert state.improved_by(5.0, 1.5, True)
    assert state.improved_by(5.5, 7.0, True)
    assert not state.improved_by(5.5, 1.0, False)


def test_a_first_rate_below_the_smallest_is_left_as_it_is() -> None:
    assert learning_rate(Plateau(), 1e-6, 1e-5) == 1e-6
    assert learning_rate(Plateau(halvings=3), 1e-6, 1e-5) == 1e-6


def slow_distance(one, other) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        slow_distance(one[1:], other) + 1,
        slow_distance(one, other[1:]) + 1,
        slow_distance(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(st.text("ab", max_size=5), st.text("ab", max_size=5))
def test_edit_distance_is_the_recursion(one, other) -> None:
    assert edit_distance(one, other) == slow_distance(one, other)


def test_error_rates_take_the_nearest_reference() -> None:
    outputs = ["K AE T", "D AO", "Z"]
    references = [["K AE T S", "K AE T"], ["D AO G"], ["B IY", "Z IY"]]
    assert error_rates(outputs, references) == {"wer": pytest.approx(200 / 3), "per": pytest.approx(100 * 2 / 8)}
    assert exact_match(outputs, references) == pytest.approx(100 / 3)
    for equally_near in (["K", "K AE T"], ["K AE T", "K"]):  # the longest of them is what counts
        assert error_rates(["K AE"], [equally_near])["per"] == pytest.approx(100 / 3)


def test_scores_of_each_task() -> None:
    text = ["ein hund läuft durch den schnee .", "zwei kinder spielen im garten ."]
    scores = score_outputs("translation", text, [[line] for line in text])
    assert scores["bleu"] == pytest.approx(100)
    assert scores["chrf"] == pytest.approx(100)
    assert "tok:none" in scores["bleu_signature"]
    several = score_outputs("translation", text, [["etwas ganz anderes hier .", text[0]], [text[1]]])
    assert several["bleu"] == pytest.approx(100)
    assert score_outputs("exact", ["a", "b"], [["a"], ["c"]]) == {"exact_match": 50.0}
    with pytest.raises(UserError, match="Unknown task"):
        score_outputs("poetry", ["a"], [["a"]])
    with pytest.raises(UserError, match="nothing to score"):
        score_outputs("exact", [], [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": 0}, "batch_size is out of range"),
        ({"ema_momentum": 1.0}, "ema_momentum is out of range"),
        ({"time_limit": 0.0}, "time_limit is out of range"),
        ({"task": "poetry"}, "Unknown task"),
        ({"source_tokenizer": "byte"}, "Unknown source_tokenizer"),
        ({"batchsize": 3}, "Unknown setting. Expected: 'batch_size', the nearest name. Received: 'batchsize'"),
        ({"joint": True, "target_tokenizer": "char"}, "joint needs one kind"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig.make(setting)
