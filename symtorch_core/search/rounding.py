"""Rounding of fitted constants to small fractions and multiples of pi and e, where the rows do not object."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, final

from symtorch_core.expressions import Expression, constants, simplify, with_constants
from symtorch_core.search.constants import refit_constants
from symtorch_core.search.front import Candidate
from symtorch_core.search.rows import Rows

_WITHIN = 2.0
"""A constant is rounded to a number that is at most this many of its standard errors away."""
_APART = 2.0
"""Numbers of one kind must be this many times further apart than they may be away, or a match would be chance."""
_LARGEST_PART = 12
"""Largest numerator of fractions, and of multiples of pi and e."""


@final
@dataclass(frozen=True)
class _Kind:
    """The multiples of unit / denominator; ``density`` counts all simpler ones too, and how unusual the unit is."""

    unit: float
    symbol: str
    denominator: int
    density: float

    def nearest(self, value: float) -> tuple[float, str] | None:
        """Return the nearest multiple that is not zero, and how it is written; None for none in lowest terms."""
        numerator = round(value * self.denominator / self.unit)
        if numerator == 0 or math.gcd(numerator, self.denominator) > 1:
            return None
        if abs(numerator) > _LARGEST_PART and (self.symbol or self.denominator > 1):
            return None
        below = f"/{self.denominator}" if self.denominator > 1 else ""
        sign, size = "-" if numerator < 0 else "", abs(numerator)
        above = str(size) if not self.symbol else self.symbol if size == 1 else f"{size}*{self.symbol}"
        return numerator * self.unit / self.denominator, f"{sign}{above}{below}"

    @property
    def spacing(self) -> float:
        return self.unit / self.denominator


def _list_kinds() -> Iterator[_Kind]:
    for unit, symbol, denominators, rarity in (
        (1.0, "", (1, 2, 3, 4, 5, 6), 1),
        (math.pi, "pi", (1, 2, 3, 4, 6), 2),
        (math.e, "e", (1, 2), 4),
    ):
        count = 0
        for denominator in denominators:
            count += sum(math.gcd(part, denominator) == 1 for part in range(1, denominator + 1))
            yield _Kind(unit, symbol, denominator, rarity * count / unit)


_KINDS: Final = tuple(_list_kinds())


@final
@dataclass(frozen=True)
class RoundedConstant:
    """A constant that was set to an exact number.

    Attributes:
        equation: name of its equation.
        before: its value.
        error: its standard error.
        after: the exact number.
        text: how that is written, as ``"1/3"`` or ``"2*pi"``.
    """

    equation: str
    before: float
    error: float
    after: float
    text: str


def find_exact_numbers(value: float, error: float) -> list[tuple[float, str]]:
    """Return simple numbers within two standard errors of a value, the least surprising first.

    Only kinds of numbers are tried that are too far apart for a match by chance: a third, for an error of 0.02 or less.
    A number is the less surprising, the closer it is and the fewer numbers are as simple.

    >>> find_exact_numbers(0.334, 0.01)
    [(0.3333333333333333, '1/3')]
    >>> find_exact_numbers(0.334, 0.3)
    []
    """
    found = []
    for kind in _KINDS:
        number = kind.nearest(value)
        if number is None or kind.spacing < 2 * _WITHIN * _APART * error:
            continue
        distance = abs(number[0] - value) / error
        if distance <= _WITHIN:
            found.append((distance**2 / 2 + math.log(kind.density), number))
    return [number for _, number in sorted(found)]


def is_exact(value: float) -> bool:
    """Return whether a constant is one of the numbers that others are rounded to."""
    return any((found := kind.nearest(value)) is not None and found[0] == value for kind in _KINDS)


def round_constants(
    candidate: Candidate, rows: Rows, name: str
) -> tuple[Candidate, tuple[RoundedConstant, ...]]:
    """Return a candidate with constants set to simple numbers that the rows cannot tell from them, and these.

    One constant is set at a time, the least surprising first; the others are then fitted again. A number is kept if the
    loss rises by no more than two standard errors of that constant explain: by 4 / (n - k) of itself.

    Args:
        candidate: an equation with its best constants under the loss mse.
        rows: the rows of its fit.
        name: name of the equation.
    """
    expression, done = candidate.expression, []
    exact = {value for value in constants(expression) if is_exact(value)}
    refused: set[tuple[int, float]] = set()
    floor = rows.loss_of_rounding()
    while True:
        values, fixed = constants(expression), _find_positions(expression, exact)
        errors = rows.estimate_errors(expression, fixed)
        proposals = [
            (order, position, number)
            for position, error in enumerate(errors or ())
            if error
            for order, number in enumerate(find_exact_numbers(values[position], error))
            if (position, number[0]) not in refused
        ]
        if not proposals or errors is None:
            break
        _, position, (number, text) = min(proposals)
        trial = with_constants(expression, [*values[:position], number, *values[position + 1 :]])
        trial = _refit(trial, rows, exact | {number})
        loss = rows.measure(expression).loss
        counted = len(rows.target) if rows.weights is None else int((rows.weights > 0).sum())
        limit = loss * (1 + _WITHIN**2 / max(1, counted - len(values)))
        if rows.measure(trial).loss > max(limit, floor):
            refused.add((position, number))
            continue
        error = errors[position]
        assert error is not None
        done.append(RoundedConstant(name, values[position], error, number, text))
        expression, refused = trial, set()
        exact.add(number)
    if not done:
        return candidate, ()
    rounded = rows.measure(simplify(expression))
    errors = rows.estimate_errors(rounded.expression, _find_positions(rounded.expression, exact))
    return replace(rounded, errors=errors), tuple(done)


def _find_positions(expression: Expression, exact: set[float]) -> tuple[int, ...]:
    return tuple(position for position, value in enumerate(constants(expression)) if value in exact)


def _refit(expression: Expression, rows: Rows, exact: set[float]) -> Expression:
    return refit_constants(
        expression,
        rows.columns,
        rows.target,
        rows.weights,
        rows.search.loss_function,
        exact=_find_positions(expression, exact),
    )
