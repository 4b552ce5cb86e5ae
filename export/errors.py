"""Export errors; each is a `UserError`, which the command line prints as one line."""

import collections
import contextlib
import errno
import pathlib
import re
from collections.abc import Iterator, Sequence

from keras_attention.errors import UserError


class ConversionError(UserError):
    """A converter that rejected the model, or crashed."""


NOT_EXPORTED = (
    "Nothing was written. Leave out what fails (--to, --precision, --text), or report the differences as a defect of "
    "keras-luong"
)
NOT_VERIFIED = "Copy the whole artefact again, or export again"


class VerificationError(UserError):
    """An artefact that differs from Keras, or from its manifest.

    `failures` lists every difference found, `places` counts them per graph; `advice` says what to do.
    """

    def __init__(self, failures: Sequence[str], advice: str = NOT_EXPORTED):
        self.failures, self.advice = list(failures), advice
        self.places = dict(collections.Counter(place(failure) for failure in self.failures).most_common())
        shown = "; ".join(self.failures[:SHOWN])
        more = f"; and {len(self.failures) - SHOWN} more" if len(self.failures) > SHOWN else ""
        counts = ", ".join(f"{name} {count}" for name, count in self.places.items())
        places = "1 place" if len(self.failures) == 1 else f"{len(self.failures)} places"
        super().__init__(f"Verification failed in {places} ({counts}): {shown}{more}. {advice}")


SHOWN = 5
"""Maximum number of differences in a message; all are in `failures`."""


def place(failure: str) -> str:
    """Return the words that a difference begins with: its format and its graph."""
    found = re.match(r"\w+(?: host loop| host part| text| \w+)?", failure)
    return found[0] if found else failure[:20]


@contextlib.contextmanager
def requirements() -> Iterator[None]:
    """Convert the error for a missing package to a `UserError` that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"Export needs {error.name}, which is not installed. Run: pip install 'keras-luong[export]'"
        ) from error


def is_disk_full(text_or_error: object) -> bool:
    """Return whether an error, or a process' message, says that the disk is full."""
    if isinstance(text_or_error, OSError) and text_or_error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(text_or_error) or "Disk quota exceeded" in str(text_or_error)


def disk_full(path: pathlib.Path) -> UserError:
    return UserError(f"{path}: the disk is full. Nothing was left there. Free some space and export again")
