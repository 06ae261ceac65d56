"""Is an equation the true law? The laws are polynomials, so their coefficients decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import sympy as sp

from symtorch_arithmetic.tasks import Task
from symtorch_core import Candidate, ParetoFront
from symtorch_core.expressions import Expression, parse, to_sympy

WITHIN: Final = 0.01
"""Largest relative error of a coefficient of an equation that counts as the law."""


@final
@dataclass(frozen=True)
class LawPosition:
    """Position of the true law on a front.

    Attributes:
        candidate: the equation that is the law.
        position: its place from simple to complex, from 1.
        rank: its place by score, from 1.
        of: number of equations on the front.
        error: largest relative error of its coefficients.
    """

    candidate: Candidate
    position: int
    rank: int
    of: int
    error: float


def find_law(front: ParetoFront, task: Task) -> LawPosition | None:
    """Find the equation on the front that is closest to the law; None where none is within :data:`WITHIN`."""
    errors = {
        place: error
        for place, candidate in enumerate(front)
        if (error := measure_law_error(candidate.expression, task)) <= WITHIN
    }
    if not errors:
        return None
    place = min(errors, key=lambda key: (errors[key], key))
    by_score = sorted(range(len(front)), key=lambda key: (-front[key].score, key))
    return LawPosition(front[place], place + 1, by_score.index(place) + 1, len(front), errors[place])


def measure_law_error(expression: Expression, task: Task) -> float:
    """Return the largest relative error of the law's coefficients in an equation; infinite where it is another law.

    Terms that cannot change a rounded answer anywhere in the task's ranges do not count.

    >>> from symtorch_arithmetic.tasks import TASKS
    >>> round(measure_law_error(parse("1.799*x0 + 32"), TASKS["celsius"]), 5)
    0.00056
    >>> measure_law_error(parse("1.8*x0 + 32 + 1/(x0 - 51.9)"), TASKS["celsius"])
    inf
    """
    law, found = _read_coefficients(parse(task.law), task), _read_coefficients(expression, task)
    if found is None or law is None:
        return math.inf
    more = (powers for powers in found if powers not in law)
    if any(abs(found[powers]) * _bound_term(powers, task) >= task.step / 2 for powers in more):
        return math.inf
    return max(abs(found.get(powers, 0.0) - value) / abs(value) for powers, value in law.items())


def _read_coefficients(expression: Expression, task: Task) -> dict[tuple[int, ...], float] | None:
    """Return a polynomial's coefficients by the powers of the variables; None for anything else."""
    symbols = [sp.Symbol(variable, real=True) for variable in task.variables]
    try:
        polynomial = sp.Poly(to_sympy(expression), *symbols)
    except sp.PolynomialError:
        return None
    terms = polynomial.terms()
    if not all(value.is_number and value.is_real for _, value in terms):
        return None
    return {tuple(map(int, powers)): float(value) for powers, value in terms}


def _bound_term(powers: Sequence[int], task: Task) -> float:
    """Return the largest size of a product of powers on the task's ranges."""
    sizes = (max(abs(low), abs(high)) for low, high in task.ranges)
    return math.prod(size**power for size, power in zip(sizes, powers, strict=True))
