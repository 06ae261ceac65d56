"""Equations as sums of terms: what they are, and how much of an equation's variance each one makes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.expressions import Call, Constant, Expression, Variable, evaluate, to_text, variables

_SIGNS = {"+": 1.0, "-": -1.0}


@final
@dataclass(frozen=True)
class Term:
    """One summand of an equation: a number times a product of expressions.

    Attributes:
        coefficient: the number.
        factors: each with a variable, in the order of their text; empty for a constant.
    """

    coefficient: float
    factors: tuple[Expression, ...]

    @property
    def expression(self) -> Expression:
        """The term as an expression."""
        return _multiply([Constant(self.coefficient), *self.factors])

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of its variables, each once."""
        return tuple(dict.fromkeys(name for factor in self.factors for name in variables(factor)))

    def to_text(self, digits: int = 3) -> str:
        """Return the term as text, with so many digits."""
        return to_text(self.expression, digits)


def split_terms(expression: Expression) -> tuple[Term, ...]:
    """Split an expression into the terms of its topmost sum; like terms are one, and numbers are multiplied out.

    >>> from symtorch_core.expressions import parse
    >>> [term.to_text() for term in split_terms(parse("2*(x - 3*y*x) - x*y + sin(x + y)"))]
    ['2*x', '-7*x*y', '1*sin(x + y)']
    >>> split_terms(parse("-(3/(2*x + 1))"))[0].to_text()
    '-3*(1/(2*x + 1))'
    """
    found: dict[tuple[Expression, ...], float] = {}
    for term in _split(expression, 1.0):
        found[term.factors] = found.get(term.factors, 0.0) + term.coefficient
    return tuple(Term(coefficient, factors) for factors, coefficient in found.items() if coefficient)


def _split(node: Expression, scale: float) -> Iterator[Term]:
    if isinstance(node, Call) and node.operator in _SIGNS:
        yield from _split(node.args[0], scale)
        yield from _split(node.args[1], scale * _SIGNS[node.operator])
        return
    number, factors = _factor(node)
    if not math.isfinite(scale * number):  # too large for a number: left as it is
        yield Term(scale, (node,))
    elif len(factors) == 1 and isinstance(factors[0], Call) and factors[0].operator in _SIGNS:
        yield from _split(factors[0], scale * number)
    else:
        yield Term(scale * number, tuple(sorted(factors, key=str)))


def _factor(node: Expression) -> tuple[float, list[Expression]]:
    """Return the numbers of a product, multiplied, and its other factors; of what has no such number, 1 and itself."""
    if isinstance(node, Constant):
        return node.value, []
    if isinstance(node, Call) and node.operator == "neg":
        number, factors = _factor(node.args[0])
        return -number, factors
    if isinstance(node, Call) and node.operator == "*":
        (left, some), (right, others) = map(_factor, node.args)
        if math.isfinite(left * right):
            return left * right, [*some, *others]
    if isinstance(node, Call) and node.operator == "/":
        (left, some), (right, others) = map(_factor, node.args)
        if right and not others and math.isfinite(left / right):
            return left / right, some
        if right and not some and math.isfinite(left / right):
            return left / right, [Call("/", Constant(1), _multiply(others))]
    return 1.0, [node]


def _multiply(factors: Sequence[Expression]) -> Expression:
    return functools.reduce(lambda product, factor: Call("*", product, factor), factors)


def evaluate_terms(terms: Sequence[Term], names: Sequence[str], z: Tensor) -> Tensor:
    """Return the values of terms on rows, shape (n, len(terms)).

    Args:
        terms: of equations in these names.
        names: of the columns.
        z: rows, shape (n, len(names)).
    """
    columns = dict(zip(names, z.unbind(-1), strict=True))
    values = [evaluate(term.expression, columns).expand(z.shape[:-1]) for term in terms]
    return torch.stack(values, -1) if values else z.new_zeros(*z.shape[:-1], 0)


def compute_shares(covariance: Tensor) -> Tensor:
    """Return the share of each term in the variance of their sum; together 1, and negative where one cancels others.

    Args:
        covariance: of the terms, shape (m, m).

    Returns:
        cov(term, sum) / var(sum), shape (m,); NaN where the sum does not vary.

    >>> compute_shares(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([0.7500, 0.2500])
    """
    with_sum = covariance.sum(1)
    return with_sum / with_sum.sum() if float(with_sum.sum()) > 0 else torch.full_like(with_sum, math.nan)


def name_term(term: Term, labels: Mapping[str, str], digits: int = 3) -> str:
    """Return a term with what its factors are about.

    Args:
        term: of an equation.
        labels: what each variable is about, in words.
        digits: of numbers.

    >>> name_term(Term(0.42, (Variable("z3"), Variable("z7"))), {"z3": "months", "z7": "the"})
    '0.42*z3*z7: (z3: months) x (z7: the)'
    """
    parts = []
    for factor in term.factors:
        about = "; ".join(f"{name}: {labels[name]}" for name in variables(factor) if name in labels)
        shown = f"{to_text(factor, digits)} with " if not isinstance(factor, Variable) else ""
        if about:
            parts.append(f"({shown}{about})")
    return f"{term.to_text(digits)}: {' x '.join(parts)}" if parts else term.to_text(digits)
