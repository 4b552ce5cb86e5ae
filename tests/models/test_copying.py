"""Copying: the mixture against NumPy, and ids of words that the vocabulary lacks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_attention import CopiedWords, EncoderDecoder, PointerGenerator, Seq2SeqConfig, UserError, build_seq2seq
from keras_attention.models.pointer_generator import SMALLEST, of_text
from keras_attention.text.tokenizers import CharacterTokenizer, SubwordTokenizer, WordTokenizer
from keras_attention.training import train
from keras_attention.training.config import TrainConfig
from keras_attention.training.loop.assemble import fuses_loss
from tests.support.layer_contract import check_layer

SOURCE = np.array([[4, 7, 5, 7, 2], [8, 6, 2, 0, 0]], "int32")  # V = 7: 7 and 8 are copied words


def inputs(seed=0, steps=3):
    generator = np.random.default_rng(seed)
    alignment = generator.random((2, steps, 5)) * (SOURCE != 0)[:, None]
    return (
        generator.normal(size=(2, steps, 7)).astype("float32"),
        generator.normal(size=(2, steps, 4)).astype("float32"),
        (alignment / alignment.sum(axis=-1, keepdims=True)).astype("float32"),
    )


def test_the_mixture_is_that_of_the_formula():
    logits, attentional, alignment = inputs()
    layer = PointerGenerator(2)
    found = ops.convert_to_numpy(layer(logits, attentional, alignment, SOURCE))
    kernel, bias = (ops.convert_to_numpy(weight).astype("float64") for weight in layer.gate.weights)
    gate = 1 / (1 + np.exp(-(attentional @ kernel + bias)))
    expected = np.zeros((2, 3, 9))
    exponentials = np.exp(logits.astype("float64"))
    expected[:, :, :7] = gate * exponentials / exponentials.sum(axis=-1, keepdims=True)
    for row, words in enumerate(SOURCE):
        for position, word in enumerate(words):
            expected[row, :, word] += (1 - gate[row, :, 0]) * alignment[row, :, position]
    np.testing.assert_allclose(np.exp(found), np.maximum(expected, SMALLEST), rtol=1e-5)  # float32
    np.testing.assert_allclose(np.exp(found).sum(axis=-1), 1.0, rtol=2e-6)  # float32 sums of nine terms


@pytest.mark.parametrize("bias", [-40.0, 40.0])
def test_a_shut_gate_leaves_one_of_the_two(bias):
    logits, attentional, alignment = inputs()
    layer = PointerGenerator(2)
    layer.build(logits.shape, attentional.shape)
    layer.gate.set_weights([np.zeros((4, 1)), np.full(1, bias)])
    found = np.exp(ops.convert_to_numpy(layer(logits, attentional, alignment, SOURCE)))
    if bias > 0:
        np.testing.assert_allclose(found[:, :, :7], ops.convert_to_numpy(ops.softmax(logits)), rtol=2e-6)  # float32
        assert (found[:, :, 7:] < 1e-15).all()  # the gate is exp(-40), 4e-18
    else:  # a word that stands twice gets what both places have
        np.testing.assert_allclose(found[0, :, 7], alignment[0, :, 1] + alignment[0, :, 3], rtol=2e-6)  # float32
        np.testing.assert_allclose(found[1, :, 8], alignment[1, :, 0], rtol=2e-6)  # float32
        assert (found[:, :, 3] < 1e-15).all()  # the gate is exp(-40), 4e-18


def test_the_layer_keeps_the_contract(tmp_path):
    check_layer(
        lambda **options: PointerGenerator(2, **options),
        # Log-probabilities are float32 whatever the layer computes in: here they are compared in its own precision.
        lambda layer, tensors: ops.cast(layer(*tensors, np.stack([SOURCE[0]] * 2)), layer.compute_dtype),
        list(inputs()),
        tmp_path,
    )


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_logits_are_not_rounded(dtype):
    _, attentional, alignment = inputs()
    logits = np.tile(np.array([20.03, 20.0, 0, 0, 0, 0, 0], "float32"), (2, 3, 1))  # one number in bfloat16
    layer = PointerGenerator(2, dtype=dtype)
    layer.build(logits.shape, attentional.shape)
    layer.gate.set_weights([np.zeros((4, 1)), np.full(1, 40.0)])
    found = ops.convert_to_numpy(layer(logits, attentional, alignment, SOURCE))
    np.testing.assert_allclose(found[..., 0] - found[..., 1], 0.03, atol=1e-5)  # 20.03 in float32 is off by up to 1e-6


def test_without_room_there_is_no_layer():
    with pytest.raises(ValueError, match=r"Expected: copy_words >= 1\. Received: copy_words=0"):
        PointerGenerator(0)


def test_unknown_words_are_told_apart_by_the_ids_that_copy_them():
    model = build_seq2seq(Seq2SeqConfig(7, 7, copy_words=2, encoder_units=3, decoder_units=5, embedding_size=4))
    target = np.array([[1, 7, 8, 5], [1, 8, 0, 0]], "int32")
    output = ops.convert_to_numpy(model({"source": SOURCE, "target": target}))
    assert output.shape == (2, 4, 9)
    read_as_unknown = ops.convert_to_numpy(
        model({"source": np.where(SOURCE < 7, SOURCE, 3), "target": np.where(target < 7, target, 3)})
    )
    # The network reads all of them as the unknown word; where attention points, it writes the one that stands there.
    np.testing.assert_allclose(
        np.exp(output[0, :, 7]) + np.exp(output[0, :, 3]), np.exp(read_as_unknown[0, :, 3]), rtol=1e-4
    )
    assert (output[0, :, 8] < np.log(SMALLEST) + 1).all()  # no such word in this source
    found = EncoderDecoder(model).search(SOURCE, beam_size=3, max_length=6)
    assert ops.convert_to_numpy(found["ids"]).max() <= 8


WORDS = WordTokenizer.train(["call at now", "at call"])
PIECES = st.lists(st.sampled_from(["call", "at", "now", "Ada", "Bo", "Cy", "<unk>", "</s>"]), max_size=7)


@given(PIECES, PIECES, st.integers(0, 3))
@settings(deadline=None)
def test_ids_of_a_source_and_its_outputs_go_there_and_back(source, target, most):
    words = CopiedWords(WORDS, " ".join(source), most)
    new = list(dict.fromkeys(word for word in source if word not in ("call", "at", "now")))
    assert words.found == new
    assert words.words == new[:most]
    known = {"call", "at", "now", *new[:most]}
    ids = words.encode(" ".join(target))
    assert [index != 3 for index in ids] == [word in known for word in target]
    assert words.unknown(" ".join(target)) == [word for word in target if word not in known]
    assert words.decode(ids) == " ".join(word for word in target if word in known)
    assert words.tokens([*ids, 2]) == [*(word if word in known else "<unk>" for word in target), "</s>"]
    size = WORDS.vocabulary_size
    assert words.tokens([size + most]) == ["<unk>"]  # an id that stands for no word
    assert words.decode([size + most]) == ""


def test_characters_and_subwords_have_copies_too():
    characters = CopiedWords(CharacterTokenizer.train(["abc"]), "axbyx", 2)
    assert characters.encode("xyza") == [7, 8, 3, 4]
    assert characters.decode([8, 7, 4, 2]) == "yxa"
    subwords = SubwordTokenizer.train(["the cat sat on the mat", "a cat on a mat"] * 9, 24)
    words = CopiedWords(subwords, "the cat on the § mat", 2)
    ids = words.encode("a cat on the §")
    assert words.words == ["§"]
    assert subwords.vocabulary_size in ids
    assert words.decode(ids) == "a cat on the §"
    assert of_text((subwords, characters), "§", None) == (subwords, characters)
    reader, writer = of_text((subwords, subwords), "§", 2)
    assert reader is writer
    assert reader.words == ["§"]


@pytest.mark.parametrize(
    "choices",
    [{"attention": "none"}, {"target_vocabulary": 9}, {"copy_words": 0}, {"copy_words": 2.5}, {"copy_words": True}],
)
def test_a_config_that_cannot_copy(choices):
    with pytest.raises(ValueError, match="Expected: "):
        Seq2SeqConfig(**{"source_vocabulary": 7, "target_vocabulary": 7, "copy_words": 2, **choices})


def pairs_file(folder):
    path = folder / "pairs.tsv"
    path.write_text("".join(f"a {n}\tb {n}\n" for n in range(9)))
    return path


@pytest.mark.parametrize("choices", [{"scheduled_sampling": "word"}, {"coverage_loss": 0.5}])
def test_losses_on_logits_are_refused(choices, tmp_path):
    assert not fuses_loss(TrainConfig(), Seq2SeqConfig(7, 7, copy_words=2))
    words = {"source_tokenizer": "word", "target_tokenizer": "word", "joint": True}
    with pytest.raises(UserError, match="Expected none of them with copy_words"):
        train(tmp_path / "run", tsv=pairs_file(tmp_path), model={"copy_words": 2}, **words, **choices)
    assert not (tmp_path / "run").exists()


def test_two_vocabularies_cannot_copy(tmp_path):
    with pytest.raises(UserError, match="Expected --joint and --subword-alpha 0 with copy_words"):
        train(
            tmp_path / "run",
            tsv=pairs_file(tmp_path),
            source_tokenizer="word",
            target_tokenizer="word",
            model={"copy_words": 2},
        )


def test_a_training_reads_text(tmp_path):
    with pytest.raises(UserError, match=r"reads text\. Expected no source_features"):
        train(tmp_path / "run", tsv=pairs_file(tmp_path), source_tokenizer="word", model={"source_features": 3})
    assert not (tmp_path / "run").exists()
