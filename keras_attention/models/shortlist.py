"""Vocabulary shortlist: restriction of the output layer to candidate translations of the source tokens.

With a large vocabulary the product with the output layer dominates a step; with a shortlist it is computed for a few
hundred tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_attention.attention.choices import check_whole
from keras_attention.types import EOS_ID, PAD_ID, UNK_ID, Shape, Tensor

if TYPE_CHECKING:
    from keras_attention.models.config import Seq2SeqConfig

LOW = -1e9
"""A logit of zero probability."""
ABSENT = -100.0
"""Log-probability of a non-candidate: no search chooses it while there is another token, but a prefix may."""


@keras.saving.register_keras_serializable(package="keras_attention")
class VocabularyShortlist(keras.layers.Layer):
    """Candidates of a source: tokens that are always possible, and some for each source token.

        C(x) = A + T(x_1) + ... + T(x_S)

    (Jean et al. 2015, arXiv 1412.2007, section 3.3; L'Hostis, Grangier and Auli 2016, arXiv 1610.00072.) Tokens
    outside C(x) have the probability exp(-100). A new layer admits all tokens; `fill` sets A and T, which are
    non-trainable weights.

    Args:
        source_vocabulary, target_vocabulary: numbers of tokens.
        candidates: N, maximum size of each T.

    Call arguments:
        source: int32 `(B, S)`, right-padded with 0.

    Returns:
        bool `(B, V)`: the mask of candidates.

    Raises:
        ValueError: for `candidates` below 1.

    >>> shortlist = VocabularyShortlist(7, 9, candidates=2)
    >>> shortlist.fill([[2, 2], [2, 2], [2, 2], [2, 2], [4, 5], [5, 8], [6, 6]], always=[2, 3])
    >>> np.flatnonzero(ops.convert_to_numpy(shortlist(np.array([[4, 5, 2, 0]])))[0]).tolist()
    [2, 3, 4, 5, 8]
    """

    def __init__(self, source_vocabulary: int, target_vocabulary: int, candidates: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole(source_vocabulary=source_vocabulary, target_vocabulary=target_vocabulary, candidates=candidates)
        if candidates < 1:
            raise ValueError(f"Expected: candidates >= 1. Received: candidates={candidates}")
        self.source_vocabulary, self.target_vocabulary = source_vocabulary, target_vocabulary
        self.candidates = candidates
        shape, kind = (source_vocabulary, candidates), "int32"
        self.table = self.add_weight(shape=shape, initializer=_ends, dtype=kind, trainable=False, name="table")
        self.always = self.add_weight(
            shape=(target_vocabulary,), initializer="ones", dtype=kind, trainable=False, name="always"
        )
        self.built = True

    def build(self, source_shape: Shape) -> None:
        self.built = True

    def fill(self, table: npt.ArrayLike, always: npt.ArrayLike) -> None:
        """Set T `(source_vocabulary, N)` and A, a list of ids. EOS and the unknown id are always in A.

        The row of padding is ignored, so that the candidates do not depend on the padding.

        Raises:
            ValueError: for another shape, and ids outside the target vocabulary.
        """
        rows, ids = np.array(table, "int32"), np.asarray(always, "int64").reshape(-1)
        if rows.shape != tuple(self.table.shape):
            raise ValueError(f"Expected: a table {tuple(self.table.shape)}. Received: {rows.shape}")
        for name, values in (("table", rows), ("always", ids)):
            if values.size and not (values.min() >= 0 and values.max() < self.target_vocabulary):
                raise ValueError(
                    f"Expected: {name} of ids 0 to {self.target_vocabulary - 1}. "
                    f"Received: {values.min()} to {values.max()}"
                )
        mask = np.zeros((self.target_vocabulary,), "int32")
        mask[[*ids, EOS_ID, UNK_ID]] = 1
        rows[PAD_ID] = EOS_ID
        self.table.assign(rows)
        self.always.assign(mask)

    def call(self, source: Tensor) -> Tensor:
        source = ops.convert_to_tensor(source, dtype="int32")
        batch, length = ops.shape(source)
        words = ops.reshape(ops.take(self.table, source, axis=0), (batch, length * self.candidates))
        places = words + ops.expand_dims(ops.arange(batch) * self.target_vocabulary, 1)
        # Duplicates are written twice, or in TFLite summed: the value is above 0 in either case.
        counts = ops.scatter_update(
            ops.zeros((batch * self.target_vocabulary,), "int32"),
            ops.reshape(places, (batch * length * self.candidates, 1)),
            ops.ones((batch * length * self.candidates,), "int32"),
        )
        return ops.reshape(counts, (batch, self.target_vocabulary)) + self.always > 0

    def compute_output_spec(self, source: Any) -> keras.KerasTensor:
        return keras.KerasTensor((source.shape[0], self.target_vocabulary), dtype="bool")

    def get_config(self) -> dict[str, Any]:
        sizes = {"source_vocabulary": self.source_vocabulary, "target_vocabulary": self.target_vocabulary}
        return {**super().get_config(), **sizes, "candidates": self.candidates}


def _ends(shape: Shape, dtype: str | None = None) -> Tensor:
    return ops.full(shape, EOS_ID, dtype=dtype)


class Among(NamedTuple):
    """The part of an output layer for a batch's candidates, gathered once per search.

    Attributes:
        ids: int32 `(C,)`, the tokens that are a candidate in any row.
        rows: `(C, E)`, their rows of the transposed kernel; bias: `(C,)`.
        places: int32 `(V,)`: index of each token among C, which is C for all others.
    """

    ids: Tensor
    rows: Tensor
    bias: Tensor
    places: Tensor

    def log_probs(self, projected: Tensor, candidates: Tensor) -> Tensor:
        """Float32 log-probabilities `(B, V)` over each row's own candidates, bool `(B, V)`; ABSENT elsewhere."""
        own = ops.take(candidates, self.ids, axis=1)
        logits = ops.transpose(ops.matmul(self.rows, ops.transpose(projected))) + self.bias
        found = masked_log_softmax(ops.cast(logits, "float32"), own)
        # Tokens as rows, so that the gather copies contiguous memory.
        padded = ops.pad(ops.transpose(found), ((0, 1), (0, 0)), constant_values=ABSENT)
        return ops.transpose(ops.take(padded, self.places, axis=0))


def masked_log_softmax(logits: Tensor, candidates: Tensor) -> Tensor:
    """Log-softmax over the candidates; ABSENT elsewhere."""
    log_probs = ops.log_softmax(ops.where(candidates, logits, LOW), axis=-1)
    return ops.where(candidates, log_probs, ABSENT)


def among(candidates: Tensor, words: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Among:
    """Gather the `Among` of candidates, bool `(B, V)`.

    Args:
        candidates: candidates of each row.
        words: returns rows and bias of some ids `(C,)`.
    """
    mask = ops.any(candidates, axis=0)
    size = mask.shape[0]
    counts = ops.cumsum(ops.cast(mask, "int32"))
    # `nonzero`, which TFLite lacks for one axis: all other ids are written behind the end, and cut off.
    found = ops.scatter_update(
        ops.zeros((size + 1,), "int32"),
        ops.expand_dims(ops.where(mask, counts - 1, size), 1),
        ops.arange(size, dtype="int32"),
    )
    ids = found[: counts[-1]]
    return Among(ids, *words(ids), ops.where(mask, counts - 1, counts[-1]))


def check_shortlist(config: Seq2SeqConfig) -> None:
    """Raise ValueError for a config whose other fields do not allow its shortlist."""
    if config.shortlist is not None and (config.copy_words is not None or config.source_features is not None):
        raise ValueError(
            "A shortlist goes from words of the source to words of the vocabulary. Expected: copy_words=None and "
            f"source_features=None with it. Received: copy_words={config.copy_words}, "
            f"source_features={config.source_features}"
        )
