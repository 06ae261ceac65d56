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
        weights: shape (k, rows), each row of sum 1.
        means: numbers that were subtracted from the targets, shape (k,).
        spreads: numbers by which they were then divided, shape (k,).
    """

    columns: Tensor
    targets: Tensor
    weights: Tensor
    means: Tensor
    spreads: Tensor

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor) -> Rows:
        """Build rows from inputs (n, d), targets (n, k) and weights (k, n)."""
        share = weights / weights.sum(1, keepdim=True)
        targets = Y.T.contiguous()
        means = (share * targets).sum(1)
        targets = targets - means[:, None]
        spreads = (share * targets.square()).sum(1).sqrt().clamp_min(torch.finfo(targets.dtype).tiny)
        return cls(X.T.contiguous(), targets / spreads[:, None], share, means, spreads)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.columns.shape[1]

    def select_outputs(self, outputs: Tensor) -> Rows:
        """Return the rows of some of the outputs, given by number."""
        return Rows(
            self.columns,
            self.targets[outputs],
            self.weights[outputs],
            self.means[outputs],
            self.spreads[outputs],
        )
