"""Errors that a user of the command line can cause and fix."""

import difflib
from collections.abc import Collection, Iterable


class UserError(Exception):
    """A user's mistake: the message says what is wrong, where, and what to do about it.

    The command line prints it as one line, without a traceback, and exits with status 1.
    """


def unknown_names(kind: str, unknown: Iterable[str], known: Collection[str]) -> str:
    """Return the message for unknown names: the nearest known ones, or all if a name has none near it.

    >>> unknown_names("field", ["decoder_unit"], ["decoder_units", "dropout"])
    "Unknown field. Expected: 'decoder_units', the nearest name. Received: 'decoder_unit'"
    """
    wrong = sorted(unknown)
    near = [match for name in wrong for match in difflib.get_close_matches(name, known, 1)]
    if len(near) == len(wrong):
        expected = f"{', '.join(map(repr, near))}, the nearest name{'s' * (len(near) > 1)}"
    else:
        expected = f"one of {', '.join(sorted(known))}"
    return f"Unknown {kind}. Expected: {expected}. Received: {', '.join(map(repr, wrong))}"
