"""Texts through models of random weights: limits, methods, ensembles, copies, scores and streams."""

import numpy as np
import pytest

from keras_attention import EncoderDecoder, Seq2SeqConfig, build_seq2seq
from keras_attention.text.padding import pad_rows
from keras_attention.text.tokenizers import CharacterTokenizer, WordTokenizer
from keras_attention.translation.stream import translate_lines
from keras_attention.translation.translator import Translator
from tests.support.mechanisms import numpy
from tests.support.reference import length_penalty

PAD, BOS, EOS = 0, 1, 2
TEXTS = ["abc", "fed", "bead", "cab", "ace"]
TOKENIZER = CharacterTokenizer.train(["abcdef"])


def random_model(seed, end=1.0, size=TOKENIZER.vocabulary_size, **fields):
    """Weights that make outputs differ, with no padding, BOS or unknown token; `end` is the bias of EOS."""
    generator = np.random.default_rng(seed)
    sizes = {"source_vocabulary": size, "target_vocabulary": size, "embedding_size": 8, "encoder_units": 6}
    model = build_seq2seq(Seq2SeqConfig(**sizes, **fields))
    for variable in model.trainable_variables:
        variable.assign(generator.normal(0.0, 0.4, variable.shape).astype("float32"))
    model.get_layer("output").bias.assign([-50.0, -50.0, end, -50.0, *[0.0] * (size - 4)])
    return model


@pytest.fixture(scope="module")
def pair():
    return [random_model(5), random_model(11)]


@pytest.fixture(scope="module")
def translator(pair):
    return Translator(pair[0], TOKENIZER, TOKENIZER)


def test_padding_of_a_label_has_no_score(pair) -> None:
    net = EncoderDecoder(pair[0])
    source = np.array([[4, 5, 6, EOS], [7, EOS, PAD, PAD]], np.int32)
    target = np.array([[BOS, 6, 5, 9], [BOS, 4, PAD, PAD]], np.int32)
    labels = np.array([[6, 5, 9, EOS], [4, EOS, PAD, PAD]], np.int32)
    together, _ = net.score(source, target, labels)
    alone, _ = net.score(source[1:, :2], target[1:, :2], labels[1:, :2])
    together = numpy(together)
    assert (together[0] < 0).all()
    np.testing.assert_array_equal(together[1, 2:], [0, 0])
    np.testing.assert_allclose(together[1, :2], numpy(alone)[0], rtol=1e-5)  # float32


@pytest.mark.parametrize("method", ["search", "sample", "contrast", "agree"])
def test_limits_count_the_words_of_a_source_alone(method) -> None:
    net = EncoderDecoder(random_model(3, end=-50.0))  # no output ends
    source = np.array([[4, 5, 6, 7, 8, EOS, PAD], [7, EOS, PAD, PAD, PAD, PAD, PAD]], np.int32)
    limits = {"max_length": 10, "max_length_factor": 1.5, "max_length_offset": 1}
    lengths = numpy(getattr(net, method)(source, **limits)["lengths"])
    np.testing.assert_array_equal(lengths[:, 0], [10, 4])  # the least of 10 and 1.5 * 6 + 1; 1.5 * 2 + 1


@pytest.mark.parametrize("method", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.01}])
def test_samples_with_the_least_freedom_are_greedy(translator, method) -> None:
    greedy = translator.translate(TEXTS, beam_size=1, max_length=6)
    drawn = translator.translate(TEXTS, n_best=2, max_length=6, method="sample", seed=3, **method)
    for row, (best,) in zip(drawn, greedy, strict=True):
        assert [one.text for one in row] == [best.text] * 2
        assert [one.score for one in row] == pytest.approx([best.score] * 2, abs=1e-5)  # float32


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
def test_an_ensemble_finds_what_the_mean_of_its_members_says(pair, combination) -> None:
    both = Translator(pair, TOKENIZER, TOKENIZER, combination=combination)
    found = both.translate(TEXTS, beam_size=3, n_best=3, max_length=6)
    pairs = [(text, one) for text, row in zip(TEXTS, found, strict=True) for one in row]
    written = [TOKENIZER.encode(one.text) + ([EOS] if one.finished else []) for _, one in pairs]
    source = pad_rows([[*TOKENIZER.encode(text), EOS] for text, _ in pairs])
    target = pad_rows([[BOS, *ids[:-1]] for ids in written])
    tables = np.stack([numpy(EncoderDecoder(model).log_probs(source, target)[0]) for model in pair]).astype("float64")
    if combination == "logits":
        means = tables.mean(axis=0)
        means = means - np.log(np.exp(means).sum(axis=-1, keepdims=True))
    else:
        means = np.log(np.exp(tables).mean(axis=0))
    for (_, one), ids, mean in zip(pairs, written, means, strict=True):
        total = mean[np.arange(len(ids)), ids].sum()
        assert one.log_prob == pytest.approx(total, abs=1e-4)  # float32 sums
        assert one.score == pytest.approx(total / length_penalty(len(ids), 1.0), abs=1e-4)  # float32 sums


@pytest.mark.parametrize("kind", ["gnmt", "average"])
def test_given_outputs_are_ranked_by_the_length_penalty_asked_for(translator, kind) -> None:
    outputs = ["fed", "a", "", "deadbeef", "cab"]
    for output, score in zip(outputs, translator.score(TEXTS, outputs, 0.7, length_penalty_kind=kind), strict=True):
        count = len(output) + 1
        penalty = length_penalty(count, 0.7) if kind == "gnmt" else count**0.7
        assert score.score == pytest.approx(score.log_prob / penalty, rel=1e-5)  # a float32 power
        assert score.log_prob == pytest.approx(float(score.log_probs.sum()), rel=1e-5)  # a float32 sum


def test_words_are_copied_from_the_text_that_they_stand_in() -> None:
    tokenizer = WordTokenizer.train(["call at now"])
    model = random_model(7, size=tokenizer.vocabulary_size, copy_words=2)
    gate = model.get_layer("pointer").gate
    gate.set_weights([np.zeros(gate.kernel.shape), np.full(1, -40.0)])  # all words are copied
    texts = ["Ada", "Bo Cy", "call Dee now", "Eve at Flo now"]  # batches begin with the longest
    found = Translator(model, tokenizer, tokenizer).translate(texts, beam_size=3, n_best=3, max_length=5)
    for text, row in zip(texts, found, strict=True):
        assert any(one.text for one in row)
        assert all(set(one.text.split()) <= set(text.split()) for one in row)


@pytest.mark.parametrize("count", [4, 5])
def test_a_stream_is_read_to_its_end_in_chunks(translator, count) -> None:
    lines = [f"{text}\n".encode() for text in TEXTS[:count]]
    lines[2] = b"\n"
    written: list[tuple[int, list[str]]] = []

    def write(number, hypotheses):
        written.append((number, [one.text for one in hypotheses]))

    options = {"skip_errors": True, "beam_size": 2, "n_best": 2, "max_length": 6}
    assert translate_lines(translator, lines, write, chunk=2, **options) == count
    whole, written = written, []
    assert translate_lines(translator, lines, write, chunk=100, **options) == count
    assert whole == written
    texts = [text for number, text in enumerate(TEXTS[:count]) if number != 2]
    expected = [[one.text for one in row] for row in translator.translate(texts, beam_size=2, n_best=2, max_length=6)]
    expected.insert(2, [])
    assert written == list(enumerate(expected, 1))
