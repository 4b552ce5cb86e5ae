"""`train` and what it leaves: the run directory, its history, the averaged weights, resuming, time limits."""

import csv
import json

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.models.config import Seq2SeqConfig
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.training import evaluate
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import BatchDataset, Encoded, make_batch
from keras_attention.training.data.tf_feed import feed
from keras_attention.training.loop.assemble import compile_model
from keras_attention.training.loop.checkpoints import load_checkpoint, save_checkpoint, state_variables
from keras_attention.training.loop.trainer import averages, copy_averages
from keras_attention.training.loop.validation import Evaluator
from keras_attention.translation.translator import Translator
from tests.support import toy
from tests.support.command import run_command
from tests.support.toy_run import train_toy


def history(run):
    with (run.path / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_the_run_directory_holds_what_it_promises(toy_run) -> None:
    names = {str(path.relative_to(toy_run.path)) for path in toy_run.path.rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "checkpoints/last.npz",
        "checkpoints/previous.npz",
        "config.json",
        "history.csv",
        "metrics.json",
        "model.keras",
        *(f"plots/attention-{number}.png" for number in range(1, 5)),
        "plots/curves.png",
        "references.txt",
        "samples.txt",
        "source.tok.json",
        "target.tok.json",
    }
    run = RunDirectory.open(toy_run.path)
    assert run.metadata["format_version"] == 1
    assert run.config.encoder_units == toy.MODEL["encoder_units"]
    assert run.config.source_vocabulary == run.source_tokenizer.vocabulary_size
    assert run.task == "exact"
    rows = history(run)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert rows[1]["val_perplexity"] == pytest.approx(np.exp(rows[1]["val_loss"]))
    for picture in run.path.glob("plots/*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_model_is_saved_uncompiled_with_the_averaged_weights(toy_run) -> None:
    run = RunDirectory.open(toy_run.path)
    loaded = keras.models.load_model(run.model_path)
    assert not loaded.compiled
    fresh = build_seq2seq(run.config)
    compile_model(fresh, TrainConfig.make(run.metadata["training"]["settings"]))
    progress = load_checkpoint(run.path / "checkpoints" / "last.npz", fresh)
    assert progress["plateau"]["best_epoch"] == 1
    for weight, average, plain in zip(
        loaded.trainable_variables, averages(fresh.optimizer), fresh.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(weight.numpy(), average.numpy())
        assert np.abs(weight.numpy() - plain.numpy()).max() > 0


def test_metrics_are_those_of_the_best_epoch_and_come_back_from_the_model(toy_run, toy_folder) -> None:
    metrics = json.loads((toy_run.path / "metrics.json").read_text())
    rows = history(toy_run)
    assert metrics["best"]["val_loss"] == rows[int(metrics["best"]["epoch"]) - 1]["val_loss"]
    result = evaluate(toy_run.path, source=toy_folder / "source.txt", target=toy_folder / "target.txt", beam_size=2)
    assert result["sentences"] == 97
    assert 0 <= result["exact_match"] <= 100


def test_the_model_card_shows_how_to_load(toy_run, monkeypatch) -> None:
    card = (toy_run.path / "README.md").read_text(encoding="utf-8")
    code = card.split("```python\n")[1].split("```")[0]
    assert "import keras_attention" in code
    monkeypatch.chdir(toy_run.path)
    exec(compile(code, "README.md", "exec"), {})


def test_the_loss_of_validation_is_weighted_by_tokens() -> None:
    config = Seq2SeqConfig(11, 13, embedding_size=3, encoder_units=2, decoder_units=4)
    model = build_seq2seq(config)
    generator = np.random.default_rng(0)
    rows = [generator.integers(4, 11, size=generator.integers(1, 9)).tolist() for _ in range(17)]
    data = Encoded(rows, rows[::-1])
    inputs, labels = make_batch(data.sources, data.targets)
    log_probs = keras.ops.convert_to_numpy(keras.ops.log_softmax(model(inputs, training=False)))
    chosen = np.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    # Float32 sums over batches.
    assert Evaluator(model, batch_size=5).loss(data) == pytest.approx(-chosen[labels != 0].mean(), rel=2e-6)


def test_greedy_outputs_come_in_the_order_of_the_sources(toy_run, toy_folder) -> None:
    run = RunDirectory.open(toy_run.path)
    words = ["fed", "a", "badcafe", "cc"]
    model = run.load_model()
    found = Evaluator(model, batch_size=3, max_length=20).greedy([run.source_tokenizer.encode(word) for word in words])
    translator = Translator.load(run)
    expected = [best[0].text for best in translator.translate(words, beam_size=1, max_length=20)]
    assert [run.target_tokenizer.decode(ids) for ids in found] == expected


def test_a_checkpoint_holds_every_variable(tmp_path, toy_run) -> None:
    settings = TrainConfig.make(toy.SETTINGS)
    keras.utils.set_random_seed(1)
    model = build_seq2seq(toy_run.config)
    compile_model(model, settings)
    seeds = [variable for variable in state_variables(model) if "seed" in variable.path]
    assert len(state_variables(model)) == len(model.variables) + len(model.optimizer.variables)
    assert seeds, "dropout's random state is part of the checkpoint"
    save_checkpoint(tmp_path / "c.npz", model, {"x": 1})
    other = build_seq2seq(toy_run.config)
    compile_model(other, settings)
    assert load_checkpoint(tmp_path / "c.npz", other) == {"x": 1}
    for one, another in zip(state_variables(model), state_variables(other), strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(another))


def test_a_damaged_checkpoint_is_named(tmp_path, toy_run) -> None:
    model = build_seq2seq(toy_run.config)
    compile_model(model, TrainConfig.make(toy.SETTINGS))
    content = (toy_run.path / "checkpoints" / "last.npz").read_bytes()
    for bad in (b"junk", content[: len(content) // 2]):
        (tmp_path / "last.npz").write_bytes(bad)
        with pytest.raises(UserError, match=r"last\.npz: damaged.*--overwrite"):
            load_checkpoint(tmp_path / "last.npz", model)


def test_without_averaging_the_plain_weights_are_kept(toy_run) -> None:
    model, twin = build_seq2seq(toy_run.config), build_seq2seq(toy_run.config)
    compile_model(model, TrainConfig.make({**toy.SETTINGS, "ema_momentum": 0.0}))
    assert averages(model.optimizer) == []
    copy_averages(model, twin)
    for one, other in zip(model.trainable_variables, twin.trainable_variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.slow
def test_a_finished_training_is_not_repeated_and_goes_on_with_more_epochs(
    toy_folder, toy_run, tmp_path, capsys
) -> None:
    part = train_toy(tmp_path / "part", toy_folder, epochs=1)
    modified = part.model_path.stat().st_mtime_ns
    train_toy(tmp_path / "part", toy_folder, epochs=1)
    assert part.model_path.stat().st_mtime_ns == modified
    train_toy(tmp_path / "part", toy_folder, epochs=2)
    assert "resuming after epoch 1" in capsys.readouterr().out
    for one, other in zip(history(toy_run), history(part), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)  # float32 sums in the same order


def test_other_choices_do_not_mix_with_a_run(toy_folder, toy_run) -> None:
    with pytest.raises(UserError, match=r"other choices \(batch_size: 16 there, 8 now\)\. .*--overwrite"):
        train_toy(toy_run.path, toy_folder, batch_size=8)
    with pytest.raises(
        UserError, match=r"other choices \(batch_size: 16 there, 8 now; decoder_units: 12 there, 7 now\)"
    ):
        train_toy(toy_run.path, toy_folder, batch_size=8, model={"decoder_units": 7})
    with pytest.raises(UserError, match=r"other choices \(decoder_units: 12 there, 5 now\)"):
        train_toy(toy_run.path, toy_folder, model={"decoder_units": 5})


@pytest.mark.slow
def test_time_is_up_in_the_middle_of_an_epoch(toy_folder, tmp_path, capsys) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=50, time_limit=1e-4)
    assert len(history(run)) == 1
    assert "finished: 0.0001 minutes used" in capsys.readouterr().out
    assert run.model_path.exists()
    assert json.loads((run.path / "metrics.json").read_text())["epochs"] == 1


@pytest.mark.slow
def test_the_plain_model_has_no_attention_to_show(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=1, model={"attention": "none"})
    assert run.config.attention == "none"
    assert not list(run.path.glob("plots/attention*"))
    done = run_command("attention", run.path, "abc", "--output", tmp_path / "x.png")
    assert done.status == 1
    assert "no attention to draw" in done.err
    done = run_command("translate", run.path, "--alignments", tmp_path / "a", stdin=b"abc\n")
    assert done.status == 1
    assert "no attention" in done.err


def test_fit_takes_batches_of_any_length_after_two_alike(toy_run) -> None:
    model = build_seq2seq(toy_run.config)
    compile_model(model, TrainConfig.make(toy.SETTINGS))
    rows = [[4] * 3] * 4 + [[4] * 13] * 2
    dataset = BatchDataset(Encoded(rows, rows), batch_size=2, seed=0)

    class Start(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None) -> None:
            dataset.start_epoch(epoch)

    model.fit(feed(dataset), epochs=2, shuffle=False, verbose=0, callbacks=[Start()])


@pytest.mark.slow
def test_a_text_of_one_batch_is_trained_on(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, batch_size=128)
    with (run.path / "history.csv").open(encoding="utf-8") as lines:
        losses = [float(line["loss"]) for line in csv.DictReader(lines)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
