"""Tolerances between an artefact and Keras, with their reasons. All are for float32."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """`|artefact - keras| <= absolute + relative * |keras|`, with the reason for these numbers."""

    absolute: float
    relative: float
    reason: str


NEAR_TIE = 1e-4
"""A sentence whose search margin is below this is a proven near-tie: there, and only there, tokens may differ.

Scores are sums of at most a few hundred float32 log-probabilities of size 1 to 10, each off by some 1e-6 between
implementations (another order of summation, another `exp`); 1e-4 is ten times what was seen, and a hundred times less
than what changes the quality of a translation.
"""

SCORE = Tolerance(
    NEAR_TIE / 2, 1e-5, "two searches whose scores differ by less than half a margin keep the same hypotheses"
)
LOG_PROBABILITY = Tolerance(
    NEAR_TIE / 2, 1e-5, "one step's share of a score: no larger than what the score itself may differ by"
)
ALIGNMENT = Tolerance(1e-5, 0.0, "weights in [0, 1] out of a softmax over scores that differ by some 1e-6")
STATE = Tolerance(1e-5, 1e-4, "sums of up to some thousand float32 products, through recurrences with a bounded output")
OUTPUT = Tolerance(
    1e-5, 1e-4, "a model of unknown depth: ten times what one matrix product in another order differs by"
)

LARGEST_SHARE = {"float16": 0.05}
"""Maximum difference of an output at each lower precision, as a share of the output's largest number.

Float16 rounds each weight to a share of 0.0005: in one call an output differs by that where sums do not cancel, and
by up to 100 times that where they do. A larger difference is not rounding but an overflow, or another graph. In int8 a
single large number coarsens the steps of all others, so that only the task's score shows the loss.
"""
SMALL_OUTPUT = 0.1
"""Lower bound of that largest number: where sums cancel, only rounding is left."""

_BY_NAME = {
    "scores": SCORE,
    "log_probs": LOG_PROBABILITY,
    "alignment": ALIGNMENT,
    "alignments": ALIGNMENT,
}


def tolerance(graph: str, output: str) -> Tolerance:
    """Return the tolerance of one output of a graph."""
    if graph == "call":
        return OUTPUT
    return _BY_NAME.get(output, STATE)
