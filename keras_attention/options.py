"""Options: fields of dataclasses that know their choices, help and place on the command line.

One declaration serves Python, the command line, its help and the documentation. Ranges of numbers are those of
`keras_attention.ranges`, by the names of the fields.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from keras_attention.errors import UserError
from keras_attention.ranges import RANGES, described, is_within

KEY = "option"
"""Key of a field's metadata."""


@dataclasses.dataclass(frozen=True)
class Option:
    """Help and command-line form of an option.

    Args:
        help: one line, with the unit and the meaning of 0 or `None`.
        choices: allowed values of a string.
        panel: heading of its group in the help.
        flag: name on the command line; the field's name if empty.
        metavar: placeholder of its value.
        shown: default in words, where the value is not self-explanatory.
    """

    help: str
    choices: tuple[str, ...] = ()
    panel: str = "Options"
    flag: str = ""
    metavar: str | None = None
    shown: str | None = None


def option(default: Any, help: str, **more: Any) -> Any:
    """Declare a field of a dataclass as an option; `more` are arguments of `Option`."""
    return dataclasses.field(default=default, metadata={KEY: Option(help, **more)})


def declared_options(kind: type) -> Iterator[tuple[dataclasses.Field[Any], Option, Any]]:
    """Yield each option of a dataclass: its field, its declaration, and its type."""
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if KEY in field.metadata:
            yield field, field.metadata[KEY], types[field.name]


def check_options(instance: Any) -> None:
    """Check every value against the choices and the range of its option.

    Raises:
        UserError: for the first value that is neither a choice nor in range.
    """
    for field in dataclasses.fields(instance):
        if (declared := field.metadata.get(KEY)) is None:
            continue
        value = getattr(instance, field.name)
        if declared.choices and value not in declared.choices:
            raise UserError(f"Unknown {field.name}. Expected one of {', '.join(declared.choices)}. Received: {value!r}")
        if field.name in RANGES and value is not None and not is_within(value, *RANGES[field.name]):
            expected = described(*RANGES[field.name])
            raise UserError(f"{field.name} is out of range. Expected {expected}. Received: {value}")
