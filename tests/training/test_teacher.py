"""Learning from teachers: the loss against the formula, what a teacher says, and trainings that hear it."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import EncoderDecoder
from keras_attention.models.ensemble import Ensemble
from keras_attention.run_directory import RunDirectory
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded
from keras_attention.training.loop.history import read_history
from keras_attention.training.losses.distillation import CANDIDATES, Teacher
from keras_attention.training.losses.fused import FusedCrossEntropy
from tests.support import toy
from tests.support.command import run_command
from tests.support.gradients import gradients
from tests.support.parts import fast
from tests.support.toy_run import another_run, train_toy

WORDS, DEPTH, KEPT = 9, 5, 3
LABELS = np.asarray([[4, 8, 2, 0], [5, 2, 0, 0]], "int32")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def taught() -> tuple[np.ndarray, np.ndarray]:
    """Three words for each label, and their shares."""
    generator = np.random.default_rng(4)
    ids = np.stack([generator.permutation(WORDS)[:KEPT] for _ in range(LABELS.size)]).reshape(*LABELS.shape, KEPT)
    shares = generator.dirichlet(np.ones(KEPT), LABELS.shape).astype("float32")
    return ids.astype("int32"), shares


def numpy_loss(hidden, kernel, bias, weight: float, smoothing: float) -> float:
    """Every label's distribution written out, in float64."""
    hidden, kernel, bias = (np.asarray(value, "float64") for value in (hidden, kernel, bias))
    logits = hidden @ kernel + bias
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    ids, shares = taught()
    total = 0.0
    for place in np.argwhere(LABELS != 0):
        row, step = place
        wanted = np.full(WORDS, (1 - weight) * smoothing / WORDS)
        wanted[LABELS[row, step]] += (1 - weight) * (1 - smoothing)
        for word, share in zip(ids[row, step], shares[row, step], strict=True):
            wanted[word] += weight * share
        total -= float(wanted @ log_p[row, step])
    return total / int((LABELS != 0).sum())


@pytest.mark.parametrize(("weight", "smoothing"), [(0.5, 0.1), (1.0, 0.0), (0.8, 0.0)])
def test_the_loss_and_its_gradients_are_those_of_the_mixed_distributions(weight, smoothing) -> None:
    dense = keras.layers.Dense(WORDS)
    dense.build((None, None, DEPTH))
    values = [draw(*LABELS.shape, DEPTH), draw(DEPTH, WORDS, seed=1), draw(WORDS, seed=2)]
    head = FusedCrossEntropy(dense, smoothing, distillation=weight)

    def loss(hidden: Any) -> Any:
        return head.loss(hidden, ops.convert_to_tensor(LABELS), *map(ops.convert_to_tensor, taught()))

    dense.set_weights(values[1:])
    assert float(ops.convert_to_numpy(loss(ops.convert_to_tensor(values[0])))) == pytest.approx(
        numpy_loss(*values, weight, smoothing),
        rel=1e-5,  # float32 sums of few terms
    )
    (found,) = gradients(loss, values[:1])
    direction = draw(*values[0].shape, seed=7).astype("float64")
    sides = [numpy_loss(values[0] + sign * 1e-5 * direction, *values[1:], weight, smoothing) for sign in (1, -1)]
    # A float64 central difference is exact to about 1e-9; the gradient is float32.
    assert np.sum(found * direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4)


@pytest.fixture(scope="module")
def others(toy_run, tmp_path_factory) -> list[RunDirectory]:
    """Two runs of one vocabulary."""
    return [toy_run, another_run(toy_run, tmp_path_factory.mktemp("teachers") / "second")]


def pairs(run: RunDirectory) -> Encoded:
    text = ["abcd", "fade", "bad", "cab", "deaf"]
    return Encoded(
        [run.source_tokenizer.encode(one) for one in text], [run.target_tokenizer.encode(one[::-1]) for one in text]
    )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("keep", fast([True, False], True))
def test_a_teacher_says_what_its_models_find_likely(others, count, keep) -> None:
    data = pairs(others[0])
    dataset = BatchDataset(data, 3, seed=1)
    teacher = Teacher(others[:count], keep)
    members = [EncoderDecoder(run.load_model()) for run in others[:count]]
    net = members[0] if count == 1 else Ensemble(members)
    for epoch in (0, 1, 2):  # what was kept comes back in batches of other rows and lengths
        dataset.start_epoch(epoch)
        for index in range(len(dataset)):
            inputs, labels = dataset.batch(index)
            said = teacher(dataset, index, (inputs, labels))
            log_probs = ops.convert_to_numpy(net.log_probs(inputs["source"], inputs["target"])[0])
            for row, step in np.argwhere(labels != 0):
                ids, shares = said["teacher_ids"][row, step], said["teacher_shares"][row, step]
                order = np.argsort(-log_probs[row, step], kind="stable")[: min(CANDIDATES, log_probs.shape[-1])]
                assert set(ids) == set(order)
                expected = np.exp(log_probs[row, step][ids])
                # Kept in float16: 11 bits.
                np.testing.assert_allclose(shares, expected / expected.sum(), rtol=2e-3, atol=1e-6)


def test_a_teacher_is_asked_once_for_each_pair(others, monkeypatch) -> None:
    dataset = BatchDataset(pairs(others[0]), 3, seed=1)
    teacher = Teacher(others[:1], keep=True)
    for index in range(len(dataset)):
        teacher(dataset, index, dataset.batch(index))
    monkeypatch.setattr(teacher, "_model", None)
    dataset.start_epoch(1)
    for index in range(len(dataset)):
        teacher(dataset, index, dataset.batch(index))


def test_a_teacher_is_asked_about_new_pairs_alone(others) -> None:
    run, known = others[0], pairs(others[0])
    more = Encoded(
        [*known.sources, run.source_tokenizer.encode("ebb")], [*known.targets, run.target_tokenizer.encode("bbe")]
    )
    asked: list[int] = []

    class Counting(Teacher):
        def _ask(self, inputs):
            asked.append(len(inputs["source"]))
            return super()._ask(inputs)

    teacher = Counting(others[:1], keep=True)
    for data in (known, more):
        dataset = BatchDataset(data, 8, seed=1)
        teacher(dataset, 0, dataset.batch(0))
    assert asked == [6, 2]  # five and one, filled up to quarters


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_says(others, toy_folder, tmp_path) -> None:
    """With no weight on the labels, from labels that are all wrong, a student comes nearer to its teacher."""
    teacher = others[0]
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    source = (toy_folder / "source.txt").read_text(encoding="utf-8")
    (wrong / "source.txt").write_text(source, encoding="utf-8")
    (wrong / "target.txt").write_text("".join(f"{line[::-1]}\n" for line in source.split()), encoding="utf-8")
    options = {"teachers": [teacher.path], "distillation": 1.0, "start_from": teacher.path, "epochs": 2}
    student = train_toy(tmp_path / "student", wrong, **options, learning_rate=1e-3)
    data = pairs(teacher)
    inputs, labels = BatchDataset(data, 5, seed=1).batch(0)
    answers = [
        ops.convert_to_numpy(EncoderDecoder(run.load_model()).log_probs(inputs["source"], inputs["target"])[0])
        for run in (teacher, student, train_toy(tmp_path / "alone", wrong, start_from=teacher.path, epochs=2))
    ]
    divergence = [np.sum(np.exp(answers[0]) * (answers[0] - other), -1)[labels != 0].mean() for other in answers[1:]]
    assert divergence[0] < 0.5 * divergence[1]  # clearly nearer to the teacher than one that learnt without


@pytest.mark.slow
def test_a_training_with_teachers_resumes_and_knows_them(others, toy_folder, tmp_path) -> None:
    options = {"teachers": [run.path for run in others], "start_from": others[0].path}
    whole = train_toy(tmp_path / "whole", toy_folder, epochs=3, **options)
    train_toy(tmp_path / "parts", toy_folder, epochs=1, **options)
    parts = train_toy(tmp_path / "parts", toy_folder, epochs=3, **options)
    rows = [read_history(run.path / "history.csv") for run in (whole, parts)]
    for one, other in zip(*rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)  # float32 sums in the same order
    with pytest.raises(UserError, match="text"):
        train_toy(tmp_path / "parts", toy_folder, epochs=4, **{**options, "teachers": [others[0].path]})


def test_teachers_of_other_words(others, toy_folder, tmp_path) -> None:
    with pytest.raises(UserError, match=r"another source vocabulary than that of .* Expected runs that were trained"):
        train_toy(tmp_path / "run", toy_folder, source_tokenizer="word", teachers=[others[0].path])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backward": 0.5}, "A teacher writes in one direction alone"),
        ({"fused_loss": False}, "Teachers are part of the fused loss on one device"),
        ({"distribute": "mirrored"}, "Teachers are part of the fused loss on one device"),
        ({"distillation": 0.0}, "distillation is out of range. Expected above 0, at most 1"),
        ({"distillation": 1.5}, "distillation is out of range"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_teachers_do_not_go_with(others, toy_folder, tmp_path, changes, message) -> None:
    with pytest.raises(UserError, match=message):
        train_toy(tmp_path / "run", toy_folder, teachers=[others[0].path], start_from=others[0].path, **changes)


@pytest.mark.slow
def test_the_command_line(others, toy_folder, tmp_path) -> None:
    files = [f"--source={toy_folder / 'source.txt'}", f"--target={toy_folder / 'target.txt'}"]
    done = run_command("train", *files, "--output", tmp_path / "run", "--teacher", tmp_path / "none")
    assert done.status == 1
    assert "none" in done.err
    assert not (tmp_path / "run").exists()
    teacher = others[0].path
    taught = [f"--teacher={teacher}", f"--start-from={teacher}", "--distillation=0.9"]
    done = run_command("train", *files, *toy.OPTIONS, *taught, "--epochs=1", "--output", tmp_path / "run")
    assert done.status == 0, done.err
    assert RunDirectory.open(tmp_path / "run").metadata["training"]["settings"]["distillation"] == 0.9


def test_another_target_of_a_source_is_asked_about() -> None:
    model = build_seq2seq(Seq2SeqConfig(7, 11, embedding_size=3, encoder_units=3, decoder_units=5))
    run = type("Run", (), {"config": EncoderDecoder(model).config, "load_model": lambda self: model})()
    rows = [[5, 6, 9], [8, 5, 4], [5, 6, 9]]
    dataset = BatchDataset(Encoded([[4, 5]] * 3, rows), 3, seed=1)
    kept, asked = (Teacher([run], keep) for keep in (True, False))
    for epoch in (0, 1):
        dataset.start_epoch(epoch)
        said, wanted = (teacher(dataset, 0, dataset.batch(0)) for teacher in (kept, asked))
        np.testing.assert_array_equal(said["teacher_ids"], wanted["teacher_ids"])
        # Kept in float16: 11 bits.
        np.testing.assert_allclose(said["teacher_shares"], wanted["teacher_shares"], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(said["teacher_shares"].sum(-1), 1.0, rtol=2e-3)  # likewise


def test_more_words_than_the_vocabulary_has() -> None:
    model = build_seq2seq(Seq2SeqConfig(6, 5, embedding_size=3, encoder_units=3, decoder_units=3))
    run = type("Run", (), {"config": EncoderDecoder(model).config, "load_model": lambda self: model})()
    assert Teacher([run], keep=True).candidates == 5
    assert TrainConfig().distillation == 0.5
