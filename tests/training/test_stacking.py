"""Several updates in one call: stacks hold every pair, and train as batch after batch does."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_attention import Seq2SeqConfig, build_seq2seq
from keras_attention.errors import UserError
from keras_attention.run_directory import RunDirectory
from keras_attention.training import train
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, Pairs
from keras_attention.training.data.stacks import StackedDataset, StackedSteps
from keras_attention.training.loop.history import read_history
from keras_attention.training.loop.trainer import Trainer, Validation
from keras_attention.training.losses.fused import fuse_loss
from keras_attention.types import EOS_ID
from tests.support.toy_run import train_toy

PAIRS, ROWS, HEIGHT, PASSES = 53, 4, 3, 2


@pytest.fixture
def encoded() -> Encoded:
    """Each source begins with a word of its own."""
    generator = np.random.default_rng(3)
    sources = [[100 + number, *generator.integers(4, 90, generator.integers(0, 9)).tolist()] for number in range(PAIRS)]
    return Encoded(sources, [generator.integers(4, 90, generator.integers(1, 12)).tolist() for _ in range(PAIRS)])


def stacked(encoded: Encoded, **options: Any) -> StackedDataset:
    inner = BatchDataset(encoded, ROWS, seed=5, row_multiple=ROWS, labels_as_input=True, **options)
    return StackedDataset(inner, HEIGHT, PASSES)


def test_an_epoch_holds_every_pair_once_for_each_pass(encoded) -> None:
    dataset = stacked(encoded)
    dataset.start_epoch(2)
    batches = -(-PAIRS // ROWS)
    assert len(dataset) == PASSES * -(-batches // HEIGHT)
    sources: list[list[int]] = []
    targets: list[list[int]] = []
    tokens = 0
    for index in range(len(dataset)):
        (stack,) = dataset[index]
        assert stack["source"].shape[:2] == stack["target"].shape[:2] == stack["labels"].shape[:2]
        assert stack["source"].shape[0] <= HEIGHT
        assert stack["source"].shape[1] == ROWS
        real = stack["labels"] != 0
        assert dataset.target_tokens(index) == real.sum()
        tokens += int(real.sum())
        for name, rows in (("source", sources), ("labels", targets)):
            rows += [[int(word) for word in row if word not in (0, EOS_ID)] for row in stack[name][real.any(2)]]
    assert sorted(sources) == sorted(encoded.sources * PASSES)
    assert sorted(targets) == sorted(encoded.targets * PASSES)
    assert tokens == PASSES * sum(len(row) + 1 for row in encoded.targets)


def test_stacks_are_a_function_of_seed_and_epoch(encoded) -> None:
    def epoch(dataset: StackedDataset, number: int) -> list[Any]:
        dataset.start_epoch(number)
        return [dataset[index][0] for index in range(len(dataset))]

    one = stacked(encoded)
    first, second, again = epoch(one, 0), epoch(one, 1), epoch(one, 0)
    for stack, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(stack["source"], same["source"])
    assert any(not np.array_equal(a["source"], b["source"]) for a, b in zip(first, second, strict=True))
    half = len(first) // PASSES  # the passes of an epoch differ, too
    assert any(not np.array_equal(a["source"], b["source"]) for a, b in zip(first[:half], first[half:], strict=True))


def test_no_pass_of_one_epoch_comes_again_in_the_next(encoded) -> None:
    dataset = stacked(encoded)
    passes = []
    for epoch in range(3):
        dataset.start_epoch(epoch)
        labels = [dataset[index][0]["labels"].tolist() for index in range(len(dataset))]
        half = len(labels) // PASSES
        passes += [labels[:half], labels[half:]]
    assert all(one != other for number, one in enumerate(passes) for other in passes[:number])


def test_what_stops_a_batch_stops_the_stack(encoded) -> None:
    def extra(*_: Any) -> dict[str, Any]:
        raise UserError("no")

    dataset = stacked(encoded, extra=extra)
    dataset.start_epoch(0)
    with pytest.raises(UserError, match="no"):
        dataset[0]


def test_a_stack_is_one_update_after_the_other(encoded) -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("the loop over a stack is JAX's")
    weights, losses = [], []
    for kind in (StackedSteps, keras.Model):
        keras.utils.set_random_seed(2)
        config = Seq2SeqConfig(
            200, 200, embedding_size=6, encoder_units=5, decoder_units=7, attention="general", dropout=0.4
        )
        model = build_seq2seq(config)
        fitted = fuse_loss(model, 0.1, kind=kind)
        fitted.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0))
        dataset = stacked(encoded)
        dataset.start_epoch(0)
        batches = [dataset[index][0] for index in range(len(dataset))]
        if kind is keras.Model:
            batches = [
                {name: rows[i] for name, rows in stack.items()}
                for stack in batches
                for i in range(len(stack["source"]))
            ]
        history = fitted.fit(Served(batches), shuffle=False, verbose=0).history
        weights.append([keras.ops.convert_to_numpy(variable) for variable in model.variables])
        losses.append(history["loss"][0])
    # Keras' running mean weighs each call alike: it is that of the batches, here.
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(*weights, strict=True):
        # The same dropout, too: its generator is part of the state. XLA may add up in another order inside a loop.
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


class Served(keras.utils.PyDataset):
    """Given batches."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__()
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return (self.batches[index],)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
@pytest.mark.parametrize(("height", "warmup"), [(3, 7), (16, 10), (4, 8)])
def test_the_rate_rises_by_updates_not_by_calls(encoded, toy_folder, tmp_path, schedule, height, warmup) -> None:
    """What a call begins with; and the whole rate once as many updates were made."""
    settings = TrainConfig(
        steps_per_execution=height,
        epochs_per_validation=PASSES,
        warmup=warmup,
        schedule=schedule,
        learning_rate=0.01,
        epochs=1000,
    )
    inner = BatchDataset(encoded, ROWS, seed=5, row_multiple=ROWS, labels_as_input=True)
    dataset = StackedDataset(inner, height, PASSES)
    validation = Validation(encoded, Pairs([], [], []), [], [])
    model = build_seq2seq(Seq2SeqConfig(200, 200, embedding_size=4, encoder_units=4, decoder_units=4))
    model.compile(optimizer="sgd")
    trainer = Trainer(RunDirectory(tmp_path, {}), settings, dataset, validation, model)
    trainer.set_model(model)
    updates, calls = PASSES * len(inner), len(dataset)
    assert dataset.updates == updates
    for epoch in range(3):
        trainer.progress.epoch = epoch
        for call in range(calls):
            trainer.on_train_batch_begin(call)
            done = round((epoch + call / calls) * updates)
            wanted = 0.01 * min(1.0, (done + 1) / warmup)
            # A cosine over 1000 epochs has fallen by 2.2e-5 after three of them.
            assert float(model.optimizer.learning_rate) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_fewer_pairs_than_a_stack_holds(encoded, count) -> None:
    dataset = StackedDataset(
        BatchDataset(Encoded(encoded.sources[:count], encoded.targets[:count]), ROWS, seed=5, row_multiple=ROWS), 16
    )
    dataset.start_epoch(0)
    assert len(dataset) == 1
    inputs, labels = dataset[0]
    assert inputs["source"].shape[:2] == labels.shape[:2] == (-(-count // ROWS), ROWS)
    assert (labels != 0).any(2).sum() == count


def test_an_epoch_that_was_cut_short_leaves_nothing_behind(encoded) -> None:
    """Stacks of the old epoch that the thread was at, or had ahead of it, are not served in the next."""
    cut, whole = stacked(encoded), stacked(encoded)
    cut.start_epoch(0)
    cut[0]
    for dataset in (cut, whole):
        dataset.start_epoch(1)
    for index in range(len(whole)):
        np.testing.assert_array_equal(cut[index][0]["labels"], whole[index][0]["labels"])


def test_a_training_in_stacks_resumes(toy_folder, tmp_path) -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("the loop over a stack is JAX's")
    options = {"steps_per_execution": 4, "epochs_per_validation": 2, "backward": 0.3, "warmup": 5}
    whole = train_toy(tmp_path / "whole", toy_folder, epochs=3, **options)
    train_toy(tmp_path / "parts", toy_folder, epochs=1, **options)
    parts = train_toy(tmp_path / "parts", toy_folder, epochs=3, **options)
    rows = [read_history(run.path / "history.csv") for run in (whole, parts)]
    assert len(rows[0]) == 3
    for one, other in zip(*rows, strict=True):
        for name in ("loss", "val_loss"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)  # float32 sums in the same order
    assert rows[0][-1]["loss"] < rows[0][0]["loss"]


def test_stacks_are_for_jax(toy_folder, tmp_path) -> None:
    if keras.backend.backend() == "jax":
        pytest.skip("this is JAX")
    with pytest.raises(UserError, match=r"Expected KERAS_BACKEND=jax\. Received: "):
        train_toy(tmp_path / "run", toy_folder, steps_per_execution=2)


OTHERS = [{"distribute": "data_parallel"}, {"accumulation": 2}, {"fused_loss": False}, {"scheduled_sampling": "word"}]


@pytest.mark.parametrize("others", OTHERS, ids=lambda one: next(iter(one)))
@pytest.mark.parametrize("name", ["steps_per_execution", "epochs_per_validation"])
def test_what_stacks_do_not_go_with(name, others) -> None:
    with pytest.raises(
        UserError, match="steps_per_execution and epochs_per_validation are for the fused loss on one device"
    ):
        TrainConfig(**{name: 2}, **others)


def test_words_to_copy_and_shards_do_not_go_with_stacks(toy_folder, tmp_path) -> None:
    if keras.backend.backend() != "jax":
        pytest.skip("the loop over a stack is JAX's")
    joint = {"joint": True, "source_tokenizer": "word", "target_tokenizer": "word", "model": {"copy_words": 5}}
    with pytest.raises(UserError, match=r"stacks of batches work on\. Expected none of them with copy_words"):
        train_toy(tmp_path / "run", toy_folder, steps_per_execution=2, **joint)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "one.tsv").write_text("ab\tba\n" * 20, encoding="utf-8")
    (tmp_path / "val.tsv").write_text("ab\tba\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"read text that is in memory\. Expected other text than --shards"):
        train(
            tmp_path / "run",
            shards=tmp_path / "shards",
            val_tsv=tmp_path / "val.tsv",
            epochs_per_validation=2,
            subword_alpha=0.0,
        )


@pytest.mark.parametrize("name", ["steps_per_execution", "epochs_per_validation"])
def test_at_least_one(name) -> None:
    with pytest.raises(UserError, match=f"{name} is out of range"):
        TrainConfig(**{name: 0})
