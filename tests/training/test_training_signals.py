"""Coverage loss, guided alignment and scheduled sampling: closed forms, NumPy, and what a training makes of them."""

import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import EncoderDecoder, Seq2SeqConfig, UserError, build_seq2seq
from keras_attention.metrics.alignment import AlignmentErrorRate
from keras_attention.text.tokenizers import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import Pairs, read_tsv
from keras_attention.training.data.word_alignments import make_guide, read_links
from keras_attention.training.losses.auxiliary import OwnInputs, Signals, coverage_losses, guided_losses, keep_gold
from keras_attention.training.losses.fused import fuse_loss
from tests.support import toy
from tests.support.command import run_command
from tests.support.gradients import gradients
from tests.support.parts import fast

FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}  # float32 sums, and quotients of them
CONFIG = Seq2SeqConfig(11, 11, embedding_size=5, encoder_units=4, decoder_units=8)


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def batch(seed=2, rows=4, steps=5, positions=6):
    generator = np.random.default_rng(seed)
    found = {
        "source": generator.integers(4, 11, size=(rows, positions)).astype("int32"),
        "target": generator.integers(4, 11, size=(rows, steps)).astype("int32"),
        "labels": generator.integers(4, 11, size=(rows, steps)).astype("int32"),
    }
    found["target"][1, 3:] = found["labels"][1, 3:] = 0
    found["source"][2, 4:] = 0
    return found


def loss_of(model, signals, inputs):
    fused = fuse_loss(model, signals=signals)
    assert sorted(id(v) for v in fused.trainable_variables) == sorted(id(v) for v in model.trainable_variables)
    fused.compile(keras.optimizers.SGD(0.0))
    return float(np.asarray(fused.train_on_batch(inputs)).ravel()[0])


def test_coverage_costs_what_was_covered_before():
    alignments = np.array([[[0.6, 0.4, 0.0], [0.5, 0.1, 0.4], [0.0, 1.0, 0.0]]], "float32")
    # Float32 sums of three terms.
    np.testing.assert_allclose(numpy(coverage_losses(ops.convert_to_tensor(alignments))), [[0.0, 0.6, 0.5]], atol=1e-6)


def test_guided_losses_are_cross_entropy_and_squares():
    alignments = np.array([[[0.6, 0.4], [0.5, 0.5], [0.1, 0.9]]], "float32")
    guide = np.array([[[1.0, 0.0], [0.5, 0.5], [0.0, 0.0]]], "float32")
    tensors = ops.convert_to_tensor(alignments), ops.convert_to_tensor(guide)
    expected = [[-np.log(0.6), np.log(2), 0.0]]
    # Float32; 1e-9 keeps the logarithm finite.
    np.testing.assert_allclose(numpy(guided_losses(*tensors, "cross_entropy")), expected, atol=1e-6)
    np.testing.assert_allclose(numpy(guided_losses(*tensors, "mse")), [[0.16, 0.0, 0.0]], atol=1e-6)  # float32


def test_gold_words_are_kept_less_and_less():
    assert keep_gold("exponential", 0.5, 3) == 0.125
    assert keep_gold("inverse_sigmoid", 10.0, 0) == pytest.approx(10 / 11)
    assert keep_gold("inverse_sigmoid", 10.0, 23) == pytest.approx(10 / (10 + np.exp(2.3)))
    assert keep_gold("inverse_sigmoid", 10.0, 10**7) < 1e-100  # exp(-1e6), without overflow
    for decay, k in (("linear", 50.0), ("exponential", 0.9), ("inverse_sigmoid", 9.0)):
        values = [keep_gold(decay, k, update) for update in range(60)]
        assert all(one >= other for one, other in itertools.pairwise(values))
        assert values[0] > 0.89  # 1, 1 and 9 / 10
        assert values[-1] < 0.1  # at update 59: 0, 0.9 ** 59 and 0.013


@pytest.mark.parametrize("kind", ["cross_entropy", "mse"])
def test_the_loss_is_a_sum_of_means_over_tokens(kind):
    model, inputs = build_seq2seq(CONFIG), batch()
    guide = np.random.default_rng(0).dirichlet(np.ones(6), (4, 5)).astype("float32")
    guide[0, 1:3] = 0.0
    plain = loss_of(model, None, inputs)
    alignments = numpy(EncoderDecoder(model).align(inputs["source"], inputs["target"])[1]).astype("float64")
    real = inputs["labels"] != 0
    before = np.cumsum(alignments, axis=1) - alignments
    coverage = (np.minimum(alignments, before).sum(-1) * real).sum() / real.sum()
    linked = real & guide.any(-1)
    if kind == "mse":
        each = ((guide - alignments) ** 2).mean(-1)
    else:
        each = -(guide * np.log(np.maximum(alignments, 1e-9))).sum(-1)
    guided = (each * linked).sum() / linked.sum()
    found = loss_of(model, Signals(0.7, 0.3, kind), {**inputs, "guide": guide})
    assert found == pytest.approx(plain + 0.7 * coverage + 0.3 * guided, rel=1e-5)  # float32 sums over a batch


@pytest.mark.slow
@pytest.mark.parametrize("tie", fast(["none", "target"], "target"))
def test_inputs_that_are_all_gold_change_nothing(tie):
    model = build_seq2seq(Seq2SeqConfig.from_dict({**CONFIG.to_dict(), "tie_embeddings": tie}))
    inputs = batch()
    for kind in ("word", "mean"):
        found = loss_of(model, Signals(scheduled_sampling=kind), {**inputs, "gold": np.ones((4, 1), "float32")})
        assert found == pytest.approx(loss_of(model, None, inputs), rel=1e-5)  # float32: a mixture with weight 1


@pytest.mark.parametrize("kind", ["word", "mean"])
def test_without_gold_the_inputs_are_the_models_own(kind):
    keras.utils.set_random_seed(7)
    model, inputs = build_seq2seq(CONFIG), batch()
    net = EncoderDecoder(model)
    if kind == "word":  # so sure of itself that a draw is the likeliest word
        net.output.kernel.assign(numpy(net.output.kernel) * 1e6)
    logits = numpy(net.align(inputs["source"], inputs["target"])[0]).astype("float64")
    matrix = numpy(net.target_embedding.embeddings)
    own = matrix[logits.argmax(-1)] if kind == "word" else numpy(ops.softmax(logits.astype("float32"))) @ matrix
    embedded = numpy(net.target_embedding(inputs["target"]))
    real = (inputs["target"][:, 1:] != 0)[:, :, None]
    embedded[:, 1:] = np.where(real, own[:, :-1], embedded[:, 1:])
    encoded = net.encoder(net.source_embedding(inputs["source"]), inputs["source"] != 0)
    log_probs = numpy(ops.log_softmax(net.output(net.decoder(embedded, encoded)))).astype("float64")
    picked = np.take_along_axis(log_probs, inputs["labels"][..., None], axis=2)[..., 0]
    counted = inputs["labels"] != 0
    expected = -(picked * counted).sum() / counted.sum()
    found = loss_of(model, Signals(scheduled_sampling=kind), {**inputs, "gold": np.zeros((4, 1), "float32")})
    assert found == pytest.approx(expected, rel=1e-5)  # float32 through two passes of a network


@pytest.mark.parametrize("kind", ["word", "mean"])
def test_no_gradient_reaches_the_predictions_that_are_read(kind):
    embedding = keras.layers.Embedding(11, 5)
    embedding.build()
    gold = ops.convert_to_tensor(batch()["target"])
    layer, keep = OwnInputs(embedding, kind), ops.zeros((4, 1))

    def loss(logits):
        mixed = layer([gold, embedding(gold), logits, keep])
        return ops.sum(ops.square(mixed) * ops.convert_to_tensor(np.arange(5, dtype="float32")))

    logits = np.random.default_rng(3).normal(size=(4, 5, 11)).astype("float32")
    (found,) = gradients(loss, [logits])
    assert not np.any(found)


@pytest.mark.slow
def test_half_of_the_inputs_are_drawn():
    model, inputs = build_seq2seq(CONFIG), batch(rows=64)
    losses = {
        keep: loss_of(model, Signals(scheduled_sampling="word"), {**inputs, "gold": np.full((64, 1), keep, "float32")})
        for keep in (0.0, 0.5, 1.0)
    }
    assert len(set(losses.values())) == 3


@pytest.mark.slow
def test_attention_learns_the_given_links():
    """The words of a source in turn, backwards: nothing else says which of two equal words is meant."""
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(1)
    source = rng.integers(4, 11, (256, 6)).astype("int32")
    inputs = {"source": source, "target": np.ones_like(source), "labels": source[:, ::-1].copy()}
    inputs["target"][:, 1:] = inputs["labels"][:, :-1]
    guide = np.broadcast_to(np.eye(6, dtype="float32")[::-1], (256, 6, 6))
    rates = {}
    for weight in (0.0, 1.0):
        model = build_seq2seq(CONFIG)
        signals = Signals(guided_alignment=weight)
        fused = fuse_loss(model, signals=signals)
        fused.compile(keras.optimizers.Adam(0.02))
        fused.fit({**inputs, **({"guide": guide} if weight else {})}, epochs=12, batch_size=32, verbose=0)
        metric = AlignmentErrorRate()
        metric.update_state(EncoderDecoder(model).align(source, inputs["target"])[1], guide > 0)
        rates[weight] = float(metric.result())
    assert rates[1.0] < 0.1 < rates[0.0]  # one link of ten wrong: learnt with the links alone


def test_links_between_words_become_a_guide_over_tokens():
    subwords = SubwordTokenizer.train(["ein mann liest ein buch", "eine frau"] * 9, 26)
    words = WordTokenizer.train(["a man reads"])
    source, target = subwords.encode("ein mann liest"), words.encode("a man reads")
    pieces = subwords.word_numbers(subwords.tokens(source))
    guide = make_guide([source], [target], [[(0, 0), (1, 1), (2, 1)]], (subwords, words), (5, len(source) + 3))
    for t, linked in enumerate([{0}, {1, 2}, set(), set(), set()]):
        expected = np.array([word in linked for word in pieces] + [False] * 3, float)
        np.testing.assert_allclose(guide[0, t], expected / max(expected.sum(), 1), atol=1e-6)  # float32 thirds


def test_links_are_those_of_the_lines_of_the_text(tmp_path):
    (tmp_path / "links").write_text("0-0\n\n1-0 0-1\n", encoding="utf-8")
    pairs = Pairs(["x y", "z"], [["u v"], ["w"]], ["text:3", "text:1"])
    assert read_links(tmp_path / "links", pairs) == [[(1, 0), (0, 1)], [(0, 0)]]
    for origin, message in (
        ("text:9", "3 lines. Expected links for text:9"),
        ("text:3", r"links:3: link 1-0. Expected"),
    ):
        with pytest.raises(UserError, match=message):
            read_links(tmp_path / "links", Pairs(["x"], [["u v"]], [origin]))
    (tmp_path / "links").write_text("0-0 x\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"links:1: Expected links such as"):
        read_links(tmp_path / "links", Pairs(["x"], [["u"]], ["text:1"]))
    with pytest.raises(UserError, match="cannot be read"):
        read_links(tmp_path / "none", pairs)
    (tmp_path / "text.tsv").write_text("x y\tu v\nx y\tv\nz\tw\n", encoding="utf-8")
    (tmp_path / "links").write_text("0-0 1-1\n1-0\n0-0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"text\.tsv:1: a source with 2 targets, each of which has links of its own"):
        read_links(tmp_path / "links", read_tsv(tmp_path / "text.tsv"))
    assert CharacterTokenizer.train(["ab"]).word_numbers(["a", "b"]) == [0, 1]


@pytest.mark.slow
def test_the_command_trains_with_all_signals(toy_folder, tmp_path):
    lines = (toy_folder / "source.txt").read_text(encoding="utf-8").splitlines()
    links = tmp_path / "links"
    links.write_text("0-0\n" * len(lines), encoding="utf-8")
    text = ["--source", toy_folder / "source.txt", "--target", toy_folder / "target.txt"]
    asked = ["--coverage-loss", 0.5, "--alignments", links, "--guided-alignment", 0.5, "--guided-loss", "mse"]
    scheduled = ["--scheduled-sampling", "word", "--scheduled-decay", "linear", "--scheduled-k", 10]
    output = tmp_path / "run"
    options = [*text, *toy.OPTIONS, *asked, *scheduled, "--output", output]
    done = run_command("train", *options, "--epochs", 1)
    assert done.status == 0, done.err
    done = run_command("train", *options)
    assert "resuming after epoch 1" in done.out
    settings = json.loads((output / "config.json").read_text(encoding="utf-8"))["training"]["settings"]
    assert (settings["coverage_loss"], settings["scheduled_k"]) == (0.5, 10.0)
    done = run_command("train", *text, *toy.OPTIONS, "--guided-alignment", 1, "--output", tmp_path / "other")
    assert (done.status, "Expected --alignments FILE" in done.err) == (1, True)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"coverage_loss": -1.0}, "coverage_loss is out of range"),
        ({"guided_loss": "kl"}, "Unknown guided_loss. Expected one of cross_entropy, mse"),
        ({"scheduled_sampling": "beam"}, "Unknown scheduled_sampling. Expected one of none, word, mean"),
        ({"scheduled_decay": "cosine"}, "Unknown scheduled_decay"),
        ({"scheduled_decay": "exponential"}, "Expected above 0 and below 1. Received: 2000"),
        ({"scheduled_k": 0.0}, "scheduled_k is out of range"),
        ({"coverage_loss": 1.0, "fused_loss": False}, "parts of the fused loss on one device"),
    ],
)
def test_wrong_settings(choices, message):
    with pytest.raises(UserError, match=message):
        TrainConfig.make(choices)
