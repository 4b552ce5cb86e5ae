"""The result of comparing one format with Keras."""

import dataclasses
from typing import Any

from ..formats.to_npu.micro import MicroRun
from ..formats.to_npu.vela import Placement
from .quality import Loss


@dataclasses.dataclass
class Parity:
    """The result of comparing one format."""

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
    placements: list[Placement] = dataclasses.field(default_factory=list)
    """Placements of the NPU format on each accelerator; empty if Vela is not installed."""
    micro: dict[str, MicroRun] = dataclasses.field(default_factory=dict)
    """Results of the NPU format's graphs in TensorFlow Lite Micro; empty if that is not installed."""
    largest_difference: dict[str, float] = dataclasses.field(default_factory=dict)
    operators: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    failures: list[str] = dataclasses.field(default_factory=list)
