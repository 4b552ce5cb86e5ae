"""The mean of several runs: its weights, what it keeps of the first run, and runs that have no mean."""

import json
import shutil

import keras
import numpy as np
import pytest

from keras_attention.errors import UserError
from keras_attention.models.encoder_decoder import build_seq2seq
from keras_attention.run_directory import RunDirectory
from keras_attention.text.tokenizers import CharacterTokenizer
from keras_attention.training import average
from keras_attention.training.average import last_model
from keras_attention.training.config import TrainConfig
from keras_attention.training.loop.assemble import compile_model
from keras_attention.training.loop.checkpoints import save_checkpoint
from keras_attention.training.loop.trainer import averages
from keras_attention.training.losses.fused import fuse_loss
from keras_attention.translation.translator import Translator
from tests.support.command import run_command
from tests.support.toy_run import edit_config, train_toy

SIDES = ("source", "target")


def numpy(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def changed_copy(run, folder, add: float):
    """A copy of `run` with `add` added to every weight."""
    shutil.copytree(run.path, folder)
    model = run.load_model()
    for variable in model.trainable_variables:
        variable.assign(variable + add)
    copy = RunDirectory.open(folder)
    copy.save_model(model)
    return copy


def test_weights_are_the_mean_and_the_rest_is_the_first_runs(toy_run, tmp_path) -> None:
    runs = [toy_run, changed_copy(toy_run, tmp_path / "a", 0.5), changed_copy(toy_run, tmp_path / "b", 1.0)]
    mean = average([run.path for run in runs], tmp_path / "mean")
    for one, first in zip(mean.load_model().trainable_variables, toy_run.load_model().trainable_variables, strict=True):
        # Each weight is rounded to float32 twice: when 0.5 is added, and as a mean.
        np.testing.assert_allclose(numpy(one), numpy(first) + 0.5, rtol=1e-6, atol=1e-6)
    again = RunDirectory.open(tmp_path / "mean")
    assert again.config == toy_run.config
    assert again.samples() == toy_run.samples()
    assert again.metadata["training"]["mean_of"] == [str(run.path) for run in runs]
    assert len(Translator.load(again).translate(["abc"])) == 1


def test_a_run_averaged_with_itself_is_itself(toy_run, tmp_path) -> None:
    mean = average([toy_run.path] * 3, tmp_path / "mean")
    texts = toy_run.samples()[:5]
    for one, other in zip(
        Translator.load(mean).translate(texts), Translator.load(toy_run).translate(texts), strict=True
    ):
        assert one[0].text == other[0].text
        # A mean of three equal float32 weights is rounded.
        assert one[0].score == pytest.approx(other[0].score, abs=1e-5)


@pytest.mark.slow
def test_the_weights_at_the_end_of_a_run(toy_folder, tmp_path) -> None:
    run = train_toy(tmp_path / "run", toy_folder, epochs=1, learning_rate=1e-2)
    best = [numpy(variable) for variable in run.load_model().trainable_variables]
    same = average([run.path], tmp_path / "one", last=True)
    for variable, expected in zip(same.load_model().trainable_variables, best, strict=True):
        np.testing.assert_array_equal(numpy(variable), expected)
    train_toy(run.path, toy_folder, epochs=2, learning_rate=1e-2)
    later = average([run.path, run.path], tmp_path / "two", last=True)
    changes = [
        np.abs(numpy(variable) - first).max()
        for variable, first in zip(later.load_model().trainable_variables, best, strict=True)
    ]
    assert max(changes) > 1e-3, "another epoch"  # Adam moves a weight by up to 1e-2 an update
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(UserError, match=r"last\.npz: no such file.*without --last the best model is taken"):
        average([run.path], tmp_path / "three", last=True)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False], ids=["fused loss", "stock loss"])
@pytest.mark.parametrize("ema_momentum", [0.9, 0.0], ids=["averages", "plain"])
def test_the_weights_at_the_end_are_those_of_the_newest_checkpoint(tmp_path, ema_momentum, fused) -> None:
    """The averages, where there are any, not the weights that were trained."""
    settings = TrainConfig(
        ema_momentum=ema_momentum, fused_loss=fused, source_tokenizer="char", target_tokenizer="char"
    )
    files = {f"{side}_tokenizer": CharacterTokenizer.train(["abc"]).save(tmp_path, side)[0] for side in SIDES}
    fields = {"source_vocabulary": 7, "target_vocabulary": 7, "embedding_size": 3, "encoder_units": 2, "dropout": 0.1}
    metadata = {"task": "exact", "model": fields, **files, "training": {"settings": settings.to_dict()}}
    run = RunDirectory.create(tmp_path, metadata)
    model = build_seq2seq(run.config)
    fitted = fuse_loss(model, settings.label_smoothing) if fused else model
    compile_model(fitted, settings)
    for epoch in (1, 2):
        for trained in fitted.trainable_variables:
            trained.assign(np.full(trained.shape, epoch, "float32"))
        for average_of_it in averages(fitted.optimizer):
            average_of_it.assign(np.full(average_of_it.shape, epoch / 8, "float32"))
        save_checkpoint(tmp_path / "checkpoints" / "last.npz", fitted, {"epoch": epoch})
    for variable in last_model(run).trainable_variables:
        np.testing.assert_array_equal(numpy(variable), np.full(variable.shape, 0.25 if ema_momentum else 2.0))


def test_runs_that_have_no_mean(toy_run, tmp_path) -> None:
    with pytest.raises(UserError, match=r"Expected two runs or more\. Received: 1"):
        average([toy_run.path], tmp_path / "mean")
    with pytest.raises(UserError, match=r"missing: no such run directory"):
        average([toy_run.path, tmp_path / "missing"], tmp_path / "mean")
    with pytest.raises(UserError, match=r"is there\. Expected a new or empty folder"):
        average([toy_run.path, toy_run.path], toy_run.path)
    other = changed_copy(toy_run, tmp_path / "other", 0.0)
    vocabulary = next(other.path.glob("target.tok.*"))
    content = json.loads(vocabulary.read_text(encoding="utf-8"))
    content["vocabulary"][-2:] = content["vocabulary"][:-3:-1]
    vocabulary.write_text(json.dumps(content), encoding="utf-8")
    edit_config(other.path, other.metadata)
    with pytest.raises(UserError, match="other: has vocabularies of another form"):
        average([toy_run.path, other.path], tmp_path / "mean")
    shutil.copy(next(toy_run.path.glob("target.tok.*")), vocabulary)
    metadata = {**other.metadata, "model": {**other.metadata["model"], "decoder_units": 13}}
    edit_config(other.path, metadata)
    with pytest.raises(UserError, match="other: has a model of another form"):
        average([toy_run.path, other.path], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_by_the_command_line(toy_run, tmp_path) -> None:
    done = run_command("average", toy_run.path, toy_run.path, "--output", tmp_path / "mean")
    assert done.status == 0, done.err
    assert "the mean of 2 runs" in done.out
    refused = run_command("average", toy_run.path, "--output", tmp_path / "other")
    assert refused.status == 1
    assert refused.err.splitlines()[-1].startswith("error: A mean is one of several")
