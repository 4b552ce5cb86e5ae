"""Why an export stopped; each is a `UserError`, which the command line prints as one line."""

import contextlib
import errno
import pathlib
from collections.abc import Iterator, Sequence

from keras_attention.errors import UserError


class ConversionError(UserError):
    """A converter refused the model, or crashed."""


class VerificationError(UserError):
    """An artefact is not what Keras computes, or not what its manifest says.

    `failures` lists every difference found.
    """

    def __init__(self, failures: Sequence[str]):
        self.failures = list(failures)
        shown = "; ".join(self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        super().__init__(f"Verification failed in {len(self.failures)} place(s): {shown}{more}")


@contextlib.contextmanager
def requirements() -> Iterator[None]:
    """Turns a package that is not installed into a `UserError` that says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"Export needs {error.name}, which is not installed. Run: pip install 'keras-luong[export]'"
        ) from error


def is_disk_full(text_or_error: object) -> bool:
    """Whether an error, or what a process wrote about one, says that the disk is full."""
    if isinstance(text_or_error, OSError) and text_or_error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(text_or_error) or "Disk quota exceeded" in str(text_or_error)


def disk_full(path: pathlib.Path) -> UserError:
    return UserError(f"{path}: the disk is full. Nothing was left there. Free some space and export again")
