"""Losses as others write them, of predictions and targets, as functions of the residual."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from symtorch_core.errors import SearchError
from symtorch_core.storage.functions import name_function

_NAMES: Final[Mapping[Callable[..., Any], str]] = MappingProxyType(
    {
        functional.mse_loss: "mse",
        functional.l1_loss: "mae",
        functional.huber_loss: "huber",
        functional.smooth_l1_loss: "huber",
    }
)
"""Functions of torch that are losses of ours, with their default settings."""
_TRIAL: Final = ((0.0, 0.0), (1.5, 1.0), (-2.0, 0.5), (3.0, 3.0), (0.2, 4.0))
_CLOSE: Final = 1e-6


def read_loss(loss: Any) -> Any:
    """Return a loss as a search takes it: functions of (prediction, target) as a name, or as functions of the residual.

    Anything else is returned as it is.

    >>> read_loss(nn.L1Loss()), read_loss(functional.smooth_l1_loss)
    ('mae', 'huber')

    Raises:
        SearchError: a loss of predictions and targets is not a function of their difference.
    """
    if isinstance(loss, nn.MSELoss):
        return "mse"
    if isinstance(loss, nn.L1Loss):
        return "mae"
    if isinstance(loss, nn.HuberLoss) and loss.delta == 1:
        return "huber"
    if isinstance(loss, nn.SmoothL1Loss) and loss.beta == 1:
        return "huber"
    if isinstance(loss, nn.modules.loss._Loss):
        each = copy.copy(loss)
        each.reduction = "none"
        return _check(ResidualLoss(each, name_function(loss)))
    if inspect.isroutine(loss) and (name := _NAMES.get(loss)):
        return name
    if not callable(loss) or not _takes_pairs(loss):
        return loss
    return _check(ResidualLoss(_leave_out_means(loss), name_function(loss)))


@final
@dataclass(frozen=True)
class ResidualLoss:
    """A loss of predictions and targets as a function of the residual: the loss of (residual, 0)."""

    function: Callable[[Tensor, Tensor], Tensor]
    name: str

    @property
    def __name__(self) -> str:
        return self.name

    def __call__(self, residual: Tensor) -> Tensor:
        """Return the loss of each residual, of their shape."""
        return self.function(residual, torch.zeros_like(residual))


def _takes_pairs(function: Callable[..., Any]) -> bool:
    """Return whether a function has two arguments without a default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) == 2


def _leave_out_means(function: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that gives one loss for each row, where torch's own would take their mean."""
    if "reduction" not in inspect.signature(function).parameters:
        return function
    return lambda prediction, target: function(prediction, target, reduction="none")


def _check(loss: ResidualLoss) -> ResidualLoss:
    prediction, target = torch.tensor(_TRIAL, dtype=torch.float64).T
    try:
        pairs, residuals = loss.function(prediction, target), loss(prediction - target)
        alike = torch.allclose(pairs, residuals, rtol=_CLOSE, atol=_CLOSE)
    except Exception:  # whatever a function of the user raises: what takes numbers of any size raises nothing
        alike = False
    if not alike:
        raise SearchError(
            f"the loss {loss.name!r} depends on more than prediction - target: give a function of that residual, like "
            "lambda r: r.abs(), or the name of a loss"
        )
    return loss
