"""Rows of data with targets of mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Rows:
    """The rows of a search.

    Attributes:
        columns: inputs, shape (d, rows).
        targets: shape (k, rows), each with mean 0 and variance 1 under its weights.
        heights: the same with their own means, in units of the spread, shape (k, rows): functions of a target are
            computed from these, since the small ones lose their digits beside the mean.
        weights: shape (k, rows), each row of sum 1.
        means: numbers that were subtracted from the targets, shape (k,), float64.
        spreads: numbers by which they were then divided, shape (k,), float64.
    """

    columns: Tensor
    targets: Tensor
    heights: Tensor
    weights: Tensor
    means: Tensor
    spreads: Tensor

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor) -> Rows:
        """Build rows in the precision of the inputs, from inputs (n, d), targets (n, k) and weights (k, n).

        Targets are scaled in double precision: only then may they be cast without a loss.
        """
        share, targets = weights.double(), Y.T.double()
        share = share / share.sum(1, keepdim=True)
        means = (share * targets).sum(1)
        heights, targets = targets, targets - means[:, None]
        unit = targets.abs().amax(1).clamp_min(torch.finfo(targets.dtype).tiny)  # squares must not overflow
        spreads = unit * (share * (targets / unit[:, None]).square()).sum(1).sqrt()
        spreads = torch.where(spreads > 0, spreads, 1.0)
        targets, heights = ((part / spreads[:, None]).to(X.dtype).contiguous() for part in (targets, heights))
        return cls(X.T.contiguous(), targets, heights, share.to(X.dtype), means, spreads)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.columns.shape[1]

    def select_outputs(self, outputs: Tensor) -> Rows:
        """Return the rows of some of the outputs, given by number."""
        return Rows(
            self.columns,
            self.targets[outputs],
            self.heights[outputs],
            self.weights[outputs],
            self.means[outputs],
            self.spreads[outputs],
        )
