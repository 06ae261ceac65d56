"""Adam in steps that are relative to the size of each number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

_SMALLEST_STEP = 1e-2
"""Numbers far smaller than the largest move as if they were this share of it."""


@final
class RelativeAdam(torch.optim.Adam):
    """Adam on the relative change of every number, so that one learning rate suits all."""

    def __init__(self, parameters: Sequence[nn.Parameter], learning_rate: float) -> None:
        self._tuned = list(parameters)
        self._start = [parameter.detach().clone() for parameter in parameters]
        self._sizes = [_compute_sizes(value) for value in self._start]
        moves = [torch.zeros_like(value, requires_grad=True) for value in self._start]
        super().__init__(moves, lr=learning_rate)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self._tuned:
            parameter.grad = None

    def step(self, closure: Any = None) -> Any:
        loss = closure()
        moves = self.param_groups[0]["params"]
        for move, parameter, size in zip(moves, self._tuned, self._sizes, strict=True):
            slope = parameter.grad
            move.grad = torch.zeros_like(move) if slope is None else torch.nan_to_num(slope * size)
        super().step()
        with torch.no_grad():
            for parameter, start, size, move in zip(
                self._tuned, self._start, self._sizes, moves, strict=True
            ):
                parameter.copy_(start + size * move)
        return loss


def _compute_sizes(value: Tensor) -> Tensor:
    """Return how far each number moves at a step of one: a constant by its size, the entries of a map by their rms.

    Adam moves all entries of a row alike, so that the sum over d inputs moves sqrt(d) times as far, relative to its
    size, as one entry does: maps are slowed down by this factor (as in Yang et al., arXiv 2203.03466).
    """
    if value.ndim > 1:
        return torch.full_like(value, (float(value.square().mean().sqrt()) or 1.0) / value.shape[1] ** 0.5)
    largest = float(value.abs().max()) or 1.0
    return value.abs().clamp_min(_SMALLEST_STEP * largest)
