"""The library of terms: equations are sums of some of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import final

import torch
from torch import Tensor

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Call, Expression, Program, Variable, constants, simplify
from symtorch_core.search import list_functions

_SUMS = frozenset({"+", "-", "*"})
_CONSTANT = 1e-12
_LARGEST = 1e100
"""The sum of squares of larger numbers could exceed float64."""
_SYMMETRIC = frozenset({"max", "min", "logical_or", "logical_and"})


def build_library(
    search: SearchSpace, names: Sequence[str], degree: int, mixed: bool, most: int
) -> list[Expression]:
    """Return the terms of the inputs, each once.

    They are products of inputs up to a degree, every unary operator of each input, every other binary operator of each
    pair of inputs and, if ``mixed``, every unary operator of an input times each input.

    Args:
        search: the search space, for its operators.
        names: names of the inputs.
        degree: the highest degree of products.
        mixed: whether functions are also multiplied by inputs.
        most: the largest allowed number of terms.

    >>> space = SearchSpace(unary_operators=("sin",))
    >>> [str(term) for term in build_library(space, ["a", "b"], 2, False, 99)]
    ['a', 'b', 'square(a)', 'a*b', 'square(b)', 'sin(a)', 'sin(b)']

    Raises:
        SearchError: there are more terms than allowed.
    """
    kept: dict[Expression, None] = {}
    for term in _generate_terms(search, names, degree, mixed):
        kept[simplify(term)] = None
        if len(kept) > most:
            raise SearchError(
                f"the library of {len(names)} inputs up to degree {degree} has more than {most} terms: lower degree=, "
                "reduce the inputs first (reducer=), or raise most_terms="
            )
    return list(kept)


def _generate_terms(
    search: SearchSpace, names: Sequence[str], degree: int, mixed: bool
) -> Iterator[Expression]:
    inputs = [Variable(name) for name in names]
    for order in range(1, degree + 1):
        for factors in itertools.combinations_with_replacement(inputs, order):
            yield _multiply(factors)
    operators = list_functions(search, "sparse")
    functions = [operator.build(x) for operator in operators if operator.arity == 1 for x in inputs]
    yield from functions
    for operator in operators:
        if operator.arity == 2 and operator.name not in _SUMS:
            pairs = itertools.combinations if operator.name in _SYMMETRIC else itertools.permutations
            yield from (operator.build(a, b) for a, b in pairs(inputs, 2))
    if mixed:
        yield from (Call("*", function, x) for function in functions for x in inputs)


def _multiply(factors: Sequence[Expression]) -> Expression:
    return reduce(lambda left, right: Call("*", left, right), factors)


@final
class Columns:
    """Evaluates terms as one program with shared subexpressions.

    Args:
        terms: terms in the names of the inputs.
        names: names of the inputs.

    Attributes:
        rows_at_once: rows to evaluate in one call, so that the values take about 64 MB.
    """

    def __init__(self, terms: Sequence[Expression], names: Sequence[str]) -> None:
        self._program = Program(terms, names)
        numbers = [number for term in terms for number in constants(term)]
        self._numbers = torch.tensor(numbers, dtype=torch.float64)
        self.rows_at_once = max(256, 8_000_000 // max(1, len(terms)))

    def __call__(self, X: Tensor) -> Tensor:
        """Return the values of the terms, shape (n, len(terms)), float64, on rows X, shape (n, d)."""
        rows = X.double()
        values: Tensor = self._program(rows, self._numbers.to(rows.device))
        return values


def select_usable_terms(terms: Sequence[Expression], X: Tensor, names: Sequence[str]) -> list[Expression]:
    """Return the terms that vary over the rows of X, shape (n, d), and are finite there, as are their squares."""
    finite = torch.ones(len(terms), dtype=torch.bool)
    low = torch.full((len(terms),), torch.inf, dtype=torch.float64)
    high = -low
    columns = Columns(terms, names)
    for rows in X.split(columns.rows_at_once):
        values = columns(rows)
        finite &= (values.abs() < _LARGEST).all(0)  # False for NaN
        low, high = torch.minimum(low, values.amin(0)), torch.maximum(high, values.amax(0))
    varies = (high - low) > _CONSTANT * torch.maximum(high.abs(), low.abs())
    return [term for term, good in zip(terms, (finite & varies).tolist(), strict=True) if good]
