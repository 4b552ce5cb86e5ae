"""Lexical constraints: phrases that every hypothesis must contain."""

from typing import NamedTuple

from keras import ops

from keras_attention.search.contract import NEVER, top_k
from keras_attention.types import Tensor


class Phrases(NamedTuple):
    """Phrases that each row's hypotheses must contain, each as consecutive tokens, in any order.

    Progress is derived from the tokens themselves, so that no extra state is needed. An interrupted phrase counts for
    nothing, unless its end is again its beginning. Hypotheses compete only with those of equal progress. The K
    slots are dealt in turn to each level (Post and Vilar 2018, arXiv 1804.06609, section 3.2, dynamic beam
    allocation). A token is forbidden if the phrases missing after it would not fit below the maximum length, and EOS
    while any is missing. The room needed is counted without overlaps of phrases.


    Attributes:
        ids: int32 `(B, C, N)`, right-padded; a phrase of padding only is no constraint.
        pad_id: id of padding.
    """

    ids: Tensor
    pad_id: int

    @property
    def lengths(self) -> Tensor:
        """Lengths of the phrases, int32 `(B, 1, C)`."""
        return ops.expand_dims(ops.sum(ops.cast(ops.not_equal(self.ids, self.pad_id), "int32"), axis=2), 1)

    @property
    def total(self) -> Tensor:
        """Total number of phrase tokens, int32 `(B, 1)`."""
        return ops.sum(self.lengths, axis=2)

    def missing(self, history: Tensor) -> Tensor:
        """Return whether a phrase is not yet among the tokens `(B, K, L)`: bool `(B, K, C)`."""
        length, size = history.shape[2], self.ids.shape[2]
        is_pad = ops.equal(self.ids, self.pad_id)
        padded = ops.pad(history, ((0, 0), (0, 0), (0, size)), constant_values=self.pad_id)
        found = None
        for n in range(size):
            window = ops.expand_dims(padded[:, :, n : n + length], 2)  # (B, K, 1, L)
            word = ops.expand_dims(self.ids[:, :, n], (1, 3))  # (B, 1, C, 1)
            same = ops.logical_or(ops.equal(window, word), ops.expand_dims(is_pad[:, :, n], (1, 3)))
            found = same if found is None else ops.logical_and(found, same)
        there = ops.any(found, axis=3)
        return ops.logical_and(ops.logical_not(there), self.lengths > 0)

    def begun(self, history: Tensor, t: Tensor) -> Tensor:
        """Return whether the last j of t tokens are the first j of an incomplete phrase: bool `(B, K, C, N)`."""
        size = self.ids.shape[2]
        shape = ops.shape(history)
        flat = ops.reshape(history, (shape[0] * shape[1], shape[2]))
        matches = []
        for j in range(size):
            match = ops.cast(ops.expand_dims(ops.not_equal(self.ids[:, :, j], self.pad_id), 1), "bool")  # (B, 1, C)
            match = ops.logical_and(match, t >= j)
            for i in range(j):
                position = ops.maximum(t - j + i, 0)
                word = ops.reshape(ops.take(flat, position, axis=1), (shape[0], shape[1], 1))
                match = ops.logical_and(match, ops.equal(word, ops.expand_dims(self.ids[:, :, i], 1)))
            matches.append(ops.broadcast_to(match, (shape[0], shape[1], self.ids.shape[1])))
        return ops.stack(matches, axis=3)

    def progress(self, words: Tensor, missing: Tensor, begun: Tensor) -> Tensor:
        """Return how many phrase tokens are in place when `words` `(B, K, M)` come next: int32 `(B, K, M)`."""
        total = None
        for c in range(self.ids.shape[1]):
            best = ops.zeros_like(words)
            for j in range(self.ids.shape[2]):
                goes_on = ops.equal(words, ops.expand_dims(self.ids[:, c, j], (1, 2)))
                goes_on = ops.logical_and(goes_on, begun[:, :, c, j, None])
                best = ops.where(goes_on, j + 1, best)
            there = ops.where(missing[:, :, c, None], best, self.lengths[:, :, c, None])
            total = there if total is None else total + there
        return total

    def leave_room(self, progress: Tensor, words: Tensor, t: Tensor, limits: Tensor, eos_id: int) -> Tensor:
        """Return whether the missing phrases still fit after each token: bool `(B, K, M)`."""
        missing = ops.expand_dims(self.total, 2) - progress
        room = ops.where(ops.equal(words, eos_id), 0, ops.expand_dims(limits, (1, 2)) - (t + 1))
        return missing <= room

    def add_candidates(
        self, table: Tensor, values: Tensor, words: Tensor, missing: Tensor, begun: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Append the tokens that continue a phrase to the values and tokens `(B, K, M)`.

        `table`, `(B, K, V)`, holds the values of all tokens. Duplicates of a candidate get NEVER.
        """
        batch, beam_size, vocabulary = ops.shape(table)
        count = self.ids.shape[1] * self.ids.shape[2]
        more = ops.broadcast_to(ops.reshape(self.ids, (-1, 1, count)), (batch, beam_size, count))
        useful = ops.logical_and(begun, ops.expand_dims(missing, 3))
        useful = ops.reshape(useful, (batch, beam_size, count))
        there = ops.any(ops.equal(more[:, :, :, None], words[:, :, None, :]), axis=3)
        earlier = ops.arange(count)[:, None] > ops.arange(count)[None, :]
        twins = ops.logical_and(ops.equal(more[:, :, :, None], more[:, :, None, :]), earlier[None, None])
        there = ops.logical_or(there, ops.any(ops.logical_and(twins, useful[:, :, None, :]), axis=3))
        first = ops.reshape(ops.arange(batch * beam_size, dtype="int32") * vocabulary, (batch, beam_size, 1))
        found = ops.reshape(ops.take(ops.reshape(table, (-1,)), ops.reshape(first + more, (-1,))), ops.shape(more))
        found = ops.where(ops.logical_and(useful, ops.logical_not(there)), found, NEVER)
        return ops.concatenate([values, found], axis=2), ops.concatenate([words, more], axis=2)

    def choose(self, candidates: Tensor, progress: Tensor, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Choose K of the candidates `(B, W)`: the best of each level of progress, then the second best, and so on.

        Returns:
            Their scores `(B, K)`, best first, their positions, and the smallest gap `(B,)` between a kept and a
                dropped candidate of the same level.
        """
        scores, order = top_k(candidates, candidates.shape[1])  # a full sort
        batch, width = ops.shape(scores)
        first = ops.arange(batch, dtype="int32")[:, None] * width
        bank = ops.reshape(ops.take(ops.reshape(progress, (-1,)), ops.reshape(first + order, (-1,))), (batch, width))
        banks = self.ids.shape[1] * self.ids.shape[2] + 1
        member = ops.cast(ops.equal(ops.expand_dims(bank, 2), ops.arange(banks, dtype="int32")), "int32")
        possible = scores > NEVER / 2
        member = member * ops.cast(ops.expand_dims(possible, 2), "int32")
        rank = ops.sum(ops.cumsum(member, axis=1) * member, axis=2)
        turn = rank * banks + banks - bank
        turn = ops.where(possible, turn, banks * (width + 1) + ops.arange(width, dtype="int32"))
        _, taken = top_k(-ops.cast(turn, "float32"), beam_size)
        is_taken = ops.any(ops.equal(ops.expand_dims(taken, 2), ops.arange(width, dtype="int32")), axis=1)
        infinite = -NEVER
        column = ops.expand_dims(scores, 2)
        inside = ops.cast(member, "bool")
        kept = ops.where(ops.logical_and(inside, ops.expand_dims(is_taken, 2)), column, infinite)
        dropped = ops.where(ops.logical_and(inside, ops.logical_not(ops.expand_dims(is_taken, 2))), column, NEVER)
        kept, dropped = ops.min(kept, axis=1, initial=infinite), ops.max(dropped, axis=1, initial=NEVER)
        compared = ops.logical_and(kept < infinite / 2, dropped > NEVER / 2)
        gap = ops.min(ops.where(compared, kept - dropped, infinite), axis=1, initial=infinite)
        _, ascending = top_k(-ops.cast(taken, "float32"), beam_size)
        rows = ops.arange(batch, dtype="int32")[:, None] * beam_size
        taken = ops.reshape(
            ops.take(ops.reshape(taken, (-1,)), ops.reshape(rows + ascending, (-1,))), (batch, beam_size)
        )
        flat = ops.reshape(first + taken, (-1,))
        return (
            ops.reshape(ops.take(ops.reshape(scores, (-1,)), flat), (batch, beam_size)),
            ops.reshape(ops.take(ops.reshape(order, (-1,)), flat), (batch, beam_size)),
            gap,
        )
