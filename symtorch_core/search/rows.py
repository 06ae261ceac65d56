"""The rows of one search, on which equations are fitted and measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from symtorch_core.expressions import Constant, Expression, evaluate, simplify
from symtorch_core.search.constants import CONVERGED, refit_constants
from symtorch_core.search.deadline import NEVER, Deadline
from symtorch_core.search.front import Candidate
from symtorch_core.search.precision import compute_resolution
from symtorch_core.search.space import SearchSpace
from symtorch_core.search.standard_errors import estimate_errors
from symtorch_core.search.thresholds import has_thresholds, refit_thresholds

_CONVERGED_WHILE_EXPLORING = 1e-2
_ROUNDS = 4
"""Thresholds and other constants are refitted in turn, at most so often."""


@final
@dataclass(frozen=True)
class Rows:
    """Rows of one search, on which equations are fitted and measured.

    Attributes:
        columns: the inputs, by name.
        target: the targets.
        weights: their weights, or None.
        search: the search space.
        deadline: when constants are no longer fitted.
        tolerance: the relative gain in loss below which reweighting stops.
    """

    columns: Mapping[str, Tensor]
    target: Tensor
    weights: Tensor | None
    search: SearchSpace
    deadline: Deadline = NEVER
    tolerance: float = CONVERGED

    def sample(self, most: int) -> Rows:
        """Return a fixed random sample of at most ``most`` rows, for fits that need not be exact.

        With weights, rows are drawn in proportion to them, and weigh alike.
        """
        rough = replace(self, tolerance=_CONVERGED_WHILE_EXPLORING)
        if len(self.target) <= most:
            return rough
        share = None if self.weights is None else (self.weights / self.weights.sum()).numpy()
        chosen = np.random.default_rng(0).choice(len(self.target), most, replace=share is not None, p=share)
        index = torch.from_numpy(np.sort(chosen))
        return replace(
            rough,
            columns={name: column[index] for name, column in self.columns.items()},
            target=self.target[index],
            weights=None,
        )

    def measure(self, expression: Expression) -> Candidate:
        """Return the expression with its loss and complexity."""
        value = self.search.loss_function(evaluate(expression, self.columns), self.target, self.weights)
        return Candidate(expression, self.search.rules.count(expression), value)

    def loss_of_rounding(self) -> float:
        """Return the loss of an error in the last digit of every target: smaller differences are rounding."""
        step = compute_resolution(self.target.numpy())
        return self.search.loss_function(self.target + step, self.target, self.weights)

    def fit_line(self, expression: Expression) -> tuple[float, float]:
        """Return the least-squares a and b of a * expression + b; 1 and 0 if the values do not vary or overflow."""
        share = torch.ones_like(self.target) if self.weights is None else self.weights
        share = share / share.sum()
        values = evaluate(expression, self.columns).expand_as(self.target)
        unit = values.abs().max()
        values = values / unit
        middle, target_middle = (share * values).sum(), (share * self.target).sum()
        deviation = values - middle
        factor = (share * deviation * (self.target - target_middle)).sum() / (
            share * deviation.square()
        ).sum()
        a, b = float(factor / unit), float(target_middle - factor * middle)
        return (a, b) if a and math.isfinite(a) and math.isfinite(b) else (1.0, 0.0)

    def refit(self, expression: Expression) -> Candidate:
        """Return the expression with its best constants if ``search.refine`` is set, and else as it is.

        After the deadline, constants stay as they are.
        """
        if self.search.refine:
            expression = self._refit_constants(expression)
            if has_thresholds(expression):
                expression = self._refit_thresholds(expression)
        return self.measure(simplify(expression))

    def _refit_constants(self, expression: Expression) -> Expression:
        loss = self.search.loss_function
        return refit_constants(
            expression, self.columns, self.target, self.weights, loss, self.tolerance, self.deadline
        )

    def _refit_thresholds(self, expression: Expression) -> Expression:
        """Return the expression with better thresholds, and other constants refitted to them, as long as it gains."""
        loss, best = self.search.loss_function, self.measure(expression).loss
        for _ in range(_ROUNDS):
            reached, form = best, expression
            for scaled in (False, True):
                moved = refit_thresholds(
                    expression,
                    self.columns,
                    self.target,
                    self.weights,
                    loss,
                    self.deadline,
                    scaled=scaled,
                )
                moved = self._refit_constants(moved)
                value = self.measure(moved).loss
                if value < reached:
                    reached, form = value, moved
            if form is expression:
                break
            expression, best = form, reached
        return expression

    def with_errors(self, candidate: Candidate) -> Candidate:
        """Return the candidate with the standard errors of its constants; after the deadline, of constants only."""
        if self.deadline.is_over() and not isinstance(candidate.expression, Constant):
            return candidate
        return replace(candidate, errors=self.estimate_errors(candidate.expression))

    def estimate_errors(
        self, expression: Expression, exact: Collection[int] = ()
    ) -> tuple[float | None, ...] | None:
        """Return the standard errors of an equation's constants; see :func:`estimate_errors`."""
        loss = self.search.loss_function
        return estimate_errors(expression, self.columns, self.target, self.weights, loss, exact)
