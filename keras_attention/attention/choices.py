"""Checks of an attention layer's arguments and their combinations."""

import numbers
from typing import Any

from keras_attention.attention.alignments import NORMALISERS

SCORES = (
    "dot",
    "scaled_dot",
    "general",
    "concat",
    "additive",
    "normalized_additive",
    "location",
    "cosine",
)
"""Values of `LuongAttention(score=...)`."""
SAME_DEPTH_SCORES = ("dot", "scaled_dot", "cosine")
ADDITIVE_SCORES = ("concat", "additive", "normalized_additive")
MONOTONIC = ("monotonic", "hard_monotonic")
ALIGNMENTS = (*NORMALISERS, *MONOTONIC)
"""Values of `LuongAttention(alignment=...)`."""
WINDOWS = ("local_m", "local_p")
"""Values of `LuongAttention(window=...)`, besides None."""
STYLES = ("luong", "bahdanau")
"""Values of `AttentionCell(style=...)`."""


def check_choices(score: str, window: str | None, alignment: str) -> None:
    """Raise ValueError for an unknown name."""
    if score not in SCORES:
        raise ValueError(f"Unknown attention score. Expected: one of {SCORES}. Received: score={score!r}")
    if window is not None and window not in WINDOWS:
        raise ValueError(f"Unknown attention window. Expected: None or one of {WINDOWS}. Received: window={window!r}")
    if alignment not in ALIGNMENTS:
        raise ValueError(f"Unknown alignment. Expected: one of {ALIGNMENTS}. Received: alignment={alignment!r}")


def check_score(score: str, units: int | None, max_source_length: int | None, use_scale: bool) -> None:
    """Raise ValueError for arguments that the score requires but lacks, or does not use."""
    check_whole(units=units, max_source_length=max_source_length)
    if (score == "location") != (max_source_length is not None):
        raise ValueError(
            "`max_source_length` belongs to score='location', which needs it. Expected: a positive int for 'location', "
            f"None for any other score. Received: score={score!r}, max_source_length={max_source_length}"
        )
    if max_source_length is not None and max_source_length < 1:
        raise ValueError(f"Expected: max_source_length >= 1. Received: max_source_length={max_source_length}")
    if units is not None and (score not in ADDITIVE_SCORES or units < 1):
        raise ValueError(
            f"`units` is the depth of the hidden layer that the scores {ADDITIVE_SCORES} have. Expected: a positive "
            f"int for one of them, None for any other score. Received: score={score!r}, units={units}"
        )
    if use_scale and score == "normalized_additive":
        raise ValueError(
            "score='normalized_additive' has a learned factor of its own. Expected: use_scale=False. "
            "Received: use_scale=True"
        )


def check_alignment(
    score: str, window: str | None, half_width: int, alignment: str, use_coverage: bool, sigmoid_noise: float
) -> None:
    """Raise ValueError for an invalid combination of window, alignment and coverage."""
    check_whole(half_width=half_width)
    check_kind("sigmoid_noise", sigmoid_noise, float)
    if half_width < 1:
        raise ValueError(
            "A window reaches `half_width` positions to either side of its centre. Expected: half_width >= 1. "
            f"Received: half_width={half_width}"
        )
    if alignment in MONOTONIC and (window is not None or use_coverage):
        raise ValueError(
            f"alignment={alignment!r} walks over the whole source by itself. Expected: window=None and "
            f"use_coverage=False. Received: window={window!r}, use_coverage={use_coverage}"
        )
    if sigmoid_noise < 0.0 or (sigmoid_noise > 0.0 and alignment != "monotonic"):
        raise ValueError(
            "`sigmoid_noise` is added to the energies of alignment='monotonic' in training. Expected: 0, or more for "
            f"that alignment. Received: sigmoid_noise={sigmoid_noise}, alignment={alignment!r}"
        )
    if use_coverage and score not in ADDITIVE_SCORES:
        raise ValueError(
            f"Coverage enters the hidden layer of an additive score. Expected: score in {ADDITIVE_SCORES} with "
            f"use_coverage=True. Received: score={score!r}"
        )


def check_cell(style: str, input_feeding: Any, attentional_size: int | None, kernel_options: dict[str, Any]) -> None:
    """Raise ValueError for an invalid combination of an attention cell's arguments."""
    if style not in STYLES:
        raise ValueError(f"Expected: style in {STYLES}. Received: style={style!r}")
    if style == "bahdanau" and input_feeding is False:
        raise ValueError(
            "In Bahdanau's style attention reaches the output through the cell's input alone. Expected: "
            "input_feeding=True, or a function. Received: input_feeding=False"
        )
    if not (isinstance(input_feeding, bool) or callable(input_feeding)):
        raise ValueError(f"Expected: input_feeding, True, False, or a function. Received: {input_feeding!r}")
    check_whole(attentional_size=attentional_size)
    if attentional_size is not None and attentional_size < 1:
        raise ValueError(f"Expected: attentional_size >= 1, or None. Received: {attentional_size=}")
    if attentional_size is None and kernel_options:
        raise ValueError(
            "An AttentionCell has the options of `W_c`, kernel of the attentional vector. Expected: attentional_size "
            f"set, or the options given to attention or recurrent cell. Received: {', '.join(kernel_options)}"
        )


def check_dropout(dropout: float, name: str = "dropout") -> None:
    """Raise ValueError unless the rate is at least 0 and below 1."""
    check_kind(name, dropout, float)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"Expected: 0 <= {name} < 1. Received: {name}={dropout}")


def check_whole(**numbers_by_name: Any) -> None:
    """Raise ValueError for numbers that are not integers; None stands for an omitted number."""
    for name, value in numbers_by_name.items():
        if value is not None:
            check_kind(name, value, int)


KERAS_NAMES = {
    "score_mode": "score='dot' or score='concat'",
    "key_dim": "head_size, the depth of a head",
    "value_dim": "head_size, which is the depth of values too",
    "use_bias": "no argument: projections have no bias",
    "attention_axes": "tensors of rank 3: reshape others before",
    "flash_attention": "no argument",
}
"""Arguments of `keras.layers.Attention` and `MultiHeadAttention`, each with its equivalent here."""


def check_names(owner: str, arguments: Any) -> None:
    """Raise ValueError for constructor arguments named as in Keras' own attention layers."""
    for name, instead in KERAS_NAMES.items():
        if name in arguments:
            raise ValueError(
                f"`{name}` is an argument of Keras' own attention layers. Expected: {owner} with {instead}. "
                f"Received: {name}={arguments[name]!r}"
            )


def check_call(owner: str, tensors: Any, named: Any) -> None:
    """Raise ValueError for a call in the style of `keras.layers.Attention`: a list of tensors, a list of masks."""
    first = tensors[0] if tensors else named.get("query")
    if isinstance(first, list | tuple):
        raise ValueError(
            f"{owner} takes its tensors one by one. Expected: layer(query, value), and key=layer.project_keys(key) for "
            f"keys that are not made of the values. Received: a {type(first).__name__} of {len(first)}"
        )
    if "mask" in named:
        raise ValueError(
            f"{owner} has a mask for each tensor. Expected: query_mask=..., value_mask=... in place of "
            f"mask=[query_mask, value_mask]. Received: mask={type(named['mask']).__name__}"
        )


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Raise ValueError unless `value` is an `int`, a `float` (an integer is accepted) or a `bool`, as `kind` says."""
    numeric = {int: numbers.Integral, float: numbers.Real}
    good = isinstance(value, bool) if kind is bool else isinstance(value, numeric[kind]) and not isinstance(value, bool)
    if not good:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"Expected: {name}, {expected}. Received: {name}={value!r}")
