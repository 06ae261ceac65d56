"""The task of a search, and the rows chosen for it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_core.search import SWITCHING, fits_single, is_constant
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.data.scales import choose_scales

_JUDGING_ROWS = 20_000
_MILD = 50.0
"""A loss is robust if a residual of 10 costs less than this number of residuals of 1. For squares it costs 100."""


@final
@dataclass(frozen=True)
class Task:
    """The task of a search.

    Attributes:
        X: inputs, shape (n, d).
        Y: targets, shape (n, k).
        weights: shape (n,) or None.
        search: the search space.
        names: names of the inputs.
    """

    X: Tensor
    Y: Tensor
    weights: Tensor | None
    search: SearchSpace
    names: tuple[str, ...]

    @property
    def length(self) -> int:
        """Number of places of a program."""
        return max(8, self.search.maxsize)

    def is_constant(self, column: int) -> bool:
        """Return whether an output is constant on the rows that count."""
        weights = None if self.weights is None else _to_array(self.weights)
        return is_constant(_to_array(self.Y[:, column]), weights)

    @functools.cached_property
    def scales(self) -> np.ndarray:
        """Numbers by which the inputs are divided in the search, shape (d,)."""
        return choose_scales(_to_array(self.X))

    @functools.cached_property
    def dtype(self) -> torch.dtype:
        """Precision in which the search computes: double only for inputs that single precision cannot tell apart."""
        scaled = _to_array(self.X) / self.scales
        return torch.float32 if all(map(fits_single, scaled.T)) else torch.float64

    def to_arrays(self, column: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return X, one target and the weights as float64 arrays."""
        weights = None if self.weights is None else _to_array(self.weights)
        return _to_array(self.X), _to_array(self.Y[:, column]), weights

    def collect_levels(self, device: torch.device) -> Tensor | None:
        """Return values of the inputs, shape (m,), from which thresholds are drawn; None if no operator compares."""
        if not SWITCHING & set(self.search.operators):
            return None
        return self._scale(self.sample_judging_rows()).flatten().to(device, torch.float32)

    def sample_rows(self, count: int, seed: int) -> Tensor:
        """Return the numbers of at most ``count`` random rows, in ascending order."""
        n = len(self.X)
        if n <= count:
            return torch.arange(n)
        return torch.from_numpy(np.sort(np.random.default_rng(seed).choice(n, count, replace=False)))

    def sample_judging_rows(self) -> Tensor:
        """Return the numbers of the rows on which rounds are compared: all, unless there are very many."""
        return self.sample_rows(_JUDGING_ROWS, 0)

    def select_rows(
        self, outputs: list[int], index: Tensor, device: torch.device, dtype: torch.dtype
    ) -> Rows:
        """Return some rows of some outputs, with scaled inputs.

        Args:
            outputs: numbers of the outputs.
            index: numbers of the rows, shape (rows,).
            device, dtype: of the result; targets are scaled before they are cast.
        """
        index = index.to(self.X.device)
        X, Y = self._scale(index).to(device, dtype), self.Y[index][:, outputs].to(device, torch.float64)
        weights = torch.ones(len(X), dtype=torch.float64, device=device)
        if self.weights is not None:
            weights = self.weights[index].to(device, torch.float64)
        return Rows.of(X, Y, weights[None, :] * self._compute_emphasis(Y))

    def _scale(self, index: Tensor) -> Tensor:
        """Return the scaled inputs of some rows, by number."""
        X = self.X[index.to(self.X.device)].double()
        return X / torch.from_numpy(self.scales).to(X)

    @property
    def _is_robust(self) -> bool:
        """Whether large residuals cost much less than under squares."""
        small, large = self.search.loss_function.of_residual(torch.tensor([1.0, 10.0], dtype=torch.float64))
        return bool(large < _MILD * small)

    def _compute_emphasis(self, Y: Tensor) -> Tensor:
        """Return row weights (k, n) under which least squares acts like the loss of the search.

        For robust losses, rows count alike whatever the size of y, so that heavy tails do not dominate.
        """
        if not self._is_robust:
            return torch.ones_like(Y.T)
        size = (Y - Y.median(0).values).abs()
        # If most rows have the same value, the others give the scale.
        scale = size.median(0).values
        scale = torch.where(scale > 0, scale, size.masked_fill(size == 0, torch.nan).nanmedian(0).values)
        return (1 / (size + scale)).square().nan_to_num(1.0, 1.0).T


def _to_array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.double().cpu().numpy()
    return array
