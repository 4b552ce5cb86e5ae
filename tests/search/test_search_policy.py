"""`SearchPolicy`: one declaration of every setting, from which options, artefacts and searches follow."""

import dataclasses
import pathlib

import pytest
import typer.main

from keras_attention import SearchPolicy, UserError
from keras_attention.cli import app
from keras_attention.models.searching import NUMBERS
from keras_attention.options import declared_options
from keras_attention.search_policy import METHODS, OWN
from keras_attention.translation.translator import Translator
from tests.support.command import run_command

COMMANDS = typer.main.get_command(app.app).commands
SETTINGS = {field.name: (field, declared) for field, declared, _ in declared_options(SearchPolicy)}


def test_every_field_is_an_option() -> None:
    assert [field.name for field in dataclasses.fields(SearchPolicy)] == list(SETTINGS)
    assert all(name in SETTINGS for name in OWN)
    assert set(NUMBERS) == set(METHODS)


@pytest.mark.once(reason="reads the options of the commands")
@pytest.mark.parametrize("command", ["translate", "attention", "evaluate", "compare", "synthesize", "export"])
def test_every_command_that_searches_has_every_setting(command: str) -> None:
    options = {one.name: one for one in COMMANDS[command].params}
    missing = set(SETTINGS) - set(options)
    assert missing == ({"seed"} if command == "export" else {"phrases"})
    for name in set(SETTINGS) - missing:
        field, declared = SETTINGS[name]
        assert options[name].default == field.default, name
        assert options[name].help.startswith(declared.help), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beam_size": 0}, "beam_size is out of range. Expected a whole number, 1 to 1000. Received: 0"),
        ({"beam_size": 5.0}, "beam_size is out of range"),
        ({"length_penalty": float("nan")}, "length_penalty is out of range"),
        (
            {"method": "votes"},
            "Unknown method. Expected one of beam, sample, contrastive, agreement",
        ),
        ({"stop": "never"}, "Unknown stop. Expected one of all, best"),
        ({"min_length": 9, "max_length": 8}, "min_length is out of range. Expected 0 to max_length=8. Received: 9"),
        ({"groups": 3}, "groups is out of range. Expected a divisor of the beam of 5"),
        ({"top_p": 0.0, "method": "sample"}, "top_p is out of range. Expected above 0, at most 1"),
        ({"phrases": (0, 2)}, "phrases is out of range"),
    ],
)
def test_values_that_no_search_has(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchPolicy(**settings)


OTHER = {"coverage_penalty": 0.2, "finished_first": True, "stop": "best", "groups": 5, "phrases": (1, 2)}
OTHER |= {"temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 1, "alpha": 0.1, "backward_weight": 0.1}


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_of_another_method(name: str) -> None:
    SearchPolicy(OWN[name], **{name: OTHER[name]})
    for method in set(METHODS) - {OWN[name]}:
        with pytest.raises(UserError, match=f"{name} is a setting of method '{OWN[name]}'"):
            SearchPolicy(method, **{name: OTHER[name]})


def test_settings_replace_those_of_a_policy() -> None:
    policy = SearchPolicy.of(SearchPolicy(beam_size=7, min_length=2), beam_size=3)
    assert (policy.beam_size, policy.min_length, policy.to_dict()) == (3, 2, {"beam_size": 3, "min_length": 2})
    assert SearchPolicy.of() == SearchPolicy()
    with pytest.raises(TypeError, match=r"Unknown search setting\. Expected: 'beam_size', the nearest name"):
        SearchPolicy.of(beam_sise=3)


@pytest.mark.parametrize(
    ("settings", "tokens", "limit"),
    [
        ({}, 7, 24),
        ({"max_length": 20}, 7, 20),
        ({"max_length_factor": None}, 7, 200),
        ({"max_length_offset": -50}, 7, 1),
    ],
)
def test_the_maximum_length_of_a_source(settings: dict, tokens: int, limit: int) -> None:
    assert SearchPolicy(**settings).limit(tokens) == limit


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (
            {"beam_size": 2, "length_penalty": 0.3, "max_length": 6},
            ["--beam=2", "--length-penalty=0.3", "--max-length=6"],
        ),
        ({"method": "sample", "seed": 4, "temperature": 2.0}, ["--method=sample", "--seed=4", "--temperature=2"]),
    ],
    ids=["beam", "sample"],
)
def test_the_command_line_searches_as_python_does(toy_run, settings: dict, options: list[str]) -> None:
    texts = ["abc", "fed", "bead"]
    found = Translator.load(toy_run.path).translate(texts, policy=SearchPolicy(**settings))
    done = run_command("translate", toy_run.path, "--scores", *options, stdin="\n".join(texts).encode() + b"\n")
    assert done.status == 0, done.err
    assert done.out.splitlines() == [f"{best.score:.6f}\t{best.text}" for best, *_ in found]


def settings_table() -> str:
    """The table of docs/search.md, made of the declarations."""
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for field, declared in SETTINGS.values():
        flag = declared.flag or f"--{field.name.replace('_', '-')}"
        default = declared.shown or (
            "none" if field.default is None else "off" if field.default is False else field.default
        )
        own = f" Method `{OWN[field.name]}` alone." if field.name in OWN else ""
        rows.append(f"| `{field.name}`, `{flag}` | {default} | {declared.help}{own} |")
    return "\n".join(rows)


def test_the_documentation_lists_every_setting() -> None:
    page = pathlib.Path(__file__).resolve().parents[2] / "docs" / "search.md"
    assert settings_table() in page.read_text(encoding="utf-8"), f"Expected in docs/search.md:\n{settings_table()}"
