"""The losses of a search: one table, used for searching, refitting and ranking."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from symtorch_core.errors import ExpressionError, SearchError, did_you_mean
from symtorch_core.expressions import evaluate, parse, variables

_NEXT_TO_NOTHING = 1e-9
"""Residuals smaller than this share of the median count as this large where a loss is divided by them."""

_PROBES = (1e-3, 1e-2, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 1e2, 1e3, 1e6)
_SMALL = 2.0
"""A loss may overflow for residuals larger than this."""
_ROUNDING = 1e-9


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


def weighted_median(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the value, of shape (), that half of the weight lies at or below.

    Args:
        values: shape (n,).
        weights: shape (n,), non-negative, not all zero; None weighs all values equally.

    >>> weighted_median(torch.tensor([5.0, 1.0, 3.0]), torch.tensor([0.1, 0.1, 2.0]))
    tensor(3.)
    """
    if weights is None:
        return values.median()
    ordered, order = values.sort()
    reached = weights[order].cumsum(0)
    return ordered[torch.searchsorted(reached, 0.5 * reached[-1:])[0]]


def _move_off_zero(residual: Tensor) -> Tensor:
    """Return residuals, shape (n,), with those next to nothing beside the others at a distance from zero."""
    size = residual.abs()
    middle = size.median()
    if middle == 0:  # most are exactly zero: the others give the scale
        others = size[size > 0]
        middle = others.median() if len(others) else torch.ones_like(middle)
    least = _NEXT_TO_NOTHING * middle
    return torch.where(size < least, least, residual)


def _huber(residual: Tensor) -> Tensor:
    size = residual.abs()
    return torch.where(size <= 1.0, 0.5 * size.square(), size - 0.5)


def make_loss(function: Callable[[Tensor], Tensor]) -> Loss:
    """Build a loss from an elementwise torch function of the residual (prediction - target).

    Args:
        function: smooth almost everywhere, lowest at 0, and never falling as a residual grows; its slope is computed by
            autograd. See :func:`check_loss`.

    >>> log_cosh = make_loss(lambda residual: residual.cosh().log())
    >>> round(log_cosh(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])), 4)
    0.2169
    """

    def influence(residual: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = _move_off_zero(residual).detach().requires_grad_()
            (slope,) = torch.autograd.grad(function(leaf).sum(), leaf)
        return (0.5 * slope / leaf.detach()).clamp_min(0.0)

    return Loss(f"custom {getattr(function, '__name__', type(function).__name__)}", function, influence)


def check_loss(loss: Loss) -> None:
    """Check a loss on residuals of many sizes.

    Raises:
        SearchError: it does not give one real number for each, is not finite for small ones, is the same for all, or is
            lower for a larger residual than for a smaller one of the same sign.
    """
    sizes = torch.tensor([0.0, *_PROBES], dtype=torch.float64)
    trial = torch.stack([sizes, -sizes])
    small = trial.abs() <= _SMALL
    try:
        losses = loss.of_residual(trial.flatten())
        sound = isinstance(losses, Tensor) and losses.shape == (trial.numel(),) and losses.is_floating_point()
        slopes = loss.influence(trial[small]) if sound else None
    except Exception as error:  # whatever a function of the user raises
        raise SearchError(
            f"the loss {loss.name!r} must be a torch function of a tensor of residuals (prediction - target), like "
            f"lambda r: r.abs(): {error}"
        ) from None
    if slopes is None:
        raise SearchError(
            f"the loss {loss.name!r} must give one real number for each residual, as a tensor of their shape: leave "
            "out means and sums, which are taken here"
        )
    losses = losses.double().view_as(trial)
    finite = torch.isfinite(losses[small]).all() & torch.isfinite(slopes).all()
    if not bool(finite) or bool(losses.isnan().any()):
        raise SearchError(
            f"the loss {loss.name!r} must give a finite number, with a finite slope, for each residual, zero included"
        )
    if bool((losses == losses[0, 0]).all()):
        raise SearchError(f"the loss {loss.name!r} is the same for every residual: let it grow with abs(r)")
    before, after = losses[:, :-1], losses[:, 1:]
    falls = after < before - _ROUNDING * before.abs()
    if bool(falls.any()):
        row, column = falls.nonzero()[0].tolist()
        smaller, larger = trial[row, column : column + 2].tolist()
        first, second = losses[row, column : column + 2].tolist()
        raise SearchError(
            f"the loss {loss.name!r} is minimised, so it must be lowest at a residual of 0 and never fall as a "
            f"residual grows: it is {first + 0.0:g} for {smaller + 0.0:g} and {second:g} for {larger:g}; is its sign "
            "wrong?"
        )


def check_targets(
    loss: Loss, targets: Tensor, weights: Tensor | None = None, numbers: Sequence[int] | None = None
) -> None:
    """Check that losses of these targets are numbers: squares of 1e-170 are zero, and of 1e170 infinite.

    Args:
        loss: the loss of the search.
        targets: shape (n, k).
        weights: shape (n,), or None.
        numbers: numbers of the columns in messages; their positions by default.

    Raises:
        SearchError: the loss of a constant overflows, or vanishes although targets differ from it.
    """
    for column, target in zip(numbers or range(targets.shape[1]), targets.double().T, strict=True):
        residual = target.median() - target
        value = loss(target.median(), target, weights)
        vanishes = value == 0 and bool((loss.of_residual(residual) == 0).all() & (residual != 0).any())
        if not math.isfinite(value) or (vanishes and bool((loss.influence(residual) > 0).any())):
            spread = float(residual.abs().max())
            raise SearchError(
                f"the loss {loss.name!r} of output {column}, whose values spread over {spread:.3g}, is {value:g} in "
                "double precision: scale the output, or choose another loss, like 'mae'"
            )


LOSSES = MappingProxyType(
    {
        loss.name: loss
        for loss in (
            Loss("mse", torch.square, torch.ones_like),
            Loss("mae", torch.abs, lambda residual: 0.5 / _move_off_zero(residual).abs()),
            Loss("huber", _huber, lambda residual: 0.5 / residual.abs().clamp_min(1.0)),
        )
    }
)
"""Losses by name: mean squared error, mean absolute error, Huber.

Huber has a unit: its threshold is 1 in the units of the output. The others, and powers of abs(r), have none: if outputs
are multiplied by a number, so are the constants of the equations found.
"""


_OTHERS = MappingProxyType(
    dict.fromkeys(
        ("rmse", "l2", "l2loss", "l2distloss()", "mean squared error", "mseloss", "least squares"), "mse"
    )
    | dict.fromkeys(("l1", "l1loss", "l1distloss()", "mean absolute error", "maeloss", "absolute"), "mae")
    | dict.fromkeys(("smooth l1", "smoothl1", "huberloss", "huber loss", "logcosh"), "huber")
)
"""Losses of other libraries, and the one of ours that is meant."""

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
    raise SearchError(
        f"unknown loss {name!r}.{suggest_loss(name)} Known losses: {', '.join(LOSSES)}; or give a formula in the "
        f"residual {RESIDUAL} = prediction - target, like 'abs(r)^1.5'"
    )


def suggest_loss(name: str) -> str:
    """Return the end of a message about an unknown loss: the one that is meant, or nothing.

    >>> suggest_loss("MSELoss")
    " Did you mean 'mse'?"
    """
    meant = _OTHERS.get(name.lower().replace("_", " "))
    return did_you_mean(name, LOSSES) if meant is None else f" Did you mean {meant!r}?"
