"""Plots as PNG: attention heat maps and learning curves.

Needs matplotlib; draws without a display.
"""

from __future__ import annotations

import pathlib
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.files import write_atomically

DOTS_PER_INCH = 120
LETTERS_PER_INCH = 12
"""Greatest length of a title, at its font size of 9 points."""

FEW_EPOCHS = 30
SCORE_NAMES = {"bleu": "BLEU", "wer": "word error rate", "exact_match": "exact match"}
WORD_START = "\u2581"
"""sentencepiece's mark for a space."""

FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "Arial Unicode MS",
)
"""Matplotlib's default font, which covers most alphabets, and fallbacks for characters that it lacks."""


def attention_heat_map(
    path: str | pathlib.Path,
    alignment: npt.NDArray[np.float32],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    title: str = "",
) -> None:
    """Write a heat map of an alignment `(T, S)` with its tokens on the axes: darker means more attention.

    Single characters are upright, longer tokens rotated.

    Raises ValueError when the numbers of tokens do not fit the alignment; UserError when the file cannot be written.
    """
    if alignment.shape != (len(target_tokens), len(source_tokens)):
        raise ValueError(
            "The alignment does not fit its tokens. "
            f"Expected {(len(target_tokens), len(source_tokens))}. Received: {alignment.shape}"
        )
    width = max(4.0, 1.8 + 0.34 * len(source_tokens))
    lines = [piece for line in title.splitlines() for piece in textwrap.wrap(line, int(width * LETTERS_PER_INCH))]
    height = max(3.0, 1.4 + 0.30 * len(target_tokens)) + 0.15 * max(0, len(lines) - 1)
    figure, axes = _figure(width, height)
    image = axes.imshow(alignment, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    plain = {"parse_math": False}  # "$" starts a formula in matplotlib
    axes.set_xticks(range(len(source_tokens)), [visible(token) for token in source_tokens], **plain)
    axes.set_yticks(range(len(target_tokens)), [visible(token) for token in target_tokens], **plain)
    for label in axes.get_xticklabels():
        label.set_rotation(0 if len(label.get_text().strip()) <= 1 else 90)
    axes.set_xlabel("source")
    axes.set_ylabel("output")
    if lines:
        figure.suptitle("\n".join(lines), fontsize=9, **plain)
    figure.colorbar(image, ax=axes, label="attention")
    _save(figure, path)


def learning_curves(
    path: str | pathlib.Path,
    history: Sequence[Mapping[str, float]],
    monitor: str,
    loss_name: str = "training loss",
) -> None:
    """Plot loss, validation loss and the monitored metric over epochs.

    With label smoothing, both losses are against smoothed labels: `val_smoothed_loss` of each row. `loss_name`
    names the other terms of the training loss.
    """
    epochs = [row["epoch"] for row in history]
    smoothed = all("val_smoothed_loss" in row for row in history)
    name, kind = ("val_smoothed_loss", " (smoothed labels)") if smoothed else ("val_loss", "")
    figure, axes = _figure(7.0, 4.0)
    dots = {"marker": "."} if len(epochs) <= FEW_EPOCHS else {}  # a line of one point is invisible
    axes.plot(epochs, [row["loss"] for row in history], label=loss_name, color="tab:blue", **dots)
    axes.plot(epochs, [row[name] for row in history], label=f"validation loss{kind}", color="tab:orange", **dots)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy per token (nats)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    score = axes.twinx()
    name = SCORE_NAMES.get(monitor, monitor)
    values = [row[f"val_{monitor}"] for row in history]
    score.plot(epochs, values, label=f"validation {name}", color="tab:green", **dots)
    score.set_ylabel(name if monitor == "bleu" else f"{name} (%)")
    figure.legend(loc="outside upper center", ncols=3)
    _save(figure, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "Pictures need matplotlib, which is not installed. Install it: pip install 'keras-luong[train]'"
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, path: str | pathlib.Path) -> None:
    from matplotlib.font_manager import get_font_names
    from matplotlib.text import Text

    installed = set(get_font_names())
    for text in figure.findobj(Text):
        text.set_fontfamily([name for name in FONTS if name in installed])
    with warnings.catch_warnings():
        # Without a font for a script each character is a box, which the plot shows clearly enough.
        warnings.filterwarnings("ignore", message="Glyph")
        write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png"))


def visible(token: str) -> str:
    """Return a token as shown to readers: the word-start mark as a space, and a lone space as an open box."""
    text = token.replace(WORD_START, " ")
    return text if text.strip() else text.replace(" ", "\u2423")
