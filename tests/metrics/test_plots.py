"""Pictures: which numbers are drawn where, read off the figures that are saved, and the files themselves."""

import pathlib
import warnings
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from keras_attention.metrics import plots

ALIGNMENT = np.array([[0.25, 0.5, 0.0], [0.125, 0.0, 0.375]], "float32")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every figure that is saved, on its way to its file."""
    seen: list[Any] = []
    save = plots._save

    def keep(figure: Any, path: Any) -> None:
        seen.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return seen


def test_a_heat_map_has_one_scale_for_all_alignments(figures: list[Any], tmp_path: pathlib.Path) -> None:
    plots.attention_heat_map(tmp_path / "map.png", ALIGNMENT, ["a", " ", "</s>"], ["$b$", "</s>"], "a $5$ b")
    axes = figures[0].axes[0]
    (image,) = axes.get_images()
    np.testing.assert_array_equal(image.get_array(), ALIGNMENT)
    assert image.get_clim() == (0.0, 1.0)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "\u2423", "</s>"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["$b$", "</s>"]
    assert figures[0].get_suptitle() == "a $5$ b"
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), *figures[0].texts]
    assert not any(text.get_parse_math() for text in texts)  # "$" is no formula
    assert [label.get_rotation() for label in axes.get_xticklabels()] == [0, 0, 90]
    assert matplotlib.image.imread(tmp_path / "map.png").ndim == 3
    with pytest.raises(ValueError, match=r"Expected \(2, 2\)\. Received: \(2, 3\)"):
        plots.attention_heat_map(tmp_path / "other.png", ALIGNMENT, ["a", "b"], ["c", "d"])
    assert not (tmp_path / "other.png").exists()


def test_marks_of_spaces_are_spaces_and_titles_fit(figures: list[Any], tmp_path: pathlib.Path) -> None:
    title = "a source text of many words " * 5 + "\n→ an output"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a character that no font has is no news for the user
        plots.attention_heat_map(
            tmp_path / "map.png", ALIGNMENT, ["\u2581a", "\u2581", "b"], ["\u2581日", "</s>"], title
        )
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [" a", "\u2423", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == [" 日", "</s>"]
    assert figures[0].get_suptitle().split() == title.split()
    (text,) = figures[0].texts
    box = text.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figures[0].bbox.width
    assert 0 <= box.y0 < box.y1 <= figures[0].bbox.height


def test_legends_cover_nothing(figures: list[Any], tmp_path: pathlib.Path) -> None:
    history = [{"epoch": epoch, "loss": 1.0 / epoch, "val_loss": 1.0, "val_bleu": 3.0 * epoch} for epoch in range(1, 9)]
    plots.learning_curves(tmp_path / "curves.png", history, "bleu")
    plots.learning_curves(tmp_path / "one.png", history[:1], "bleu")
    for figure in figures:
        (legend,) = figure.legends
        assert not any(legend.get_window_extent().overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert all(line.get_marker() == "." for axes in figures[1].axes for line in axes.get_lines())
    assert list(figures[1].axes[0].get_xticks()) == [1]


def test_each_curve_is_that_of_its_column(figures: list[Any], tmp_path: pathlib.Path) -> None:
    names = {"training loss": "loss", "validation loss": "val_loss", "validation word error rate": "val_wer"}
    history = [
        {"epoch": epoch, "loss": 3.0 / epoch, "val_loss": 2.0 + epoch, "val_wer": 10.0 * epoch} for epoch in (1, 2, 5)
    ]
    plots.learning_curves(tmp_path / "curves.png", history, "wer")
    lines = {line.get_label(): line for axes in figures[0].axes for line in axes.get_lines()}
    assert set(lines) == set(names)
    for label, column in names.items():
        np.testing.assert_array_equal(lines[label].get_xydata(), [[row["epoch"], row[column]] for row in history])
    assert [axes.get_ylabel() for axes in figures[0].axes] == ["cross-entropy per token (nats)", "word error rate (%)"]
