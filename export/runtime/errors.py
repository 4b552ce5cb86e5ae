"""The errors of the runtime, and the two checks that several modules share."""

import importlib
from typing import Any

import numpy as np

WIDEST, MOST_THREADS = 1000, 256
"""The largest beam of the host loop, and the largest number of threads."""


class ArtefactError(Exception):
    """A mistake in the artefact or in a call; the message says what, where and what to do."""


class MissingPackageError(ArtefactError):
    """A package, or a module of this folder, that is not installed."""


def check_number(value: Any, what: str, low: int, high: int | None = None) -> None:
    """Raise unless `value` is a whole number from `low` to `high`.

    Raises:
        ArtefactError: that says what is out of range.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < low or (high is not None and value > high):
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        raise ArtefactError(f"The {what} is out of range. Expected: {expected}. Received: {value}")


def require(module: str, package: str) -> Any:
    """Import a module of a package that a device may lack.

    Raises:
        MissingPackageError: that says which package to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{package} is needed and cannot be imported ({error}). Run: pip install {package}"
        ) from None
