"""Quality loss of a lower precision: translations of the artefact and of Keras, by the score of the task."""

import dataclasses
from collections.abc import Sequence

from keras_attention.metrics.output_scores import HIGHER_IS_BETTER, TASK_METRIC, edit_distance, score_outputs

LOSS_LIMIT = 0.5
"""Points of the task's score (BLEU, WER or exact match, all in percent) that an artefact may lose by default."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A task: its score and the tolerated loss.

    Args:
        name: `"translation"` (BLEU), `"g2p"` (word error rate) or `"exact"` (exact match).
        tokenize: sacrebleu's tokenisation for BLEU.
        limit: points that may be lost.
    """

    name: str = "translation"
    tokenize: str = "none"
    limit: float = LOSS_LIMIT


@dataclasses.dataclass(frozen=True)
class Loss:
    """Comparison of an artefact's best translations with those of Keras.

    Attributes:
        sentences: number of translated sentences.
        same: number of sentences with the same best translation.
        token_agreement: 1 - edits / tokens, over the best translations of all sentences, in percent.
        metric: score of the task; empty without references.
        keras, artefact: the scores, in percent.
    """

    sentences: int
    same: int
    token_agreement: float
    metric: str = ""
    keras: float = 0.0
    artefact: float = 0.0

    @property
    def points(self) -> float:
        """Points that the artefact loses; negative if it is better."""
        lost = self.keras - self.artefact
        return lost if HIGHER_IS_BETTER.get(self.metric, True) else -lost

    def __str__(self) -> str:
        agreement = f"{self.same} of {self.sentences} translations and {self.token_agreement:.2f} % of tokens as Keras"
        if not self.metric:
            return agreement
        return f"{self.metric} {self.artefact:.2f}, Keras {self.keras:.2f}; {agreement}"


def measure(
    expected: Sequence[Sequence[int]],
    received: Sequence[Sequence[int]],
    texts: tuple[Sequence[str], Sequence[str]] | None,
    references: Sequence[Sequence[str]],
    task: Task,
) -> Loss:
    """Compare best translations, as ids, and with references as texts.

    Args:
        expected, received: ids of Keras and of the artefact.
        texts: the same as text; None without tokenizers.
        references: references of each sentence; none for no score.
        task: score of the texts.
    """
    edits = sum(edit_distance(one, other) for one, other in zip(expected, received, strict=True))
    agreement = 100.0 * max(1.0 - edits / max(sum(map(len, expected)), 1), 0.0)
    same = sum(list(one) == list(other) for one, other in zip(expected, received, strict=True))
    if texts is None or not references:
        return Loss(len(expected), same, agreement)
    metric = TASK_METRIC[task.name]
    scores = [score_outputs(task.name, outputs, references, task.tokenize)[metric] for outputs in texts]
    return Loss(len(expected), same, agreement, metric, *scores)
