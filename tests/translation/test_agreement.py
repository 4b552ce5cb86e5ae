"""One model that writes in both directions: its batches, its searches and scores, and what both directions agree on."""

import itertools
import json
import shutil

import keras
import numpy as np
import pytest

from keras_attention import EncoderDecoder, Seq2SeqConfig, UserError, build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.search_policy import SearchPolicy
from keras_attention.text.tokenizers import CharacterTokenizer
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, make_batch
from keras_attention.training.loop.history import read_history
from keras_attention.translation.compiled import ScoreModel, SearchModel
from keras_attention.translation.text_constraints import TextConstraints
from keras_attention.translation.translator import Translator
from tests.support.command import run_command
from tests.support.parts import fast
from tests.support.toy_run import train_toy

TEXTS = ["abc", "fed", "bead", "cab", "ace", "d"]
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def translator():
    """Random weights, large enough that directions and outputs differ, small enough that rounding does not grow."""
    generator = np.random.default_rng(5)  # the same on every backend
    tokenizer = CharacterTokenizer.train(["abcdef"])
    size = tokenizer.vocabulary_size
    model = build_seq2seq(
        Seq2SeqConfig(source_vocabulary=size, target_vocabulary=size, embedding_size=8, encoder_units=6)
    )
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0.0, 0.4, variable.shape).astype("float32"))
    # Outputs are compared as text: no padding, BOS or unknown token among them.
    model.get_layer("output").bias.assign([-50.0, -50.0, 1.0, -50.0, *[0.0] * (size - 4)])
    return Translator(model, tokenizer, tokenizer)


@pytest.fixture(scope="module")
def both_ways(toy_folder):
    """A run that learnt half of its targets backwards."""
    return train_toy(toy_folder / "both", toy_folder, backward=0.5)


def log_probs_of(translator, text, tokens, first):
    """By the model's own forward pass, one step after another: log p of each token, `first` being read before them."""
    net = EncoderDecoder(translator.model)
    state, memory = net.encode(np.array([[*translator.source_tokenizer.encode(text), EOS]]))
    found = []
    for read, written in zip([first, *tokens[:-1]], tokens, strict=True):
        log_probs, state, _ = net.step(np.array([read], np.int32), state, memory)
        found.append(float(keras.ops.convert_to_numpy(log_probs)[0, written]))
    return found


def test_a_target_that_is_turned_begins_with_the_end_and_is_read_from_its_last_word() -> None:
    inputs, labels = make_batch([[4], [5]], [[6, 7, 8], [9, 10]], backward=[True, False])
    np.testing.assert_array_equal(inputs["target"], [[EOS, 8, 7, 6], [BOS, 9, 10, 0]])
    np.testing.assert_array_equal(labels, [[8, 7, 6, EOS], [9, 10, EOS, 0]])
    np.testing.assert_array_equal(inputs["source"], [[4, EOS], [5, EOS]])


def test_the_share_is_drawn_anew_for_each_epoch_and_by_the_seed_alone() -> None:
    data = Encoded([[4 + i % 7] for i in range(2000)], [[5, 6]] * 2000)

    def firsts(epoch, seed=1, backward=0.3):
        dataset = BatchDataset(data, batch_size=2000, seed=seed, backward=backward)
        dataset.start_epoch(epoch)
        inputs, labels = dataset[0]
        turned = inputs["target"][:, 0] == EOS
        np.testing.assert_array_equal(labels[turned, 0], 6)
        np.testing.assert_array_equal(labels[~turned, 0], 5)
        return turned[np.argsort(dataset.rows(0))]

    assert firsts(0).mean() == pytest.approx(0.3, abs=0.05)  # five standard deviations
    np.testing.assert_array_equal(firsts(3), firsts(3))
    assert (firsts(0) != firsts(1)).any()
    assert (firsts(0) != firsts(0, seed=2)).any()
    assert not firsts(0, backward=0.0).any()


@pytest.mark.parametrize("beam_size", [1, 4])
def test_a_backward_search_finds_what_the_model_says_of_the_turned_output(translator, beam_size) -> None:
    tokenizer = translator.target_tokenizer
    found = translator.translate(
        TEXTS, beam_size=beam_size, n_best=beam_size, backward=True, max_length=6, length_penalty=0.0
    )
    for text, hypotheses in zip(TEXTS, found, strict=True):
        for one in hypotheses:
            written = tokenizer.encode(one.text)[::-1] + ([EOS] if one.finished else [])
            expected = log_probs_of(translator, text, written, EOS)
            assert one.log_prob == pytest.approx(sum(expected), abs=1e-4)  # float32 sums
            assert one.alignment.shape == (len(one.tokens), len(one.source_tokens))
    if beam_size == 1:  # greedy: no other token is likelier at any step
        one = found[0][0]
        written = tokenizer.encode(one.text)[::-1]
        for step in range(len(written)):
            others = [
                log_probs_of(translator, TEXTS[0], [*written[:step], other], EOS)[-1]
                for other in range(2, tokenizer.vocabulary_size)
            ]
            chosen = log_probs_of(translator, TEXTS[0], written[: step + 1], EOS)[-1]
            assert chosen == pytest.approx(max(others), abs=1e-5)  # float32, one row of several against one alone


def test_given_outputs_get_the_score_of_the_backward_search_that_found_them(translator) -> None:
    found = translator.translate(TEXTS, beam_size=4, n_best=4, backward=True, max_length=8)
    pairs = [(text, one) for text, row in zip(TEXTS, found, strict=True) for one in row if one.finished]
    assert 6 <= len(pairs) < 24
    assert any(len(one.text) > 1 for _, one in pairs)
    scores = translator.score([text for text, _ in pairs], [one.text for _, one in pairs], 1.0, backward=True)
    for (_, one), score in zip(pairs, scores, strict=True):
        assert score.tokens == one.tokens
        # Float32; PyTorch's sums differ by 3e-5 of the whole.
        assert score.log_prob == pytest.approx(one.log_prob, rel=1e-4, abs=1e-4)
        assert score.score == pytest.approx(one.score, abs=1e-4)  # as above, over the length
        np.testing.assert_allclose(score.alignment, one.alignment, atol=1e-5)  # float32, weights of at most 1


@pytest.mark.parametrize("weight", fast([0.0, 0.3, 1.0], 0.3))
@pytest.mark.parametrize("kind", ["gnmt", "average"])
def test_agreement_ranks_the_outputs_of_both_beams_by_both_directions(translator, weight, kind) -> None:
    options = {"max_length": 6, "length_penalty": 0.8, "length_penalty_kind": kind}
    found = translator.translate(TEXTS, beam_size=3, n_best=3, method="agreement", backward_weight=weight, **options)
    ways = [translator.translate(TEXTS, beam_size=3, n_best=3, backward=way, **options) for way in (False, True)]
    for text, hypotheses, ours, theirs in zip(TEXTS, found, *ways, strict=True):
        candidates = {one.text for one in [*ours, *theirs] if one.finished}
        if not candidates:
            assert [one.text for one in hypotheses] == [one.text for one in ours]
            continue
        ranked = []
        for candidate in candidates:
            ids = translator.target_tokenizer.encode(candidate)
            forward = sum(log_probs_of(translator, text, [*ids, EOS], BOS))
            backward = sum(log_probs_of(translator, text, [*ids[::-1], EOS], EOS))
            base = (6 + len(ids)) / 6 if kind == "gnmt" else len(ids) + 1
            ranked.append((((1 - weight) * forward + weight * backward) / base**0.8, candidate))
        ranked.sort(reverse=True)
        assert [one.text for one in hypotheses] == [candidate for _, candidate in ranked[:3]]
        # Float32 sums of log-probabilities of some tens.
        assert [one.score for one in hypotheses] == pytest.approx([score for score, _ in ranked[:3]], abs=1e-4)


@pytest.mark.slow
@pytest.mark.once(reason="the batches are made by NumPy and are the same on every backend")
def test_both_directions_are_learnt(tmp_path) -> None:
    """Targets that begin with a and end with f: what is written first tells the direction."""
    words = ["".join(letters) for letters in itertools.permutations("bcde", 3)] * 5
    (tmp_path / "source.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (tmp_path / "target.txt").write_text("".join(f"a{word}f\n" for word in words), encoding="utf-8")
    translator = Translator.load(
        train_toy(tmp_path / "run", tmp_path, backward=0.5, epochs=20, early_stopping_patience=20).path
    )
    forward = translator.score(["bcd"], ["abcdf"])[0].log_probs
    backward = translator.score(["bcd"], ["abcdf"], backward=True)[0].log_probs
    assert np.exp(forward[0]) > 0.5  # a, written first
    assert np.exp(backward[4]) > 0.5  # f, written first
    swapped = translator.score(["bcd"], ["fbcda"])[0], translator.score(["bcd"], ["fbcda"], backward=True)[0]
    assert np.exp(swapped[0].log_probs[0]) < 0.3  # now neither is first to be written: well under 0.5
    assert np.exp(swapped[1].log_probs[4]) < 0.3  # likewise


@pytest.mark.slow
def test_the_command_line_agrees(both_ways, tmp_path) -> None:
    done = run_command("translate", both_ways.path, "--method", "agreement", "--scores", stdin=b"abc\nfed\n")
    found = Translator.load(both_ways.path).translate(["abc", "fed"], method="agreement")
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[1] for line in lines] == [row[0].text for row in found]
    # Six decimals of float32 are written.
    assert [float(line[0]) for line in lines] == pytest.approx([row[0].score for row in found], abs=1e-5)
    tsv = tmp_path / "held-out.tsv"
    tsv.write_text("abc\tcba\nfed\tdef\n", encoding="utf-8")
    scores = json.loads(
        run_command("evaluate", both_ways.path, "--tsv", tsv, "--method", "agreement").out.splitlines()[-1]
    )
    assert scores["agreement"] == 0.5
    right = sum(row[0].text == text[::-1] for row, text in zip(found, ["abc", "fed"], strict=True))
    assert scores["exact_match"] == pytest.approx(50.0 * right)


@pytest.mark.slow
def test_the_history_without_a_share_is_that_of_before(toy_run, both_ways) -> None:
    """A share of 0 leaves a training as it is, and another share is another training."""
    assert not toy_run.writes_backward
    assert both_ways.writes_backward
    rows = [read_history(run.path / "history.csv")[-1] for run in (toy_run, both_ways)]
    assert rows[0]["val_loss"] != rows[1]["val_loss"]
    assert "val_perplexity_backward" not in rows[0]


def test_each_epoch_tells_the_perplexity_of_either_direction(both_ways) -> None:
    """That of the run's model, held to its own scores of the held-out pairs."""
    row = min(read_history(both_ways.path / "history.csv"), key=lambda row: row["val_loss"])
    pairs = both_ways.samples(), [references[0] for references in both_ways.references()]
    translator = Translator.load(both_ways.path)
    for backward, name in ((False, "val_perplexity"), (True, "val_perplexity_backward")):
        scores = translator.score(*pairs, backward=backward)
        loss = -sum(score.log_prob for score in scores) / sum(len(score.tokens) for score in scores)
        assert row[name] == pytest.approx(np.exp(loss), rel=1e-4)  # float32 sums over batches of other sizes


def test_texts_go_through_in_parts_that_a_progress_bar_is_told_of(translator) -> None:
    told: list[int] = []
    options = {"method": "agreement", "max_length": 6}
    found = translator.translate(TEXTS * 2, beam_size=2, batch_size=1, on_batch=told.append, **options)
    assert told == [1] * 12
    whole = translator.translate(TEXTS, beam_size=2, **options) * 2
    assert [row[0].text for row in found] == [row[0].text for row in whole]
    # Float32 sums in another order.
    assert [row[0].score for row in found] == pytest.approx([row[0].score for row in whole], abs=1e-4)


def test_a_run_of_one_direction_says_so(toy_run) -> None:
    translator = Translator.load(toy_run.path)
    for options in ({"backward": True}, {"method": "agreement"}):
        with pytest.raises(UserError, match=r"one direction\. Expected one that learnt some targets backwards"):
            translator.translate(["abc"], **options)
    with pytest.raises(UserError, match="one direction"):
        translator.score(["abc"], ["cba"], backward=True)
    done = run_command("translate", toy_run.path, "--method", "agreement", stdin=b"abc\n")
    assert done.status == 1
    assert "train --backward 0.5" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "agreement", "constraints": TextConstraints(prefixes="a")}, "forward direction alone"),
        ({"backward": True, "constraints": TextConstraints(phrases=["a"])}, "forward direction alone"),
        ({"method": "agreement", "backward": True}, "Expected no single direction"),
        ({"method": "agreement", "groups": 5}, "groups is a setting of method 'beam'"),
    ],
)
def test_what_agreement_cannot_do(translator, options, message) -> None:
    with pytest.raises(UserError, match=message):
        translator.translate(["abc"], **options)


def test_numbers_out_of_range() -> None:
    with pytest.raises(UserError, match="backward_weight is out of range"):
        SearchPolicy(method="agreement", backward_weight=1.5)
    with pytest.raises(UserError, match=r"backward is out of range\. Expected 0 or more, below 1"):
        TrainConfig(backward=1.0)
    with pytest.raises(UserError, match="guided_alignment"):
        TrainConfig(backward=0.5, guided_alignment=0.1)


def test_samples_can_be_drawn_backwards(translator) -> None:
    found = translator.translate(["abc"], n_best=4, method="sample", seed=3, backward=True, max_length=5)[0]
    for one in found:
        written = translator.target_tokenizer.encode(one.text)[::-1] + ([EOS] if one.finished else [])
        # Float32 sums.
        assert one.log_prob == pytest.approx(sum(log_probs_of(translator, "abc", written, EOS)), abs=1e-4)


CONFIGS = {
    "attention-only": {"cell": "self_attention", "encoder_units": 8, "decoder_units": 8, "attention": "scaled_dot"},
    "layers": {"cell": "gru", "encoder_layers": 2, "decoder_layers": 2, "attention": "additive", "use_coverage": True},
    "copies": {"copy_words": 3},
    "shortlist": {"shortlist": 4},
    "plain": {"attention": "none", "decoder_units": 12},
}


@pytest.mark.parametrize("name", fast(CONFIGS, "layers"))
def test_the_search_says_what_a_pass_over_its_outputs_says(name) -> None:
    sizes = {"source_vocabulary": 13, "target_vocabulary": 13, "embedding_size": 8, "encoder_units": 6}
    model = build_seq2seq(Seq2SeqConfig(**{**sizes, **CONFIGS[name]}))
    generator = np.random.default_rng(8)
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0.0, 0.4, variable.shape).astype("float32"))
    bias = model.get_layer("output").bias
    bias.assign(np.where(np.arange(13) == EOS, 2.5, keras.ops.convert_to_numpy(bias)))  # outputs shall end
    if name == "shortlist":
        for variable in model.get_layer("shortlist").weights:
            words = np.arange(np.prod(variable.shape)).reshape(variable.shape) % 11 + 2
            variable.assign(words.astype("int32"))
    source = np.array([[4, 5, 6, 7, EOS], [8, 9, EOS, 0, 0]], np.int32)
    policy = SearchPolicy("agreement", 3, 0.0, max_length=7, backward_weight=0.3)
    found = SearchModel(model, policy=policy).predict_on_batch({"source": source})
    rows, slots = np.nonzero(found["finished"])
    assert len(rows) > 1
    ids, lengths = found["ids"][rows, slots], found["lengths"][rows, slots]
    turned = ids.copy()
    for line, length in zip(turned, lengths, strict=True):
        line[: length - 1] = line[: length - 1][::-1].copy()
    scores, total = ScoreModel([model]), 0.0
    for weight, first, labels in ((0.7, BOS, ids), (0.3, EOS, turned)):
        target = np.concatenate([np.full_like(labels[:, :1], first), labels[:, :-1]], axis=1)
        log_probs, alignments = scores.predict_on_batch({"source": source[rows], "target": target, "labels": labels})
        total = total + weight * log_probs.sum(axis=1)
        if first == BOS:
            inside = np.arange(7)[None, :, None] < lengths[:, None, None]
            # Float32, weights of at most 1.
            np.testing.assert_allclose(found["alignments"][rows, slots], alignments * inside, atol=1e-5)
    # Float32 sums of seven log-probabilities.
    np.testing.assert_allclose(found["log_probs"][rows, slots], total, rtol=1e-4, atol=1e-4)


def test_unknown_words_give_way_to_the_source_words_that_they_attend_to(translator) -> None:
    bias = translator.model.get_layer("output").bias
    before = keras.ops.convert_to_numpy(bias)
    bias.assign(np.where(np.arange(len(before)) == 3, 4.0, before))
    plain = translator.translate(["abc"], beam_size=3, method="agreement", max_length=4)[0][0]
    replaced = translator.translate(["abc"], beam_size=3, method="agreement", max_length=4, replace_unknown=True)[0][0]
    bias.assign(before)
    assert "<unk>" in plain.tokens
    assert "<unk>" not in replaced.tokens
    assert replaced.score == pytest.approx(plain.score)


@pytest.mark.slow
def test_an_ensemble_agrees(both_ways, toy_folder, tmp_path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(both_ways.path, copy)
    one = Translator.load(both_ways.path).translate(TEXTS, beam_size=3, method="agreement")
    two = Translator.load(both_ways.path, RunDirectory.open(copy)).translate(TEXTS, beam_size=3, method="agreement")
    assert [row[0].text for row in one] == [row[0].text for row in two]
    # Float32 sums in another order.
    assert [row[0].score for row in one] == pytest.approx([row[0].score for row in two], abs=1e-4)
