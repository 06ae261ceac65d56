"""One island's view of the data, and how far it got."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import torch

from symtorch_core import Problem, SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, evaluate, simplify

_SOLVED = 1e-12
"""Mean squared error, in units of the target's variance, below which single precision sees no difference."""
_GENERATIONS_AFTER_SOLVED = 10
"""A solved island goes on for so long, for shorter forms of what it found."""
_LOOKED_AT = 5
"""How many of a generation's new equations are tried as the island's best; many are too large."""


@final
class Island:
    """Rows for one evolution in numbers that suit single precision, and the best equation on them."""

    def __init__(self, problem: Problem, X: np.ndarray, y: np.ndarray, *, centred: bool) -> None:
        self._search, self._names, self._y = problem.search, problem.variable_names, y
        self._columns = columns_of(X, problem.variable_names)
        # Powers of two: a column divided by one is exact, and the weight in a tree takes it back exactly.
        self._scales = [_power_of_two(math.sqrt(float(np.mean(column**2)))) for column in X.T]
        unit = _power_of_two(float(np.std(y)))
        offset = float(y.mean()) if centred else 0.0
        self.data = X / np.array(self._scales), (y - offset) / unit
        self._solved_below = _SOLVED * float(np.var(y)) / unit**2
        self._error = math.inf
        self._generations_after = -1
        self.best: Expression | None = None

    def inputs(self, keys: Sequence[int]) -> dict[int, tuple[str, float]]:
        """Name and scale of each variable, by the keys the evolution gave them."""
        return dict(zip(keys, zip(self._names, self._scales, strict=True), strict=True))

    def improved_by(self, newcomers: Iterable[tuple[float, Expression]]) -> Expression | None:
        """Take note of a generation's new equations; returns the island's best if it is among them."""
        if self.solved:
            self._generations_after += 1
        better = sorted((entry for entry in newcomers if entry[0] < self._error), key=lambda entry: entry[0])
        for error, expression in better[:_LOOKED_AT]:
            if admits_scaled(self._search, expression):
                self._error, self.best = error, expression
                if error <= self._solved_below and not self.solved:
                    self._generations_after = 0
                return expression
        return None

    @property
    def solved(self) -> bool:
        """Whether nothing but rounding is left to explain."""
        return self._generations_after >= 0

    @property
    def exhausted(self) -> bool:
        """Whether it was solved, and enough time given to shorter forms since."""
        return self._generations_after >= _GENERATIONS_AFTER_SOLVED

    def scaled(self, expression: Expression) -> Expression | None:
        """offset + factor * expression, fitted to the island's rows; None where it is not finite on them."""
        values = evaluate(expression, self._columns).expand(len(self._y)).numpy()
        design = np.column_stack((np.ones_like(values), values))
        if not np.isfinite(design).all():
            return None
        (offset, factor), *_ = np.linalg.lstsq(design, self._y, rcond=None)
        return Call("+", Constant(offset), Call("*", Constant(factor), expression))

    def loss(self, expression: Expression) -> float:
        """The search's loss on the island's rows."""
        values = evaluate(expression, self._columns).expand(len(self._y))
        return self._search.loss_function(values, torch.from_numpy(self._y))


def columns_of(X: np.ndarray, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The columns of X as tensors, by name."""
    return {name: torch.from_numpy(column.copy()) for name, column in zip(names, X.T, strict=True)}


def admits_scaled(search: SearchSpace, expression: Expression) -> bool:
    """Whether the search allows an equation once it has its offset and factor; only their presence counts."""
    return search.admits(simplify(Call("+", Constant(0.5), Call("*", Constant(0.7), expression))))


def _power_of_two(size: float) -> float:
    return 2.0 ** round(math.log2(size)) if math.isfinite(size) and size > 0 else 1.0
