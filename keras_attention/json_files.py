"""JSON files that somebody may have edited, cut or replaced."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from keras_attention.errors import UserError


def read_json(path: str | pathlib.Path, remedy: str) -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        remedy: what to do about a damaged one, a sentence without its full stop.

    Raises:
        FileNotFoundError: for a missing file, of which each caller has more to say.
        UserError: for a file that cannot be read, is no JSON, or is nested too deeply.
    """
    path = pathlib.Path(path)
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: damaged. Expected JSON. Received: {error}. {remedy}") from error


def typed(content: Mapping[str, Any], name: str, kind: type, path: str | pathlib.Path, remedy: str) -> Any:
    """An entry of a JSON object. Raises UserError unless it is there and of that type."""
    value = content.get(name)
    if not isinstance(value, kind):
        expected = {"dict": "an object", "str": "a text", "list": "a list"}[kind.__name__]
        received = "nothing" if value is None else type(value).__name__
        raise UserError(f"{path}: damaged. Expected {expected} as {name}. Received: {received}. {remedy}")
    return value
