"""The losses of a search: one table, used for searching, refitting and ranking."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from symtorch_core.errors import ExpressionError, SearchError, did_you_mean
from symtorch_core.expressions import evaluate, parse, variables

_SMALLEST_RESIDUAL = 1e-9


@final
@dataclass(frozen=True)
class Loss:
    """Loss that is the weighted mean over rows of a function of the residual.

    Attributes:
        name: its name in a search.
        of_residual: elementwise loss of the residual.
        influence: elementwise weight that turns a weighted least-squares step into a step on this loss
            (iteratively reweighted least squares): derivative of the loss over twice the residual.
    """

    name: str
    of_residual: Callable[[Tensor], Tensor]
    influence: Callable[[Tensor], Tensor]

    def __call__(self, prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
        """Return the weighted mean loss; infinite if any prediction is not finite.

        Args:
            prediction: shape (n,) or a scalar that stands for every row.
            target: shape (n,).
            weights: shape (n,), non-negative; None weighs all rows equally.

        >>> MSE = LOSSES["mse"]
        >>> MSE(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]))
        2.0
        """
        losses = self.of_residual(prediction - target)
        mean = losses.mean() if weights is None else (losses * weights).sum() / weights.sum()
        value = float(mean)
        return value if value == value else float("inf")


def _huber(residual: Tensor) -> Tensor:
    size = residual.abs()
    return torch.where(size <= 1.0, 0.5 * size.square(), size - 0.5)


def make_loss(function: Callable[[Tensor], Tensor]) -> Loss:
    """Build a loss from an elementwise torch function of the residual (prediction - target).

    Args:
        function: smooth almost everywhere, smallest at 0; its slope is computed by autograd. See :func:`check_loss`.

    >>> log_cosh = make_loss(lambda residual: residual.cosh().log())
    >>> round(log_cosh(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])), 4)
    0.2169
    """

    def influence(residual: Tensor) -> Tensor:
        away_from_zero = torch.where(residual.abs() < _SMALLEST_RESIDUAL, _SMALLEST_RESIDUAL, residual)
        with torch.enable_grad():
            leaf = away_from_zero.detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(leaf).sum(), leaf)
        return (0.5 * slope / leaf.detach()).clamp_min(0.0)

    return Loss(f"custom {getattr(function, '__name__', type(function).__name__)}", function, influence)


def check_loss(loss: Loss) -> None:
    """Check a loss on a few residuals.

    Raises:
        SearchError: the loss or its slope is not a finite number for one of them.
    """
    trial = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64)
    try:
        losses, weights = loss.of_residual(trial), loss.influence(trial)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise SearchError(
            f"the loss {loss.name!r} must be a torch function of a tensor of residuals: {error}"
        ) from None
    if losses.shape != trial.shape or not bool(torch.isfinite(losses).all() & torch.isfinite(weights).all()):
        raise SearchError(f"the loss {loss.name!r} must give one finite number for each residual")


LOSSES = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss("mse", torch.square, torch.ones_like),
            Loss("mae", torch.abs, lambda residual: 0.5 / residual.abs().clamp_min(1e-9)),
            Loss("huber", _huber, lambda residual: 0.5 / residual.abs().clamp_min(1.0)),
        )
    }
)
"""Losses by name: mean squared error, mean absolute error, Huber (threshold 1, in units of the output)."""


RESIDUAL = "r"
"""Name of the residual, prediction - target, in formulas of losses."""


@functools.lru_cache(maxsize=64)
def get_loss(name: str) -> Loss:
    """Return the loss with this name, or with this formula in the residual ``r``.

    >>> pinball = get_loss("max(0.1*r, -0.9*r)")
    >>> round(pinball(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 2.0])), 4)
    0.9

    Raises:
        SearchError: the name is unknown; the message lists the known losses.
    """
    if name in LOSSES:
        return LOSSES[name]
    try:
        formula = parse(name, [RESIDUAL])
    except ExpressionError:
        formula = None
    if formula is not None and variables(formula):
        return replace(make_loss(lambda r: evaluate(formula, {RESIDUAL: r})), name=name)
    hint = did_you_mean(name, LOSSES)
    raise SearchError(
        f"unknown loss {name!r}.{hint} Known losses: {', '.join(LOSSES)}; or give a formula in the residual "
        f"{RESIDUAL} = prediction - target, like 'abs(r)^1.5'"
    )
