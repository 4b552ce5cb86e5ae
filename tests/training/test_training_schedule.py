"""What changes from update to update and from epoch to epoch: learning rate, and the segmentations drawn."""

import ctypes
import math
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import SubwordTokenizer, train_tokenizer
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, Pairs, sample_pairs
from keras_attention.training.hardware import cpu as processor
from keras_attention.training.hardware.cpu import choose_products, keep_freed_memory
from keras_attention.training.loop.assemble import _sampler, encode_all
from keras_attention.training.loop.schedules import cosine
from keras_attention.training.loop.trainer import Progress, Trainer
from keras_attention.training.recipes import Splits

LINES = ["the cat sat on the mat", "a cat and a mat", "the mat and the cat", "on and on and on"] * 5


@pytest.fixture(scope="module")
def subwords() -> SubwordTokenizer:
    tokenizer = train_tokenizer("subword", LINES, 40)
    assert isinstance(tokenizer, SubwordTokenizer)
    return tokenizer


def test_a_cosine_goes_from_the_first_rate_to_the_last() -> None:
    assert cosine(0.0, 2e-3, 1e-5) == pytest.approx(2e-3)
    assert cosine(0.5, 2e-3, 1e-5) == pytest.approx((2e-3 + 1e-5) / 2)
    assert cosine(1.0, 2e-3, 1e-5) == cosine(7.0, 2e-3, 1e-5) == pytest.approx(1e-5)
    assert cosine(1.0, 1e-6, 1e-5) == pytest.approx(1e-6), "the smallest rate is no greater than the first"
    rates = [cosine(step / 50, 1.0, 0.0) for step in range(51)]
    assert rates == sorted(rates, reverse=True)


def rates_of(settings: TrainConfig, batches: int) -> list[float]:
    """The rate of every update of all epochs, as the trainer sets it."""

    class Model:
        optimizer = keras.optimizers.SGD(settings.learning_rate)

    rows = [[4, 5]] * batches
    dataset = BatchDataset(Encoded(rows, rows), 1, seed=1)
    trainer = Trainer.__new__(Trainer)
    trainer.settings, trainer.dataset, trainer.progress = settings, dataset, Progress()
    trainer.set_model(Model())
    trainer.on_train_begin()
    rates = []
    for epoch in range(settings.epochs):
        trainer.progress.epoch = epoch
        for batch in range(batches):
            trainer.on_train_batch_begin(batch)
            rates.append(float(keras.ops.convert_to_numpy(Model.optimizer.learning_rate)))
    return rates


def test_the_rate_warms_up_and_then_follows_the_cosine() -> None:
    settings = TrainConfig(schedule="cosine", warmup=4, epochs=2, learning_rate=1e-2, min_learning_rate=1e-4)
    expected = [
        min(1.0, (update + 1) / 4) * (1e-4 + 0.5 * (1e-2 - 1e-4) * (1 + math.cos(math.pi * update / 20)))
        for update in range(20)
    ]
    np.testing.assert_allclose(rates_of(settings, 10), expected, rtol=1e-5)  # the variable is float32


def test_on_plateau_the_rate_warms_up_and_stays() -> None:
    rates = rates_of(TrainConfig(warmup=4, epochs=1, learning_rate=1e-2), 8)
    np.testing.assert_allclose(rates, [0.0025, 0.005, 0.0075] + [0.01] * 5, rtol=2e-7)  # the variable is float32


def test_segmentations_differ_by_seed_and_spell_the_same_text(subwords) -> None:
    one, same, other = (subwords.sample(LINES, 0.1, seed) for seed in (3, 3, 4))
    assert one == same
    assert one != other
    assert len({tuple(row) for row in one[::4]}) > 1, "one sentence in several segmentations"
    for row, line in zip(one, LINES, strict=True):
        assert subwords.decode(row) == line


def test_a_great_alpha_draws_the_best_segmentation(subwords) -> None:
    assert subwords.sample(LINES, 500.0, 1) == [subwords.encode(line) for line in LINES]


def test_only_subwords_are_drawn_and_a_long_draw_is_replaced(subwords) -> None:
    words = train_tokenizer("word", LINES)
    best = Encoded([subwords.encode(line) for line in LINES], [words.encode(line) for line in LINES])
    longest = max(map(len, best.sources))
    drawn = sample_pairs((LINES, LINES), best, (subwords, words), (0.1, 0.1), 1, longest)
    assert drawn.targets == best.targets
    assert drawn.sources != best.sources
    assert max(map(len, drawn.sources)) <= longest
    free = sample_pairs((LINES, LINES), best, (subwords, words), (0.1, 0.1), 1, 100)
    assert max(map(len, free.sources)) > longest


def test_a_side_with_an_alpha_of_zero_keeps_its_best_segmentation(subwords) -> None:
    best = Encoded([subwords.encode(line) for line in LINES], [subwords.encode(line) for line in LINES])
    for alphas, same in (((0.1, 0.0), (False, True)), ((0.0, 0.1), (True, False))):
        drawn = sample_pairs((LINES, LINES), best, (subwords, subwords), alphas, 1, 100)
        assert (drawn.sources == best.sources, drawn.targets == best.targets) == same


def test_both_sides_are_drawn_by_seeds_of_their_own(subwords) -> None:
    """Of one text on both sides, so that one seed would draw the same twice; no seed serves two epochs either."""
    best = Encoded([subwords.encode(line) for line in LINES], [subwords.encode(line) for line in LINES])
    epochs = [sample_pairs((LINES, LINES), best, (subwords, subwords), (0.1, 0.1), seed, 100) for seed in (2, 3)]
    sides = [rows for drawn in epochs for rows in (drawn.sources, drawn.targets)]
    assert all(one != other for number, one in enumerate(sides) for other in sides[:number])


def test_a_draw_as_long_as_is_allowed_is_taken(subwords) -> None:
    best = Encoded([subwords.encode(line) for line in LINES], [subwords.encode(line) for line in LINES])
    free = sample_pairs((LINES, LINES), best, (subwords, subwords), (0.1, 0.1), 1, 100)
    longest = max(map(len, free.sources))
    assert longest > max(map(len, best.sources))
    assert sample_pairs((LINES, LINES), best, (subwords, subwords), (0.1, 0.1), 1, longest).sources == free.sources


def test_a_training_draws_anew_in_each_epoch(subwords, tmp_path) -> None:
    subwords.save(tmp_path, "joint")
    sizes = {"source_vocabulary": subwords.vocabulary_size, "target_vocabulary": subwords.vocabulary_size}
    files = {"source_tokenizer": "joint.tok.json", "target_tokenizer": "joint.tok.json"}
    run = RunDirectory.create(tmp_path, {"task": "translation", "model": sizes, **files})
    pairs = Pairs(LINES, [[line] for line in LINES], [f"text:{number}" for number in range(len(LINES))])
    settings = TrainConfig(subword_alpha=0.1, joint=True)
    best = encode_all(run, settings, pairs, "train", print)
    sample = _sampler(run, settings, Splits(pairs, pairs), best, print)
    assert sample is not None
    epochs = [sample(epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2]
    assert epochs[0].sources != epochs[1].sources
    assert epochs[0].targets != epochs[1].targets
    other = _sampler(run, TrainConfig(subword_alpha=0.1, joint=True, seed=2), Splits(pairs, pairs), best, print)
    assert other is not None
    assert other(0).sources != epochs[0].sources


def test_alphas_of_both_sides() -> None:
    assert TrainConfig().sampling_alphas == (0.0, 0.0)
    assert TrainConfig(subword_alpha=0.3).sampling_alphas == (0.3, 0.3)
    assert TrainConfig(subword_alpha=0.3, target_subword_alpha=0.0).sampling_alphas == (0.3, 0.0)
    assert TrainConfig(target_subword_alpha=0.2).draws_segmentations
    assert not TrainConfig().draws_segmentations


def test_each_epoch_has_draws_of_its_own(subwords) -> None:
    best = Encoded([subwords.encode(line) for line in LINES], [subwords.encode(line) for line in LINES])

    def sample(epoch: int) -> Encoded:
        return sample_pairs((LINES, LINES), best, (subwords, subwords), (0.1, 0.1), epoch, 100)

    dataset = BatchDataset(best, 7, seed=1, sample=sample, labels_as_input=True)
    seen = []
    for epoch in (0, 1, 0):
        dataset.start_epoch(epoch)
        batches = [dataset[index][0] for index in range(len(dataset))]
        tokens = sum(dataset.target_tokens(index) for index in range(len(dataset)))
        assert tokens == sum(int((batch["labels"] != 0).sum()) for batch in batches)
        seen.append([batch["source"].tolist() for batch in batches])
    assert seen[0] == seen[2]
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"schedule": "linear"}, r"Unknown schedule. Expected one of plateau, cosine. Received: 'linear'"),
        (
            {"matmul_dtype": "float8"},
            r"Unknown matmul_dtype. Expected one of auto, float32, bfloat16. Received: 'float8'",
        ),
        ({"warmup": -1}, r"warmup is out of range. Expected 0 or more. Received: -1"),
        ({"subword_alpha": -0.1}, r"subword_alpha is out of range"),
        ({"target_subword_alpha": -0.1}, r"target_subword_alpha is out of range"),
        (
            {"subword_alpha": 0.1, "source_tokenizer": "char", "target_tokenizer": "char"},
            r"Expected a subword tokenizer on one side at least. Received: char and char",
        ),
    ],
)
def test_settings_out_of_range_are_refused(choice, message) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**choice)


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx512_bf16 vaes", "bfloat16"), ("amx_bf16", "bfloat16"), ("fma avx2", "float32")]
)
def test_products_are_chosen_by_the_processor(tmp_path, flags, expected) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags}\n")
    assert choose_products("auto", tmp_path / "cpuinfo") == expected
    assert choose_products("auto", tmp_path / "missing") == "float32"
    assert choose_products("bfloat16", tmp_path / "missing") == "bfloat16"


GIVEN_BACK = """
import ctypes, runpy, sys, threading
assert sys.argv[1] == "default" or runpy.run_path(sys.argv[2])["keep_freed_memory"]()
class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in "arena b c d e f g h i j".split()]
c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes, c.mallinfo.restype = ctypes.c_void_p, [ctypes.c_void_p], Counts
def run():
    tensors = [c.malloc(100_000) for _ in range(500)]
    before = c.mallinfo().arena
    for tensor in tensors:
        c.free(tensor)
    print(before - c.mallinfo().arena)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""
"""Bytes that glibc's heaps give back to the system when a thread frees 50 MB, as the threads of TensorFlow do."""


def test_freed_memory_is_kept_where_the_c_library_takes_the_wish(monkeypatch) -> None:
    if platform.libc_ver()[0] == "glibc":  # Linux; elsewhere only what follows is to be seen
        command = [sys.executable, "-c", GIVEN_BACK]
        default, kept = (
            int(subprocess.run([*command, how, processor.__file__], check=True, capture_output=True, text=True).stdout)
            for how in ("default", "kept")
        )
        assert default > 0 == kept
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # as musl and macOS, which have no such function
    assert not keep_freed_memory()
