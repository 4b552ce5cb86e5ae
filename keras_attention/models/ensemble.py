"""Ensembles of encoder-decoders."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_attention.models.searching import Searching
from keras_attention.search.contract import Step
from keras_attention.search.ensemble_step import combine, ensemble_step
from keras_attention.types import Tensor, TensorDict


class Ensemble(Searching):
    """Searches with several models of the same vocabularies: every step averages their predictions.

    Args:
        members: two or more `EncoderDecoder`.
        combination: mean of `"probabilities"` or of `"logits"`, see `ensemble_step`.

    Raises:
        ValueError: for no members, vocabularies of different sizes, or an unknown combination.
    """

    def __init__(self, members: Sequence[Any], combination: str = "probabilities") -> None:
        self.members = list(members)
        self.step = ensemble_step([member.step for member in self.members], combination)
        self.combination = combination
        sizes = [
            (member.source_features, member.config.source_vocabulary, member.config.output_vocabulary)
            for member in self.members
        ]
        if len(set(sizes)) > 1:
            raise ValueError(f"Expected: members of the same vocabularies. Received: sizes {sizes}")

    @property
    def config(self) -> Any:
        """Config of the first member; all members share its vocabularies."""
        return self.members[0].config

    @property
    def max_source_length(self) -> int | None:
        """Maximum source length that every member can read; None for no limit."""
        limits = [member.config.max_source_length for member in self.members]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def source_features(self) -> int | None:
        """Feature depth F, None for a source of tokens."""
        features: int | None = self.members[0].source_features
        return features

    @property
    def source_dtype(self) -> str:
        return str(self.members[0].source_dtype)

    @property
    def covers_source(self) -> bool:
        return all(member.covers_source for member in self.members)

    def encode(
        self, source: Tensor, recurrence: str = "layer", capacity: int = 100
    ) -> tuple[list[TensorDict], list[TensorDict]]:
        """Encode with all members; return their states and memories."""
        encoded = [member.encode(source, recurrence, capacity) for member in self.members]
        return [state for state, _ in encoded], [memory for _, memory in encoded]

    def stepper(self, memory: list[TensorDict]) -> Step:
        """Return `step` for a search through one memory, see `EncoderDecoder.stepper`."""
        steps = [member.stepper(own) for member, own in zip(self.members, memory, strict=True)]
        return ensemble_step(steps, self.combination)

    def log_probs(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Run the members' teacher-forced passes, combined: `(B, T, V)`, and the mean alignments `(B, T, S)`."""
        return combine([member.log_probs(source, target) for member in self.members], self.combination)

    def source_mask(self, memory: list[TensorDict]) -> Tensor:
        """Return the mask of the source tokens, bool `(B, S)`."""
        return self.members[0].source_mask(memory[0])

    def representation(self, state: list[TensorDict]) -> Tensor:
        """Concatenate the members' representations."""
        parts = [member.representation(own) for member, own in zip(self.members, state, strict=True)]
        return ops.concatenate(parts, axis=-1)
