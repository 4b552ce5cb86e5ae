"""Held-out text: groups of lengths, sources of just the length allowed, the loss in both directions."""

import math

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.training.data.pairs import Encoded, Pairs
from keras_attention.training.evaluate import check_sources, read_references, scores_by_length
from keras_attention.training.loop.validation import Evaluator, perplexity
from keras_attention.translation.translator import Translator


def of_sources(sources: list[str]) -> Pairs:
    return Pairs(sources, [["right"] for _ in sources], [f"text:{number}" for number in range(1, len(sources) + 1)])


def test_each_sentence_is_in_one_group_of_lengths() -> None:
    lengths = [1, 5, 6, 10, 11, 15, 16, 20, 21, 30, 31, 77, 6, 6]
    outputs = ["right" if number % 3 else "wrong" for number in range(len(lengths))]
    groups = scores_by_length("exact", of_sources([" ".join(["w"] * length) for length in lengths]), outputs)
    bounds = [(1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, None)]
    assert [(group["from"], group["to"]) for group in groups] == bounds
    for group, (low, high) in zip(groups, bounds, strict=True):
        rows = [i for i, length in enumerate(lengths) if low <= length <= (math.inf if high is None else high)]
        assert group["sentences"] == len(rows)
        assert group["exact_match"] == pytest.approx(100 * sum(outputs[i] == "right" for i in rows) / len(rows))


def test_a_group_without_sentences_is_left_out() -> None:
    assert [group["from"] for group in scores_by_length("exact", of_sources(["w", "w " * 12]), ["a", "b"])] == [1, 11]


def test_a_source_as_long_as_those_of_training_is_read(toy_run) -> None:
    translator = Translator.load(toy_run.path)
    limit = translator.max_source_length
    assert limit == 20
    assert check_sources(translator, of_sources(["a" * limit]), skip_errors=False) == 0
    with pytest.raises(UserError, match=r"text:2: 21 tokens\. Expected at most 20"):
        check_sources(translator, of_sources(["a", "a" * (limit + 1)]), skip_errors=False)
    assert check_sources(translator, of_sources(["aé", "a" * (limit + 1), "éa"]), skip_errors=True) == 2


def test_each_source_has_its_line_of_every_reference_file(tmp_path) -> None:
    for name, text in (("s", "one\ntwo\n"), ("a", "eins\nzwei\n"), ("b", "un\ndeux\n"), ("short", "uno\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = read_references(tmp_path / "s", [tmp_path / "a", tmp_path / "b"], None)
    assert (found.sources, found.references) == (["one", "two"], [["eins", "un"], ["zwei", "deux"]])
    with pytest.raises(UserError, match="2 lines and 1 lines"):
        read_references(tmp_path / "s", [tmp_path / "a", tmp_path / "short"], None)


@pytest.mark.parametrize("backward", [False, True])
def test_the_loss_of_targets_in_both_directions(backward: bool) -> None:
    """A mean over all tokens, of what the model says of each target alone, without padding."""
    model = build_seq2seq(Seq2SeqConfig(11, 13, embedding_size=3, encoder_units=2, decoder_units=5))
    generator = np.random.default_rng(0)
    sources, targets = (
        [generator.integers(4, 11, size=size).tolist() for size in sizes] for sizes in ((3, 1, 7), (2, 5, 3))
    )
    total = 0.0
    for source, target in zip(sources, targets, strict=True):
        words = target[::-1] if backward else target
        inputs = {
            "source": np.array([[*source, 2]], "int32"),
            "target": np.array([[2 if backward else 1, *words]], "int32"),
        }
        logits = keras.ops.convert_to_numpy(model(inputs, training=False))[0].astype("float64")
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= log_probs[np.arange(len(words) + 1), [*words, 2]].sum()
    found = Evaluator(model, batch_size=2).loss(Encoded(sources, targets), backward=backward)
    assert found == pytest.approx(total / (2 + 5 + 3 + 3), rel=1e-5)  # float32 sums
    assert perplexity(found) == pytest.approx(math.exp(found))
    assert perplexity(701.0) == math.inf
