"""Is an equation the solution? Checks of its form, its exact derivatives, its boundary values and its continuation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

from symtorch_core import Candidate, ExpressionError, identify_constants, residual_check
from symtorch_core.expressions import Expression, evaluate, parse
from symtorch_pinn.problem import Problem

SAME = 1e-6
"""Relative error below which an equation is the true form with other constants; approximants miss by far more."""


@final
@dataclass(frozen=True)
class EquationCheck:
    """Results of the checks of one equation.

    Attributes:
        form: the constants of the true form, where the equation has that form; None where it has not.
        form_error: how far the equation is from the nearest of that form, relative to its size, on twice the range.
        identified: constants of the differential equation for which the equation solves it best.
        residual: what is left of the differential equation with those, relative to its terms.
        conditions: root mean square of what is left of each condition.
        mse, mse_beyond: against the true solution, on the grid and on its continuation.
    """

    form: Mapping[str, float] | None
    form_error: float
    identified: Mapping[str, float]
    residual: float
    conditions: tuple[float, ...]
    mse: float
    mse_beyond: float

    def largest_error(self, truth: Mapping[str, float]) -> float:
        """Return the largest relative error of the form's constants; infinite for another form."""
        if self.form is None:
            return float("inf")
        return max(abs(self.form[name] - value) / abs(value) for name, value in truth.items())


def check_equation(candidate: Candidate, problem: Problem) -> EquationCheck:
    """Check one equation of a front."""
    expression = candidate.expression
    inside, names = problem.sample_inside(2_000, seed=0), problem.variables
    form, error = fit_form(expression, problem)
    try:
        identified = identify_constants(
            expression, problem.equation, inside, variable_names=names, start=problem.start
        )
    except ExpressionError:  # its derivatives are infinite somewhere
        identified = {name: float("nan") for name in problem.constants}
    left = residual_check(expression, problem.equation, inside, variable_names=names, constants=identified)
    edges = (
        residual_check(
            expression, each.equation, problem.move_to_boundary(each, inside), variable_names=names
        )
        for each in problem.conditions
    )
    return EquationCheck(
        form=form if error < SAME else None,
        form_error=error,
        identified=identified,
        residual=left.relative,
        conditions=tuple(edge.rms for edge in edges),
        mse=_measure_mse(expression, problem, problem.build_grid()),
        mse_beyond=_measure_mse(expression, problem, problem.build_grid_beyond()),
    )


def fit_form(expression: Expression, problem: Problem) -> tuple[dict[str, float], float]:
    """Fit the true form to an equation; return its constants and the distance, relative to the equation's size.

    A comparison of functions, not of spellings: every way to write the true form is one. Both are compared on the
    range and as far again, where approximants part.
    """
    points = torch.cat([problem.build_grid(), problem.build_grid_beyond()])
    columns = problem.split_columns(points)
    target = evaluate(expression, columns).double().expand(len(points))
    if not bool(torch.isfinite(target).all()):
        return dict(problem.values), float("inf")
    form, names = parse(problem.form), tuple(problem.values)

    def distance(values: np.ndarray) -> np.ndarray:
        numbers = dict(zip(names, torch.from_numpy(values), strict=True))
        result: np.ndarray = (evaluate(form, {**columns, **numbers}) - target).numpy()
        return result

    # From the true constants, in their own units: a fit that leaves their neighbourhood has found another solution.
    start = np.array(list(problem.values.values()))
    fitted = least_squares(
        distance, start, jac="3-point", x_scale=np.abs(start), xtol=1e-15, ftol=1e-15, gtol=1e-15
    )
    relative = np.sqrt(np.square(fitted.fun).mean()) / float(target.square().mean().sqrt())
    return dict(zip(names, map(float, fitted.x), strict=True)), float(relative)


def _measure_mse(expression: Expression, problem: Problem, points: Tensor) -> float:
    error = (
        evaluate(expression, problem.split_columns(points)).double().expand(len(points))
        - problem.compute_solution(points)[:, 0]
    )
    return float(error.square().mean())
