"""The command line: translate, evaluate, attention, train; what it prints and where."""

import dataclasses
import json
import re
import shlex

import numpy as np
import pytest
import typer.main

from keras_attention import Seq2SeqConfig
from keras_attention.attention.choices import SCORES
from keras_attention.cli import app as cli
from keras_attention.cli import train as cli_train
from keras_attention.errors import UserError
from keras_attention.metrics.output_scores import TASK_METRIC
from keras_attention.recurrent.lstm_kernel import PRODUCTS
from keras_attention.run_directory import RunDirectory
from keras_attention.search.beam import STOPS
from keras_attention.search_policy import LENGTH_PENALTIES
from keras_attention.text.tokenizers import KINDS
from keras_attention.training import evaluate
from keras_attention.training.config import TrainConfig
from keras_attention.training.hardware.devices import DISTRIBUTIONS
from keras_attention.training.loop.schedules import SCHEDULES
from keras_attention.training.losses.auxiliary import DECAYS, GUIDED_LOSSES, OWN_INPUTS
from keras_attention.training.recipes import RECIPES
from keras_attention.translation.translator import Translator
from tests.support import toy, warm
from tests.support.command import run_command

WORDS = ["fed", "a", "badcafe", "cc", "abcdef"]
STDIN = "".join(f"{word}\n" for word in WORDS).encode()


@pytest.fixture(scope="module")
def translator(toy_run) -> Translator:
    return Translator.load(toy_run.path)


def test_translate_writes_one_line_for_each_line(toy_run, translator) -> None:
    done = run_command("translate", toy_run.path, "--beam", "2", "--max-length", "11", stdin=STDIN)
    assert done.status == 0
    expected = [found[0].text for found in translator.translate(WORDS, beam_size=2, max_length=11)]
    assert done.out.splitlines() == expected


def test_n_best_lists_start_with_the_line_number_and_scores_fall(toy_run) -> None:
    done = run_command("translate", toy_run.path, "--beam=3", "--n-best=3", "--scores", "--max-length=7", stdin=STDIN)
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [int(line[0]) for line in lines] == [number for number in range(1, 6) for _ in range(3)]
    for number in range(1, 6):
        scores = [float(line[1]) for line in lines if int(line[0]) == number]
        assert scores == sorted(scores, reverse=True)


def test_alignments_are_json_lines_that_sum_to_one(toy_run, tmp_path) -> None:
    path = tmp_path / "alignments.jsonl"
    run_command("translate", toy_run.path, "--beam=1", "--max-length=5", "--alignments", path, stdin=STDIN)
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [entry["line"] for entry in entries] == [1, 2, 3, 4, 5]
    for entry, word in zip(entries, WORDS, strict=True):
        assert entry["source"] == [*word, "</s>"]
        weights = np.asarray(entry["alignment"])
        assert weights.shape == (len(entry["output"]), len(word) + 1)
        np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-4)  # six decimals are written


def test_lenient_translates_what_it_can_and_warns(toy_run) -> None:
    lines = b"abc\n\nab?\n" + b"a" * 30 + b"\n"
    done = run_command("translate", toy_run.path, "--beam=1", "--max-length=5", "--skip-errors", stdin=lines)
    assert done.status == 0
    outputs = done.out.split("\n")
    assert len(outputs) == 5
    assert outputs[1] == ""
    for message in ("stdin:2: empty line", "stdin:3: character '?' (U+003F) was never seen", "stdin:4: 30 tokens"):
        assert f"warning: {message}" in done.err


def test_the_last_line_of_evaluate_is_json(toy_run, toy_folder, tmp_path) -> None:
    files = ["--source", toy_folder / "source.txt", "--target", toy_folder / "target.txt"]
    options = ["--task=translation", "--tokenize=13a", "--by-length", "--output", tmp_path / "out.txt", "--beam=1"]
    done = run_command("evaluate", toy_run.path, *files, *options)
    result = json.loads(done.out.splitlines()[-1])
    assert done.status == 0
    assert result["sentences"] == 97
    assert {"bleu", "chrf", "exact_match", "sentences_per_second", "unfinished"} <= set(result)
    assert "tok:13a" in result["bleu_signature"]
    assert sum(group["sentences"] for group in result["by_length"]) == 97
    assert len((tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")) == 98


def test_evaluate_knows_several_references(toy_run, tmp_path) -> None:
    outputs = [found[0].text for found in Translator.load(toy_run.path).translate(WORDS, beam_size=1)]
    (tmp_path / "s").write_text("".join(f"{word}\n" for word in WORDS))
    (tmp_path / "wrong").write_text("x\n" * 5)
    (tmp_path / "right").write_text("".join(f"{text}\n" for text in outputs))
    targets = [tmp_path / "wrong", tmp_path / "right"]
    assert evaluate(toy_run.path, source=tmp_path / "s", target=targets, beam_size=1)["exact_match"] == 100
    assert evaluate(toy_run.path, source=tmp_path / "s", target=targets[0], beam_size=1)["exact_match"] == 0
    rows = "".join(f"{word}\t{text}\n{word}\tx\n" for word, text in zip(WORDS, outputs, strict=True))
    (tmp_path / "f.tsv").write_text(rows)
    scores = evaluate(toy_run.path, tsv=tmp_path / "f.tsv", task="g2p", beam_size=1)
    assert (scores["wer"], scores["per"]) == (0, 0)


def test_attention_draws_a_picture(toy_run, tmp_path) -> None:
    done = run_command("attention", toy_run.path, "fade", "--output", tmp_path / "map.png")
    assert done.status == 0
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_translations_do_not_depend_on_their_batch(translator) -> None:
    together = translator.translate(WORDS, beam_size=2, n_best=2, max_length=9)
    for word, found in zip(WORDS, together, strict=True):
        alone = translator.translate([word], beam_size=2, n_best=2, max_length=9)[0]
        assert [best.text for best in found] == [best.text for best in alone]
        # Float32 sums in another order.
        np.testing.assert_allclose([best.score for best in found], [best.score for best in alone], atol=1e-5)


def test_numbers_out_of_range_are_refused(translator) -> None:
    with pytest.raises(UserError, match="beam_size is out of range"):
        translator.translate(["a"], beam_size=0)
    with pytest.raises(UserError, match="Expected at most 2, the beam"):
        translator.translate(["a"], beam_size=2, n_best=3)
    with pytest.raises(UserError, match="Text 2 is empty"):
        translator.translate(["a", ""])


def test_train_reads_every_option(toy_folder, tmp_path) -> None:
    files = ["--source", toy_folder / "source.txt", "--target", toy_folder / "target.txt"]
    arguments = ["-m", "keras_attention.cli", "train", *files, "--output", tmp_path / "run"]
    done = warm.run(
        [*arguments, *toy.OPTIONS, "--epochs=1", "--attention=dot", "--seed=9"],
        capture_output=True,
        text=True,
        check=True,
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("epoch 1/1  loss ")]
    assert line.endswith(" tokens/s")
    assert len(line) <= 80
    assert "finished: 1 epoch done. Best validation exact match " in done.stdout
    run = RunDirectory.open(tmp_path / "run")
    assert run.config.attention == "dot"
    settings = run.metadata["training"]["settings"]
    assert {**toy.SETTINGS, "epochs": 1}.items() <= settings.items()
    assert settings["seed"] == 9


def test_fields_are_json_or_text() -> None:
    fields = cli_train.parse_fields(["a=1", "b=0.5", "c=true", "d=concat", "e=None", "f=False"])
    assert fields == {"a": 1, "b": 0.5, "c": True, "d": "concat", "e": None, "f": False}
    with pytest.raises(UserError, match="NAME=VALUE"):
        cli_train.parse_fields(["decoder_units"])


COMMANDS = typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_defaults_in_groups_and_an_example_uncut(command) -> None:
    done = run_command(command, "--help")
    assert (done.status, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "…" not in done.out
    text = " ".join(done.out.split())
    options = [one for one in COMMANDS[command].params if one.param_type_name == "option"]
    shown = [one for one in COMMANDS[command].params if not one.hidden]
    assert text.count("[default: ") + text.count("[required]") == len(shown)
    for group in {one.rich_help_panel or "Options" for one in options}:
        assert f"\n{group}:\n" in done.out
    example = done.out.partition("\nExample:\n")[2].replace("\\\n", " ")
    program, name, *arguments = shlex.split(example.partition("<")[0])
    assert (program, name) == ("keras-attention", command)
    COMMANDS[command].make_context(command, arguments)  # raises what the command line would print


def test_help_of_train_shows_the_defaults_of_settings() -> None:
    shown = {one.name: one.show_default for one in COMMANDS["train"].params}
    words = {"joint": "separate", "fused_loss": "fused-loss", "jit": "off", "tensorboard": "off"}
    described = {"source_tokenizer", "target_tokenizer", "vocabulary", "target_subword_alpha"}
    for field in dataclasses.fields(TrainConfig):
        if field.name not in described and field.default is not None:
            assert shown[field.name] == words.get(field.name, str(field.default)), field.name
    assert (shown["tokenizer"], shown["attention"]) == (TrainConfig().source_tokenizer, Seq2SeqConfig(5, 7).attention)


@pytest.mark.parametrize(
    ("command", "name", "choices"),
    [
        ("train", "recipe", tuple(RECIPES)),
        ("train", "attention", SCORES),
        ("train", "task", tuple(TASK_METRIC)),
        ("train", "tokenizer", KINDS),
        ("train", "schedule", SCHEDULES),
        ("train", "matmul_dtype", PRODUCTS),
        ("train", "distribute", DISTRIBUTIONS),
        ("train", "guided_loss", GUIDED_LOSSES),
        ("train", "scheduled_sampling", OWN_INPUTS),
        ("train", "scheduled_decay", DECAYS),
        ("translate", "length_penalty_kind", LENGTH_PENALTIES),
        ("export", "stop", STOPS),
    ],
)
def test_help_names_every_choice(command, name, choices) -> None:
    (parameter,) = [one for one in COMMANDS[command].params if one.name == name]
    assert set(choices) <= set(re.findall(r"\w+", parameter.help))


@pytest.mark.parametrize("command", [name for name, one in COMMANDS.items() if any(p.required for p in one.params)])
def test_a_command_alone_says_what_it_wants(command) -> None:
    done = run_command(command)
    assert done.status == 2
    assert f"Usage: keras-attention {command}" in done.err
    assert f"For example:\n\n  keras-attention {command} " in done.err


def test_no_command_is_help_and_a_mistyped_one_is_named() -> None:
    assert run_command() == run_command("--help")
    assert run_command().status == 0
    done = run_command("tranlsate", "run")
    assert (done.status, "Did you mean 'translate'?" in done.err) == (2, True)
    done = run_command("translate", "run", "--beem=3")
    assert (done.status, "--beam" in done.err) == (2, True)


def test_a_coverage_penalty_by_the_command_line(toy_run, toy_folder):
    files = [f"--{side}={toy_folder / f'{side}.txt'}" for side in ("source", "target")]
    done = run_command("evaluate", toy_run.path, *files, "--coverage-penalty=0.2", "--length-penalty=0.5")
    assert done.status == 0, done.err
    assert json.loads(done.out.splitlines()[-1])["search"] == {
        "beam_size": 5,
        "length_penalty": 0.5,
        "coverage_penalty": 0.2,
    }
