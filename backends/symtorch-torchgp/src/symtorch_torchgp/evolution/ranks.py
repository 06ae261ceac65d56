"""Ranks of programs by non-dominated sorting on complexity and loss."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_FRONTS = 60


def compute_pareto_ranks(losses: Tensor, sizes: Tensor, enough: int) -> Tensor:
    """Return the number of each program's front within its output, plus a tie-break by loss that is below one.

    Programs whose loss equals that of a simpler one come last. Fronts beyond the ``enough`` best programs share a
    number.

    Args:
        losses: shape (k, m).
        sizes: complexities, shape (k, m).
        enough: number of programs of each output that need a rank.

    Returns:
        Ranks, shape (k, m).
    """
    order = losses.argsort(dim=1, stable=True)
    order = order.gather(1, sizes.gather(1, order).argsort(dim=1, stable=True))
    sorted_losses = losses.gather(1, order)
    # Programs of equal loss count as equal: only the simplest, the first in the order of loss and size, is ranked.
    by_loss = sorted_losses.argsort(dim=1, stable=True)
    ascending = sorted_losses.gather(1, by_loss)
    repeated = torch.zeros_like(ascending, dtype=torch.bool)
    repeated[:, 1:] = ascending[:, 1:] <= ascending[:, :-1] * (1 + 1e-6)
    duplicate = torch.zeros_like(repeated).scatter(1, by_loss, repeated)
    left = torch.where(duplicate | ~torch.isfinite(sorted_losses), torch.inf, sorted_losses)
    rank = torch.full_like(left, float(_MOST_FRONTS))
    for number in range(_MOST_FRONTS):
        best_before = torch.cat([torch.full_like(left[:, :1], torch.inf), left.cummin(1).values[:, :-1]], 1)
        member = torch.isfinite(left) & (left < best_before)
        rank = torch.where(member, float(number), rank)
        left = torch.where(member, torch.inf, left)
        if bool(((rank < _MOST_FRONTS).sum(1) >= enough).all()) or not bool(torch.isfinite(left).any()):
            break
    tie = sorted_losses.argsort(1).argsort(1) / (losses.shape[1] + 1)
    gone = duplicate | ~torch.isfinite(sorted_losses)
    rank = torch.where(gone, 2.0 * _MOST_FRONTS, rank) + tie
    return torch.zeros_like(rank).scatter(1, order, rank)
