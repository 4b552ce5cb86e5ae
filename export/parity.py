"""What the comparison of one format with Keras came to."""

import dataclasses
from typing import Any

from .quality import Loss


@dataclasses.dataclass
class Parity:
    """What the comparison of one format came to."""

    format: str
    sentences: int = 0
    identical: int = 0
    near_ties: int = 0
    host_loop_sentences: int = 0
    host_loop_identical: int = 0
    loss: Loss | None = None
    texts: int = 0
    texts_identical: int = 0
    cases: int = 0
    largest_difference: dict[str, float] = dataclasses.field(default_factory=dict)
    operators: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
