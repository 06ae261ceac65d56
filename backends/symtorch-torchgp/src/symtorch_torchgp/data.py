"""What a search is about, and the rows that are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_torchgp.fitting import Rows

_JUDGING_ROWS = 20_000
_COMPARING = frozenset({"greater", "less", "greater_equal", "less_equal", "max", "min", "clamp"})
_MILD = 50.0
"""A loss is robust where a residual of 10 costs less than so many of 1; squares cost 100."""


@final
@dataclass(frozen=True)
class Data:
    """The task of a search.

    Attributes:
        X: inputs, shape (n, d).
        Y: targets, shape (n, k).
        weights: shape (n,) or None.
        search: the search space.
        names: of the inputs.
    """

    X: Tensor
    Y: Tensor
    weights: Tensor | None
    search: SearchSpace
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Places of a program."""
        return max(8, self.search.maxsize)

    def is_constant(self, column: int) -> bool:
        """Whether an output is one number, to single precision."""
        y = self.Y[:, column].double()
        return float(y.max() - y.min()) <= torch.finfo(torch.float32).eps * float(y.abs().max())

    def arrays(self, column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """X, one target and the weights as float64 arrays."""
        weights = None if self.weights is None else self.weights.double().cpu().numpy()
        return self.X.double().cpu().numpy(), self.Y[:, column].double().cpu().numpy(), weights

    def penalty(self, outputs: list[int]) -> Tensor:
        """What a unit of complexity costs, as a share of the loss of the best constant; shape (k,)."""
        if self.search.parsimony == 0:
            return torch.zeros(len(outputs), dtype=torch.float64)
        Y = self.Y[:, outputs].double().cpu()
        weights = None if self.weights is None else self.weights.double().cpu()
        middle = Y.mean(0) if self.search.loss == "mse" else Y.median(0).values
        loss = self.search.loss_function
        losses = [loss(m, y, weights) for m, y in zip(middle, Y.T, strict=True)]
        return self.search.parsimony / torch.tensor(losses, dtype=torch.float64).clamp_min(1e-300)

    def levels(self, device: torch.device) -> Tensor | None:
        """Values of the inputs, where operators compare: then constants are thresholds among such values."""
        if not _COMPARING & set(self.search.operators):
            return None
        return self.X[self.judging_sample().to(self.X.device)].flatten().to(device, torch.float32)

    def sample(self, count: int, seed: int) -> Tensor:
        """Numbers of at most ``count`` random rows, ascending."""
        n = len(self.X)
        if n <= count:
            return torch.arange(n)
        return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(n, count, replace=False)))

    def judging_sample(self) -> Tensor:
        """The rows on which programs of different rounds are compared: all, unless there are very many."""
        return self.sample(_JUDGING_ROWS, 0)

    def rows(self, outputs: list[int], index: Tensor, device: torch.device, dtype: torch.dtype) -> Rows:
        """Some rows of some outputs, ready to search on."""
        index = index.to(self.X.device)
        X, Y = self.X[index].to(device, dtype), self.Y[index][:, outputs].to(device, dtype)
        weights = torch.ones(len(X), dtype=dtype, device=device)
        if self.weights is not None:
            weights = self.weights[index].to(device, dtype)
        return Rows.of(X, Y, weights[None, :] * self._emphasis(Y))

    @property
    def _robust(self) -> bool:
        """Whether large residuals cost much less than their squares."""
        small, large = self.search.loss_function.of_residual(torch.tensor([1.0, 10.0], dtype=torch.float64))
        return bool(large < _MILD * small)

    def _emphasis(self, Y: Tensor) -> Tensor:
        """Row weights (k, n) under which least squares acts like the loss that was asked.

        For robust losses, rows count alike whatever the size of y, so that heavy tails do not drown the rest.
        """
        if not self._robust:
            return torch.ones_like(Y.T)
        size = (Y - Y.median(0).values).abs()
        # Where most rows are the same number, the others say what the scale is.
        scale = size.median(0).values
        scale = torch.where(scale > 0, scale, size.masked_fill(size == 0, torch.nan).nanmedian(0).values)
        return (1 / (size + scale)).square().nan_to_num(1.0, 1.0).T
