"""Pictures as PNG: attention heat maps and learning curves.

Needs matplotlib; draws without a display.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_attention.errors import UserError
from keras_attention.run_directory import write_atomically

DOTS_PER_INCH = 120


def attention_heat_map(
    path: str | pathlib.Path,
    alignment: npt.NDArray[np.float32],
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    title: str = "",
) -> None:
    """Write a heat map of an alignment `(T, S)` with its tokens on the axes: darker means more attention.

    Raises ValueError when the numbers of tokens do not fit the alignment; UserError when the file cannot be written.
    """
    if alignment.shape != (len(target_tokens), len(source_tokens)):
        raise ValueError(
            "The alignment does not fit its tokens. "
            f"Expected {(len(target_tokens), len(source_tokens))}. Received: {alignment.shape}"
        )
    width = max(4.0, 1.8 + 0.34 * len(source_tokens))
    height = max(3.0, 1.4 + 0.30 * len(target_tokens))
    figure, axes = _figure(width, height)
    image = axes.imshow(alignment, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(source_tokens)), [_visible(token) for token in source_tokens], rotation=90)
    axes.set_yticks(range(len(target_tokens)), [_visible(token) for token in target_tokens])
    axes.set_xlabel("source")
    axes.set_ylabel("output")
    if title:
        axes.set_title(title, fontsize=9)
    figure.colorbar(image, ax=axes, label="attention")
    _save(figure, path)


def rate_curve(path: str | pathlib.Path, rates: Sequence[float], losses: Sequence[float], suggestion: float) -> None:
    """Write the loss over the learning rate, on a logarithmic axis, with the suggested rate marked."""
    figure, axes = _figure(7.0, 4.0)
    axes.semilogx(rates, losses)
    axes.axvline(suggestion, color="tab:orange", linestyle="--", label=f"suggested: {suggestion:.1e}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("smoothed training loss")
    axes.legend()
    _save(figure, path)


def learning_curves(path: str | pathlib.Path, history: Sequence[Mapping[str, float]], monitor: str) -> None:
    """Write loss, validation loss and the watched score over epochs."""
    epochs = [row["epoch"] for row in history]
    figure, axes = _figure(7.0, 4.0)
    axes.plot(epochs, [row["loss"] for row in history], label="training loss", color="tab:blue")
    axes.plot(epochs, [row["val_loss"] for row in history], label="validation loss", color="tab:orange")
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy per token (nats)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    score = axes.twinx()
    score.plot(epochs, [row[f"val_{monitor}"] for row in history], label=f"validation {monitor}", color="tab:green")
    score.set_ylabel(f"{monitor} (%)" if monitor != "bleu" else "BLEU")
    lines = [*axes.get_lines(), *score.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="center right")
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
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png"))


def _visible(token: str) -> str:
    # "$" starts a formula in matplotlib.
    return ("\u2423" if token == " " else token).replace("$", r"\$")
