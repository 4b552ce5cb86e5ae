"""Metrics and formats of alignments: error rate, entropy, coverage, Pharaoh format."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_attention.errors import UserError
from keras_attention.types import Tensor


class _Ratio(keras.metrics.Metric):
    """A sum divided by a count."""

    def __init__(self, name: str, dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def add(self, total: Tensor, count: Tensor) -> None:
        self.total.assign_add(ops.cast(total, self.dtype))
        self.count.assign_add(ops.cast(count, self.dtype))

    def result(self) -> Tensor:
        return ops.divide_no_nan(self.total, self.count)


def _weights(mask: Tensor | None, like: Tensor) -> Tensor:
    return ops.ones(ops.shape(like), dtype="float32") if mask is None else ops.cast(mask, "float32")


@keras.saving.register_keras_serializable(package="keras_attention")
class AlignmentErrorRate(_Ratio):
    """Alignment error rate (Och and Ney 2003, section 3.1): 0 is perfect.

        AER = 1 - (|A and S| + |A and P|) / (|A| + |S|)

    A holds, for each real target token, the source position of its largest weight; S the sure links and P the
    possible ones, which include S.

    Call `update_state(alignments, sure, possible, target_mask)`: float `(B, T, S)`, bool `(B, T, S)` twice, and bool
    `(B, T)`, all tokens where it is `None`.
    """

    def __init__(self, name: str = "alignment_error_rate", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(
        self, alignments: Tensor, sure: Tensor, possible: Tensor | None = None, target_mask: Tensor | None = None
    ) -> None:
        alignments = ops.convert_to_tensor(alignments)
        sure = ops.cast(sure, "bool")
        possible = sure if possible is None else ops.logical_or(sure, ops.cast(possible, "bool"))
        real = _weights(target_mask, alignments[:, :, 0])
        best = ops.argmax(alignments, axis=-1)
        chosen = ops.equal(ops.expand_dims(best, 2), ops.arange(ops.shape(alignments)[2], dtype=best.dtype))
        chosen = ops.cast(chosen, "float32") * ops.expand_dims(real, 2)
        links = ops.cast(sure, "float32") * ops.expand_dims(real, 2)
        both = ops.sum(chosen * links) + ops.sum(chosen * ops.cast(possible, "float32"))
        count = ops.sum(chosen) + ops.sum(links)
        self.add(count - both, count)


@keras.saving.register_keras_serializable(package="keras_attention")
class AlignmentEntropy(_Ratio):
    """Mean entropy of the alignment of a real token, in nats: `-sum_s a_t(s) log a_t(s)`; 0 for a one-hot alignment.

    Call `update_state(alignments, target_mask)`: float `(B, T, S)` and bool `(B, T)`, all tokens where it is `None`.
    """

    def __init__(self, name: str = "alignment_entropy", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(self, alignments: Tensor, target_mask: Tensor | None = None) -> None:
        a = ops.cast(alignments, "float32")
        entropy = -ops.sum(a * ops.log(ops.maximum(a, 1e-30)), axis=-1)
        real = _weights(target_mask, entropy)
        self.add(ops.sum(entropy * real), ops.sum(real))


@keras.saving.register_keras_serializable(package="keras_attention")
class SourceCoverage(_Ratio):
    """Mean coverage of a real source token: `min(sum_t a_t(s), 1)`; 1 where every one received full attention.

    Call `update_state(alignments, source_mask, target_mask)`: float `(B, T, S)`, bool `(B, S)` and `(B, T)`, all tokens
    where they are `None`.
    """

    def __init__(self, name: str = "source_coverage", dtype: str | None = None) -> None:
        super().__init__(name, dtype)

    def update_state(
        self, alignments: Tensor, source_mask: Tensor | None = None, target_mask: Tensor | None = None
    ) -> None:
        a = ops.cast(alignments, "float32")
        a = a * ops.expand_dims(_weights(target_mask, a[:, :, 0]), 2)
        covered = ops.minimum(ops.sum(a, axis=1), 1.0)
        real = _weights(source_mask, covered)
        self.add(ops.sum(covered * real), ops.sum(real))


def parse_pharaoh(line: str) -> list[tuple[int, int]]:
    """Parse a line of links such as `"0-0 1-2"`, source-target, from 0.

    >>> parse_pharaoh("0-0 2-1")
    [(0, 0), (2, 1)]

    Raises:
        UserError: for anything that is not a link.
    """
    links = []
    for part in line.split():
        source, dash, target = part.partition("-")
        if not (dash and source.isdecimal() and target.isdecimal()):
            raise UserError(f"Expected links such as 0-0 1-2, source-target. Received: {part!r}")
        links.append((int(source), int(target)))
    return links


def format_pharaoh(links: Iterable[tuple[int, int]]) -> str:
    """Format links as a sorted line. The inverse of `parse_pharaoh`.

    >>> format_pharaoh([(2, 1), (0, 0)])
    '0-0 2-1'
    """
    return " ".join(f"{source}-{target}" for source, target in sorted(links))


def best_links(
    alignment: npt.NDArray[np.float32],
    source_words: npt.NDArray[np.int64] | None = None,
    target_words: npt.NDArray[np.int64] | None = None,
) -> list[tuple[int, int]]:
    """Return the most attended source word of each target word, as links (source, target).

    Args:
        alignment: float `(T, S)`.
        source_words: int `(S,)`, the index of the word that each position is part of, -1 where there is none (EOS);
        positions themselves if `None`. The weights of a source word's parts are summed.
        target_words: int `(T,)`, the same for the target; the weights of its parts are summed, too.

    Example:
    >>> best_links(np.array([[0.6, 0.4, 0.0], [0.1, 0.2, 0.7]]), np.array([0, 1, 1]))
    [(0, 0), (1, 1)]
    """
    steps, positions = alignment.shape
    source = np.arange(positions) if source_words is None else np.asarray(source_words)
    target = np.arange(steps) if target_words is None else np.asarray(target_words)
    if source.shape != (positions,) or target.shape != (steps,):
        raise ValueError(
            f"Expected: source_words ({positions},) and target_words ({steps},). "
            f"Received: {source.shape} and {target.shape}"
        )
    words = np.zeros((target.max(initial=-1) + 1, source.max(initial=-1) + 1))
    if not words.size:
        return []
    rows, columns = np.flatnonzero(target >= 0), np.flatnonzero(source >= 0)
    np.add.at(words, (target[rows][:, None], source[columns][None, :]), alignment[np.ix_(rows, columns)])
    return [(int(np.argmax(row)), number) for number, row in enumerate(words) if row.any()]
