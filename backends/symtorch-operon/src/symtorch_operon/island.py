"""One island: its scaled rows and its best equation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
import torch

from symtorch_core import SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, evaluate, simplify
from symtorch_core.search import Problem, fits_single

_SOLVED = 1e-12
"""Mean squared error, relative to the target's variance, that single precision cannot tell from zero."""
_GENERATIONS_AFTER_SOLVED = 10
"""Generations for which a solved island goes on, to find shorter forms of its equation."""
_CHECKED = 5
"""New equations of a generation that may become the island's best; many of them are too large."""


@final
class Island:
    """Rows for one evolution, scaled for single precision, and the best equation on them.

    Args:
        problem: the problem that the rows are from.
        X: inputs, shape (n, d).
        y: targets, shape (n,).
        centred: whether the mean of the targets is subtracted; it always is where single precision needs that.

    Attributes:
        data: scaled inputs, shape (n, d), and targets, shape (n,).
        best: the best equation that the search allows, before scaling; None if there is none yet.
    """

    def __init__(self, problem: Problem, X: np.ndarray, y: np.ndarray, *, centred: bool) -> None:
        self._search, self._names, self._y = problem.search, problem.variable_names, y
        self._columns = make_columns(X, problem.variable_names)
        # Powers of two: division by them is exact, and so is the way back in the weights of a tree.
        self._scales = [_round_to_power_of_two(math.sqrt(float(np.mean(column**2)))) for column in X.T]
        unit = _round_to_power_of_two(float(np.std(y)))
        offset = float(y.mean()) if centred or not fits_single(y / unit) else 0.0
        self.data = X / np.array(self._scales), (y - offset) / unit
        self._solved_below = _SOLVED * float(np.var(y)) / unit**2
        self._error = math.inf
        self._generations_after = -1
        self.best: Expression | None = None

    def name_inputs(self, keys: Sequence[int]) -> dict[int, tuple[str, float]]:
        """Return name and scale of each variable, by the evolution's keys of the variables."""
        return dict(zip(keys, zip(self._names, self._scales, strict=True), strict=True))

    def update_best(self, newcomers: Iterable[tuple[float, Expression]]) -> Expression | None:
        """Return the island's best equation if it is among a generation's new ones; else None.

        Args:
            newcomers: error and equation of each of them.
        """
        if self.solved:
            self._generations_after += 1
        better = sorted((entry for entry in newcomers if entry[0] < self._error), key=lambda entry: entry[0])
        for error, expression in better[:_CHECKED]:
            if admits_scaled(self._search, expression):
                self._error, self.best = error, expression
                if error <= self._solved_below and not self.solved:
                    self._generations_after = 0
                return expression
        return None

    @property
    def solved(self) -> bool:
        """Whether the residual is rounding error."""
        return self._generations_after >= 0

    @property
    def exhausted(self) -> bool:
        """Whether it is solved, and has had enough generations since to find shorter forms."""
        return self._generations_after >= _GENERATIONS_AFTER_SOLVED

    def scale(self, expression: Expression) -> Expression | None:
        """Return offset + factor * expression, fitted to the island's rows; None if it is not finite on them."""
        values = evaluate(expression, self._columns).expand(len(self._y)).numpy()
        design = np.column_stack((np.ones_like(values), values))
        if not np.isfinite(design).all():
            return None
        (offset, factor), *_ = np.linalg.lstsq(design, self._y, rcond=None)
        return Call("+", Constant(offset), Call("*", Constant(factor), expression))

    def scale_all(self, expressions: Iterable[Expression]) -> Iterator[Expression]:
        """Yield those of the expressions that can be scaled, scaled."""
        return (scaled for scaled in map(self.scale, expressions) if scaled is not None)

    def compute_loss(self, expression: Expression) -> float:
        """Return the search's loss of an equation on the island's rows."""
        values = evaluate(expression, self._columns).expand(len(self._y))
        return self._search.loss_function(values, torch.from_numpy(self._y))


def make_columns(X: np.ndarray, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the columns of X, shape (n, d), as tensors by name."""
    return {name: torch.from_numpy(column.copy()) for name, column in zip(names, X.T, strict=True)}


def admits_scaled(search: SearchSpace, expression: Expression) -> bool:
    """Return whether the search allows an equation with an offset and a factor, whatever their values."""
    return search.admits(simplify(Call("+", Constant(0.5), Call("*", Constant(0.7), expression))))


def _round_to_power_of_two(size: float) -> float:
    return 2.0 ** round(math.log2(size)) if math.isfinite(size) and size > 0 else 1.0
