"""The export formats, by name, alias and precision."""

from collections.abc import Sequence

from keras_attention.errors import UserError

from .base import Format
from .to_npu.format import Npu
from .to_onnx.format import Onnx
from .to_saved_model.format import SavedModel
from .to_tflite.format import TFLite

FORMATS: tuple[Format, ...] = (SavedModel(), TFLite(), Onnx(), Npu())
PRECISIONS = tuple(dict.fromkeys(precision for one in FORMATS for precision in one.precisions))


def names() -> list[str]:
    """Return the names of all formats."""
    return [one.name for one in FORMATS]


def by_name(name: str) -> Format:
    """Return the format of a name or an alias.

    Raises:
        UserError: for an unknown name.
    """
    for one in FORMATS:
        if name == one.name or name in one.aliases:
            return one
    aliases = [f"{alias} is {one.name}" for one in FORMATS for alias in one.aliases]
    raise UserError(
        f"Unknown export format. Expected: one or several of {', '.join(names())} ({', '.join(aliases)}). "
        f"Received: {name or 'none'}"
    )


def choose(to: str | Sequence[str] | None, precision: str | None = None) -> tuple[list[Format], str]:
    """Return the formats to export without repetition, and the precision of their files.

    Args:
        to: names or aliases; if `None`, all that support the precision, except those that must be requested.
        precision: precision of all files; the first one that every format supports if `None`.

    Raises:
        UserError: for an unknown format or precision, and a format that does not support the precision.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UserError(f"Unknown precision. Expected: one of {', '.join(PRECISIONS)}. Received: {precision!r}")
    if to is None:
        precision = precision or PRECISIONS[0]
        return [one for one in FORMATS if one.by_default and precision in one.precisions], precision
    asked = [to] if isinstance(to, str) else list(to)
    formats = list(dict.fromkeys(by_name(name) for name in asked or [""]))
    if precision is None:
        common = [one for one in PRECISIONS if all(one in format_.precisions for format_ in formats)]
        if not common:
            held = "; ".join(f"{one.name}: {', '.join(one.precisions)}" for one in formats)
            raise UserError(f"These formats have no precision in common. Expected: an export of each. Received: {held}")
        precision = common[0]
    for one in formats:
        if precision not in one.precisions:
            able = [other.name for other in FORMATS if precision in other.precisions]
            raise UserError(f"{one.name} cannot hold {precision}. Expected: --to {' '.join(able)}")
    return formats, precision
