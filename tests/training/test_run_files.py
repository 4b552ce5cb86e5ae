"""The files of a run belong together, and one command at a time writes them; text that teaches nothing is told."""

import json
import multiprocessing
import pathlib
import re
import shutil

import keras
import pytest

from keras_attention.errors import UserError
from keras_attention.folder_lock import locked
from keras_attention.run_directory import RunDirectory
from keras_attention.training.config import TrainConfig
from keras_attention.training.data.pairs import Pairs
from keras_attention.training.data.text_checks import require_two_files, warn_of_useless
from keras_attention.training.defaults import LARGE_MODEL, SMALL_MODEL, WARMUP, choose
from keras_attention.training.loop.checkpoints import find_checkpoints, load_checkpoint, save_checkpoint
from keras_attention.training.loop.history import read_history, write_history
from keras_attention.training.recipes import Splits
from tests.support.toy_run import edit_config, train_toy


@pytest.fixture
def copy(toy_run, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(toy_run.path, tmp_path / "run"))


def test_an_edited_config_is_told_and_taken_without_its_fingerprint(copy) -> None:
    metadata = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    metadata["training"]["settings"]["max_length"] = 7
    (copy / "config.json").write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json: was edited .* delete the entry fingerprint"):
        RunDirectory.open(copy)
    edit_config(copy, metadata)
    assert RunDirectory.open(copy).max_source_length == 7


def test_tokenizers_of_another_run_are_told(copy) -> None:
    path = copy / "source.tok.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["vocabulary"][4:6] = content["vocabulary"][5:3:-1]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"its weights mean other words\. Restore source\.tok\.json, .*entry fingerprint"
    ):
        RunDirectory.open(copy)


def test_the_model_of_another_run_is_told_and_can_be_taken_over(copy) -> None:
    run = RunDirectory.open(copy)
    model = run.load_model()
    model.save(run.model_path)  # as a stranger does: the id is gone
    with pytest.raises(UserError, match=r"model\.keras: is not the model that this run's training wrote.*save_model"):
        run.load_model()
    run.save_model(model)
    assert run.load_model().count_params() == model.count_params()


def test_a_run_without_a_fingerprint_loads(copy) -> None:
    metadata = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    for name in ("id", "files"):
        del metadata[name]
    edit_config(copy, metadata)
    run = RunDirectory.open(copy)
    run.load_model().save(run.model_path)
    assert RunDirectory.open(copy).load_model() is not None


@pytest.mark.parametrize("name", ["config.json", "source.tok.json"])
def test_json_that_is_nested_too_deeply_is_damaged(copy, name) -> None:
    """Python's parser gives up with an error that is no ValueError."""
    (copy / name).write_text('{"kind":' * 100_000, encoding="utf-8")
    with pytest.raises(UserError, match=f"{name}: damaged"):
        _ = RunDirectory.open(copy).source_tokenizer


def test_a_checkpoint_of_another_run_is_told(tmp_path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
    model.compile("adam")
    save_checkpoint(tmp_path / "last.npz", model, {"epoch": 1}, "one")
    assert load_checkpoint(tmp_path / "last.npz", model, "one") == {"epoch": 1}
    with pytest.raises(UserError, match=r"last\.npz: is of another run, so training cannot resume from it"):
        load_checkpoint(tmp_path / "last.npz", model, "other")


def test_a_row_that_a_kill_left_out_of_the_history_comes_back(copy, toy_folder) -> None:
    """The checkpoint is of the second epoch, history.csv of the first; the training is done."""
    path = copy / "history.csv"
    whole = path.read_text(encoding="utf-8")
    path.write_text("".join(whole.splitlines(keepends=True)[:2]), encoding="utf-8")
    train_toy(copy, toy_folder)
    assert path.read_text(encoding="utf-8") == whole


def test_rows_of_other_columns_make_one_history(tmp_path) -> None:
    rows = [{"epoch": 1.0, "loss": 2.0}, {"epoch": 2.0, "loss": 1.0, "val_smoothed_loss": 3.0}]
    write_history(tmp_path / "history.csv", rows)
    assert read_history(tmp_path / "history.csv") == rows


def hold(folder: str, held, leave) -> None:
    with locked(folder):
        held.set()
        leave.wait(60)


def test_a_folder_is_written_by_one_command_and_a_kill_lets_go_of_it(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    held, leave = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / "run"), held, leave))
    process.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=r"run: another command is writing there"), locked(tmp_path / "run"):
        pass
    process.kill()
    process.join()
    with locked(tmp_path / "run"):
        assert not list((tmp_path / "run").iterdir()), "no file is left"


def test_training_holds_its_run(copy, toy_folder) -> None:
    with locked(copy), pytest.raises(UserError, match="another command is writing there"):
        train_toy(copy, toy_folder)


def pairs(sources: list[str], targets: list[str]) -> Pairs:
    return Pairs(sources, [[target] for target in targets], [f"text:{n}" for n in range(len(sources))])


MANY = [f"word {number}" for number in range(60)]


@pytest.mark.parametrize(
    ("train", "held_out", "message"),
    [
        (pairs(MANY[:5], MANY[:5]), pairs(["x"], ["y"]), r"^5 pairs to train on: too few"),
        (pairs(MANY[:1], MANY[:1]), pairs(["x"], ["y"]), r"^1 pair to train on: too few"),
        (pairs(MANY, ["same"] * 60), pairs(["x"], ["y"]), r"^every target line .* is the same: 'same'"),
        (pairs(["same"] * 60, MANY), pairs(["x"], ["y"]), r"^every source line .* is the same: 'same'"),
        (pairs(MANY, MANY), pairs([*MANY, "x"], [*MANY, "y"]), r"^more validation text \(61 pairs\)"),
        (pairs(MANY, MANY), pairs(MANY, MANY), r"^the validation text is the training text"),
    ],
)
def test_text_that_teaches_nothing_is_told(train, held_out, message) -> None:
    said: list[str] = []
    warn_of_useless(Splits(train, held_out), said.append)
    assert len(said) == 1
    assert re.search(message, said[0])


def test_source_and_target_of_one_file_are_refused(tmp_path) -> None:
    (tmp_path / "text").write_text("a\n", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    with pytest.raises(UserError, match=r"--val-source and --val-target are one file"):
        require_two_files(tmp_path / "text", tmp_path / "link", "val-")


def chosen(count: int, **given) -> dict:
    lines = [f"a b c d e f g {number % 9}" for number in range(count)]
    return choose(pairs(lines, lines), TrainConfig(), given).all


def test_defaults_fit_the_text() -> None:
    little, some, much = chosen(300), chosen(3_000), chosen(300_000)
    assert [one["batch_size"] for one in (little, some, much)] == [16, 32, 64]
    assert little["vocabulary"] < some["vocabulary"] < much["vocabulary"] <= 8000
    assert {name: much[name] for name in ("epochs", "patience", "early_stopping_patience")} == {
        "epochs": 30, "patience": 2, "early_stopping_patience": 10,
    }  # fmt: skip
    assert little["epochs"] * -(-300 // little["batch_size"]) >= 4000, "updates enough to learn from"
    assert little["encoder_units"] == SMALL_MODEL["encoder_units"]
    assert much["encoder_units"] == LARGE_MODEL["encoder_units"]


def test_what_is_given_is_not_chosen_and_sizes_go_together() -> None:
    found = chosen(300, epochs=5, decoder_units=256)
    assert not {"epochs", "decoder_units"} & set(found)
    assert found["encoder_units"] == LARGE_MODEL["encoder_units"], "256 = 2 * 128, as some scores want it"


def test_a_model_without_recurrence_warms_up() -> None:
    assert chosen(3_000, cell="self_attention")["warmup"] == WARMUP
    assert "warmup" not in chosen(3_000, cell="lstm")
    assert "warmup" not in chosen(3_000, cell="self_attention", warmup=10)


def test_a_run_goes_on_with_what_was_chosen_for_it(toy_run) -> None:
    assert find_checkpoints(toy_run.path)
    recorded = RunDirectory.open(toy_run.path).metadata["training"]["chosen"]
    found = choose(pairs(MANY, MANY), TrainConfig(), {}, toy_run.path).all
    assert recorded
    assert {name: found[name] for name in recorded} == recorded
    again = choose(pairs(MANY, MANY), TrainConfig(), {"cell": "self_attention"}, toy_run.path).all
    assert again["warmup"] == 0, "it began before a warm-up was chosen"
