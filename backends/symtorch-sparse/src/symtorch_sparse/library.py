"""The library: every term that an equation may be a sum of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Call, Expression, Program, Variable, simplify

_SUMS = frozenset({"+", "-", "*"})
_CONSTANT = 1e-12
_LARGEST = 1e100
"""Squares of larger numbers, summed, would leave float64."""
_SYMMETRIC = frozenset({"max", "min", "logical_or", "logical_and"})


def library(
    search: SearchSpace, names: Sequence[str], degree: int, mixed: bool, most: int
) -> list[Expression]:
    """Terms in the inputs, each once.

    Products of inputs up to a degree; every unary operator of each input; every other binary operator of each pair of
    inputs; where asked, every unary operator of an input times each input.

    Args:
        search: gives the operators.
        names: of the inputs.
        degree: of the products.
        mixed: whether functions are multiplied by inputs too.
        most: terms there may be at most.

    >>> space = SearchSpace(unary_operators=("sin",))
    >>> [str(term) for term in library(space, ["a", "b"], 2, False, 99)]
    ['a', 'b', 'square(a)', 'a*b', 'square(b)', 'sin(a)', 'sin(b)']

    Raises:
        SearchError: there would be more.
    """
    kept: dict[Expression, None] = {}
    for term in _terms(search, names, degree, mixed):
        kept[simplify(term)] = None
        if len(kept) > most:
            raise SearchError(
                f"the library of {len(names)} inputs up to degree {degree} has more than {most} terms: lower degree=, "
                "reduce the inputs first (reducer=), or raise most_terms="
            )
    return list(kept)


def _terms(search: SearchSpace, names: Sequence[str], degree: int, mixed: bool) -> Iterator[Expression]:
    inputs = [Variable(name) for name in names]
    for order in range(1, degree + 1):
        for factors in itertools.combinations_with_replacement(inputs, order):
            yield _product(factors)
    functions = [Call(name, x) for name in search.unary_operators for x in inputs]
    yield from functions
    for name in search.binary_operators:
        if name not in _SUMS:
            pairs = itertools.combinations if name in _SYMMETRIC else itertools.permutations
            yield from (Call(name, a, b) for a, b in pairs(inputs, 2))
    if mixed:
        yield from (Call("*", function, x) for function in functions for x in inputs)


def _product(factors: Sequence[Expression]) -> Expression:
    return reduce(lambda left, right: Call("*", left, right), factors)


@final
class Columns:
    """Terms as one program that shares what they have in common, asked a few rows at a time.

    Args:
        terms: in the names of the inputs; without constants of their own.
        names: of the inputs.
    """

    def __init__(self, terms: Sequence[Expression], names: Sequence[str]) -> None:
        self._program = Program(terms, names)
        # About 64 MB of columns at once.
        self.rows_at_once = max(256, 8_000_000 // max(1, len(terms)))

    def __call__(self, X: Tensor) -> Tensor:
        """Values of the terms, shape (n, len(terms)), for rows X, shape (n, d), in float64."""
        rows = X.double()
        values: Tensor = self._program(rows, rows.new_zeros(0))
        return values


def usable(terms: Sequence[Expression], X: Tensor, names: Sequence[str]) -> list[Expression]:
    """The terms that are finite on all rows of X, shape (n, d), and so are their squares, and not one number on all of
    them."""
    finite = torch.ones(len(terms), dtype=torch.bool)
    low = torch.full((len(terms),), torch.inf, dtype=torch.float64)
    high = -low
    columns = Columns(terms, names)
    for rows in X.split(columns.rows_at_once):
        values = columns(rows)
        finite &= (values.abs() < _LARGEST).all(0)  # NaN is not
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    varies = (high - low) > _CONSTANT * torch.maximum(high.abs(), low.abs())
    return [term for term, good in zip(terms, (finite & varies).tolist(), strict=True) if good]
