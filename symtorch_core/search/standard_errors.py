"""Standard errors of an equation's constants, from the Jacobian of its least-squares fit."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from symtorch_core.expressions import Expression, constants, evaluate
from symtorch_core.search.constants import compute_slopes
from symtorch_core.search.losses import Loss

_SAME_DIRECTION = 1e-10
"""Directions of the constants along which the equation changes less than this are not determined."""
_TAKES_PART = 1e-6
_NEARLY_BEST = 1e-5
"""A constant may be this share of itself away from its best value: round numbers are."""


def estimate_errors(
    expression: Expression,
    columns: Mapping[str, Tensor],
    target: Tensor,
    weights: Tensor | None,
    loss: Loss,
    exact: Collection[int] = (),
) -> tuple[float | None, ...] | None:
    """Return the standard error of each constant of an equation that was fitted by least squares.

    These are the roots of the diagonal of s^2 (J' W J)^-1, where J holds the slopes of the equation in its constants,
    W the weights, and s^2 = r' W r / (n - k) the variance of the residuals. They presume residuals that are independent
    from row to row and about as large everywhere; weights are inverse variances, up to a common factor.

    Args:
        expression: the equation, with its best constants.
        columns: a float64 tensor of shape (n,) for each variable.
        target: float64, shape (n,).
        weights: float64, shape (n,), or None; rows of weight zero do not count.
        loss: the loss of the fit.
        exact: positions of constants that were not fitted.

    Returns:
        An error for each of ``constants(expression)``; None for one that the rows do not determine, or that is exact.
        None in place of them all for a loss other than mse, or if the constants are not the best ones, within their
        errors.

    >>> x = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
    >>> from symtorch_core.expressions import parse
    >>> from symtorch_core.search.losses import get_loss
    >>> (error,) = estimate_errors(parse("2.5"), {"x": x}, x + 1, None, get_loss("mse"))
    >>> round(error, 6)
    0.645497
    """
    values = torch.tensor(constants(expression), dtype=torch.float64)
    fitted = [position for position in range(len(values)) if position not in exact]
    if loss.name != "mse":
        return None
    none: list[float | None] = [None] * len(values)
    counted = len(target) if weights is None else int((weights > 0).sum())
    if not fitted or counted <= len(fitted):
        return tuple(none)

    def predict(numbers: Tensor) -> Tensor:
        return evaluate(expression, columns, numbers).expand_as(target)

    share = torch.ones_like(target) if weights is None else weights / weights.max()
    scale = share.sqrt()
    residual = scale * (target - predict(values))
    slopes = (scale * compute_slopes(predict, values, len(target))[fitted]).T
    sizes = torch.linalg.vector_norm(slopes, dim=0)
    if not bool(torch.isfinite(residual).all() & torch.isfinite(sizes).all()):
        return None
    units = torch.where(sizes > 0, sizes, 1.0)
    q, r = torch.linalg.qr(slopes / units)
    u, spread, v = torch.linalg.svd(r)
    known = spread > _SAME_DIRECTION
    freedom = counted - int(known.sum())
    inverse = torch.where(known, 1 / spread, 0.0)
    step = (v.T @ (inverse * (u.T @ (q.T @ residual)))) / units
    deviation = torch.linalg.vector_norm(residual) / math.sqrt(freedom)
    errors = deviation * torch.linalg.vector_norm(inverse[:, None] * v, dim=0) / units
    determined = torch.linalg.vector_norm(v[~known], dim=0) <= _TAKES_PART
    # Numbers that are not where the loss is least are no estimates, and have no errors.
    near = step.abs() <= torch.maximum(errors, _NEARLY_BEST * values[fitted].abs())
    if not bool((near | ~determined).all()):
        return None
    for place, position in enumerate(fitted):
        error = float(errors[place])
        none[position] = error if bool(determined[place]) and math.isfinite(error) else None
    return tuple(none)
