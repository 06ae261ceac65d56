"""Scales of the inputs: a search computes with numbers near one, whatever the units of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symtorch_core.expressions import Call, Constant, Expression, Variable, simplify, substitute

_ORDINARY = 100.0
"""Inputs between this size and its inverse keep their units, so that sums of them need no constants."""
_ALIKE = 10.0
"""Inputs whose sizes differ by no more than this factor get one scale, for the same reason."""


def choose_scales(X: np.ndarray) -> np.ndarray:
    """Return the numbers, powers of two, by which the columns of inputs (n, d) are divided in a search, shape (d,).

    The size of an input is the median of its absolute values, zeros left out. Inputs of like sizes have one scale.

    >>> np.log2(choose_scales(np.array([[3.0, 2e30, 5e30, 8e-9], [2.0, 1e30, 0.0, -7e-9]])))
    array([  0., 101., 101., -27.])
    """
    sizes = np.array([_measure_size(column) for column in X.T])
    scales = np.ones(len(sizes))
    order = np.argsort(sizes, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(np.log10(sizes[order])) > np.log10(_ALIKE)) + 1)
    for group in groups:
        middle = np.exp2(np.round(np.log2(sizes[group]).mean())) if len(group) else 1.0
        if not 1 / _ORDINARY <= middle <= _ORDINARY:
            scales[group] = middle
    return scales


def _measure_size(column: np.ndarray) -> float:
    sizes = np.abs(column[column != 0])
    return float(np.median(sizes)) if len(sizes) else 1.0


def restore_units(expression: Expression, names: Sequence[str], scales: np.ndarray) -> Expression:
    """Return an expression in scaled inputs as one in the inputs themselves.

    >>> from symtorch_core.expressions import parse
    >>> print(restore_units(parse("3*x*sqrt(y)"), ["x", "y"], np.array([1.0, 4.0])))
    1.5*x*sqrt(y)
    """
    values = {
        name: Call("/", Variable(name), Constant(float(scale)))
        for name, scale in zip(names, scales, strict=True)
        if scale != 1
    }
    return simplify(substitute(expression, values)) if values else expression


def remove_units(expression: Expression, names: Sequence[str], scales: np.ndarray) -> Expression:
    """Return an expression in the inputs as one in scaled inputs; the inverse of :func:`restore_units`."""
    return restore_units(expression, names, 1 / scales)
