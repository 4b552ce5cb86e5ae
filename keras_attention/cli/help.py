"""The help of a command: options in groups, each with its default, and an example at the end."""

from __future__ import annotations

import functools
import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from keras_attention.cli.process import run_command

MAIN = "Options"
"""The group of options that name none."""

NO_BREAK = "\xa0"
"""A blank at which no line ends."""

COMPUTED = re.compile(r"(?<=default: )\((.*?)\)(?=[;\]])")
"""A default that is given as text, which Typer puts into parentheses."""


def option(help: str, *flags: str, panel: str = MAIN, default: str | None = None, metavar: str | None = None) -> Any:
    """An option of a command.

    Args:
        help: what it does.
        *flags: its names, where they are not that of the parameter.
        panel: heading of its group.
        default: what is taken if it is not given, where the parameter's own default does not say.
        metavar: what stands for its value.
    """
    shown: bool | str = True if default is None else default
    return typer.Option(*flags, help=help, rich_help_panel=panel, show_default=shown, metavar=metavar)


def options_of(panel: str) -> Any:
    """`option` for a group."""
    return functools.partial(option, panel=panel)


class Command(TyperCommand):
    """A command whose `epilog` is an example: lines that may be typed as they are."""

    hint = ""
    """A hint that is printed after an interruption."""

    def invoke(self, ctx: Any) -> Any:
        return run_command(functools.partial(super().invoke, ctx), self.hint)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        needed = [parameter for parameter in self.params if parameter.required]
        if needed and not args and not ctx.resilient_parsing:
            names = " and ".join(
                parameter.opts[0] if is_option(parameter) else str(parameter.metavar) for parameter in needed
            )
            ctx.fail(f"Expected {names}. For example:\n\n{indented(self.epilog)}")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name = (getattr(parameter, "rich_help_panel", None) or MAIN) if is_option(parameter) else "Arguments"
                groups.setdefault(name, []).append((record[0], with_default(parameter, record[1])))
        for name, rows in groups.items():
            with formatter.section(name):
                formatter.write_dl(rows)

    def get_help(self, ctx: Any) -> str:
        return super().get_help(ctx).replace(NO_BREAK, " ")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Example"):
            formatter.write(f"{indented(self.epilog)}\n")


class ResumedCommand(Command):
    """A command that goes on where it was, if it is started again."""

    hint = ": the same command goes on where it was"


class Group(TyperGroup):
    """All commands, with their first lines uncut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, (command.help or "").partition("\n")[0]) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Example"):
            formatter.write(f"{indented(self.epilog)}\n")


def is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def with_default(parameter: Any, text: str) -> str:
    """The help of a parameter, ending with its default."""
    text = COMPUTED.sub(r"\1", text)
    if "[default: " not in text and not parameter.required and parameter.name != "help":
        text += f"  [default: {'off' if getattr(parameter, 'is_flag', False) else 'none'}]"
    return text.replace("default: ", f"default:{NO_BREAK}")


def indented(example: str | None) -> str:
    return "\n".join(f"  {line}" for line in (example or "").splitlines())
