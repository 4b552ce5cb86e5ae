"""Comparison of an artefact's tokens and values with those of Keras.

The float rule: a float32 artefact gives the same tokens as Keras, except in a sentence whose search came to a margin
below `tolerances.NEAR_TIE`: at some step between a kept and a dropped candidate, or at the end between neighbours of
the ranking. Such sentences are counted and shown; any other difference fails.
"""

from collections.abc import Mapping

import numpy as np

from .cases import Case
from .parity import Parity
from .tolerances import NEAR_TIE, SMALL_OUTPUT, Tolerance, tolerance


def described(value: np.ndarray | None) -> str:
    return "nothing" if value is None else f"{value.dtype} {value.shape}"


def compare_tokens(
    where: str, case: Case, outputs: Mapping[str, np.ndarray], parity: Parity, exact: bool = True
) -> np.ndarray:
    """Count equal sentences and near-ties; any other difference fails if tokens must be exact.

    Returns the rows whose tokens are equal.
    """
    assert case.margins is not None
    same = (outputs["ids"] == case.outputs["ids"]).all((1, 2)) & (outputs["lengths"] == case.outputs["lengths"]).all(1)
    near = case.margins < NEAR_TIE
    if case.counted:
        parity.sentences += len(same)
        parity.identical += int(same.sum())
        parity.near_ties += int((~same & near).sum())
    for row in np.flatnonzero(~same & ~near).tolist() if exact else ():
        parity.failures.append(
            f"{where}: tokens of row {row}, margin {case.margins[row]:.2g}. Expected: {best(case.outputs, row)}. "
            f"Received: {best(outputs, row)}"
        )
    return np.asarray(same)


def best(outputs: Mapping[str, np.ndarray], row: int) -> list[int]:
    return [int(i) for i in outputs["ids"][row, 0, : outputs["lengths"][row, 0]]]


def compare_values(
    where: str,
    graph: str,
    name: str,
    expected: np.ndarray,
    received: np.ndarray,
    parity: Parity,
    exact: bool = True,
    share: float | None = None,
) -> None:
    """Compare floats within their tolerance, infinities by position, and anything else exactly.

    If values need not be exact, it fails for a NaN and for an infinity in place of a number. With a given limit it also
    fails for a difference above that share of the largest number.
    """
    if not expected.size:
        return
    if expected.dtype.kind != "f":
        if exact and not np.array_equal(expected, received):
            parity.failures.append(f"{where}: {name}. Expected: the same values. Received: other ones")
        return
    finite = np.isfinite(expected)
    if not exact:
        if np.isnan(received).any():
            parity.failures.append(f"{where}: {name}. Expected: numbers. Received: NaN")
        elif np.isinf(received[finite]).any():
            parity.failures.append(f"{where}: {name}. Expected: finite numbers. Received: infinite ones")
        finite &= np.isfinite(received)
    elif not np.array_equal(finite, np.isfinite(received)) or not np.array_equal(expected[~finite], received[~finite]):
        parity.failures.append(f"{where}: {name}. Expected: the same finite values. Received: others, or NaN")
        return
    difference = np.abs(expected[finite].astype(np.float64) - received[finite].astype(np.float64))
    allowed: Tolerance = tolerance(graph, name)
    excess = difference - (allowed.absolute + allowed.relative * np.abs(expected[finite]))
    key = f"{graph}/{name}"
    largest = float(difference.max(initial=0.0))
    parity.largest_difference[key] = max(parity.largest_difference.get(key, 0.0), largest)
    if exact and excess.max(initial=-1.0) > 0:
        parity.failures.append(
            f"{where}: {name} differs by {largest:.3g}. Expected: at most {allowed.absolute:.1g} + "
            f"{allowed.relative:.1g} of the value ({allowed.reason})"
        )
    if share is not None and largest > share * np.abs(expected[finite]).max(initial=SMALL_OUTPUT):
        parity.failures.append(
            f"{where}: {name} differs by {largest:.3g}. Expected: at most {100 * share:g} % of the largest number: a "
            "lower precision costs less"
        )
