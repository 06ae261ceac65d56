"""The rows of a search, as the worker gets them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

import numpy as np
from torch import Tensor

from symtorch_core.search import fits_single, is_constant


@final
@dataclass(frozen=True)
class Data:
    """The rows of a search.

    Attributes:
        X: inputs, shape (n, d), float64.
        Y: targets, shape (n, k), float64.
        weights: shape (n,), float64, or None.
        names: d names of the columns of X.
        varying: the columns of Y that are not constant.
    """

    X: np.ndarray
    Y: np.ndarray
    weights: np.ndarray | None
    names: tuple[str, ...]
    varying: tuple[int, ...]

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor | None, names: tuple[str, ...]) -> Self:
        """Build the rows from tensors on any device."""
        targets = Y.double().cpu().numpy()
        row_weights = None if weights is None else weights.double().cpu().numpy()
        columns = tuple(
            column for column in range(targets.shape[1]) if not is_constant(targets[:, column], row_weights)
        )
        return cls(X.double().cpu().numpy(), targets, row_weights, names, columns)

    @property
    def fits_single(self) -> bool:
        """Whether PySR's default, single precision, can tell the values apart."""
        return all(map(fits_single, [*self.X.T, *self.Y[:, list(self.varying)].T]))

    def write(self, path: Path) -> None:
        """Write the arrays for the worker; PySR takes weights in the shape of the targets."""
        y = self.Y[:, list(self.varying)]
        arrays = {"X": self.X, "y": y[:, 0] if y.shape[1] == 1 else y}
        if self.weights is not None:
            arrays["weights"] = np.broadcast_to(self.weights, arrays["y"].T.shape).T
        np.savez(path, allow_pickle=False, **arrays)
