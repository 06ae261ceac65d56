"""How finely values are given: what is constant, and what single precision can tell apart."""

from __future__ import annotations

import numpy as np

_VISIBLE = 1e-4
"""Single precision may move values by this share of their range."""
_SMALLEST, _LARGEST = 1e-9, 1e9
"""Products of a few numbers between these bounds stay in the range of single precision."""


def compute_resolution(values: np.ndarray) -> float:
    """Return the size of the last digit of the largest of some values, shape (n,).

    It is that of float32 if every value is a float32 number, and that of float64 otherwise.
    """
    kind = np.float32 if np.array_equal(_round_to_single(values), values) else np.float64
    return float(np.finfo(kind).eps * np.abs(values).max(initial=0.0))


def is_constant(values: np.ndarray, weights: np.ndarray | None = None) -> bool:
    """Return whether values differ by no more than their last digit.

    Args:
        values: shape (n,).
        weights: shape (n,); values of weight zero do not count.

    >>> is_constant(1e9 + np.sin(np.arange(9.0)))
    False
    >>> is_constant(np.float32(1e9) + np.sin(np.arange(9, dtype=np.float32)))
    True
    """
    counted = values if weights is None else values[weights > 0]
    return len(counted) == 0 or float(np.ptp(counted)) <= compute_resolution(counted)


def fits_single(values: np.ndarray) -> bool:
    """Return whether a search may compute with these values, shape (n,), in single precision.

    >>> fits_single(np.arange(9.0)), fits_single(1e9 + np.arange(9.0)), fits_single(1e-30 * np.arange(9.0))
    (True, False, False)
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest and not _SMALLEST <= largest <= _LARGEST:
        return False
    moved = float(np.abs(_round_to_single(values) - values).max(initial=0.0))
    return moved <= _VISIBLE * float(np.ptp(values)) or is_constant(values)


def _round_to_single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)
