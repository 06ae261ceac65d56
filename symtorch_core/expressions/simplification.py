"""Simplification: rewriting an expression into a shorter one of the same value.

Symbolic regression leaves superfluous numbers: weights of one, sums of constants, a scale inside and outside a
bracket. Each makes an equation harder to read and its constants impossible to fit (only their product matters).
The rules here use real algebra that holds wherever the original is defined; nothing is cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch

from symtorch_core.expressions.operators import OPERATORS
from symtorch_core.expressions.tree import (
    MAX_DEPTH,
    Call,
    Constant,
    Expression,
    Variable,
    constants,
    count_nodes,
    depth,
    walk_up,
    whole_power,
)

_MOST_FACTORS = 64
"""Powers of powers are multiplied out up to this number of factors."""
_MOST_NODES = 2000
"""Larger expressions are left as they are."""
_ROUNDS = 4
_LARGEST_EXPONENT = 20.0
"""exp(x + c) becomes exp(c) exp(x) up to this |c|: for larger c, exp(x) may overflow where exp(x + c) does not."""
_SIGN_ONLY = {"cond": (0,), "logical_or": (0, 1), "logical_and": (0, 1)}
"""Arguments of which only the sign counts."""
_COMPARISONS = frozenset({"greater", "less", "greater_equal", "less_equal"})
_LOG_BASE = {"log": math.e, "log_abs": math.e, "log2": 2.0, "log2_abs": 2.0, "log10": 10.0, "log10_abs": 10.0}


@final
@dataclass(frozen=True)
class _Sum:
    """The form constant + sum of coefficient * term; no term is a sum or a number, or has a numeric factor."""

    constant: float = 0.0
    terms: Mapping[Expression, float] = field(default_factory=dict)

    def plus(self, other: _Sum, factor: float = 1.0) -> _Sum:
        """Return self + factor * other, without the terms that vanish."""
        terms = dict(self.terms)
        for term, coefficient in other.terms.items():
            terms[term] = terms.get(term, 0.0) + factor * coefficient
        kept = {term: coefficient for term, coefficient in terms.items() if coefficient != 0.0}
        return _Sum(self.constant + factor * other.constant, kept)

    def times(self, factor: float) -> _Sum:
        return _Sum().plus(self, factor)

    def single(self) -> tuple[Expression, float] | None:
        """Return (term, coefficient) if there is one term and no constant; else None."""
        return next(iter(self.terms.items())) if len(self.terms) == 1 and self.constant == 0.0 else None

    @property
    def lead(self) -> float:
        """Coefficient of the term that is printed first; one if there is no term."""
        positive = (coefficient for coefficient in self.terms.values() if coefficient > 0)
        return next(positive, next(iter(self.terms.values()), 1.0))


@final
@dataclass(frozen=True)
class _Product:
    """The form coefficient * product of above / product of below; factors are neither numbers nor products."""

    coefficient: float = 1.0
    above: tuple[Expression, ...] = ()
    below: tuple[Expression, ...] = ()

    def times(self, other: _Product) -> _Product:
        return _Product(
            self.coefficient * other.coefficient, self.above + other.above, self.below + other.below
        )

    def over(self, other: _Product) -> _Product:
        # Not times the inverse: 49 * (1 / 49) is less than one, so that its floor is zero.
        return _Product(
            self.coefficient / other.coefficient, self.above + other.below, self.below + other.above
        )

    def to_the(self, power: int) -> _Product:
        above, below = (self.above, self.below) if power > 0 else (self.below, self.above)
        return _Product(self.coefficient**power, above * abs(power), below * abs(power))


def simplify(expression: Expression) -> Expression:
    """Return a shorter expression of the same value, or the expression itself.

    Numbers are folded and moved outwards, like terms are collected, and repeated factors are written as powers.
    The result never has more nodes than the original. An expression of more than 2000 nodes is returned as it is.

    >>> from symtorch_core.expressions import parse
    >>> print(simplify(parse("0.5*(2*x + 4*sin(1.0*y)) - 3 + 1")))
    x + 2.0*sin(y) - 2.0
    >>> print(simplify(parse("(2*x)*(3*x)*y")))
    6.0*square(x)*y
    """
    best, current = expression, expression
    if count_nodes(expression) > _MOST_NODES:
        return expression
    for _ in range(_ROUNDS):
        try:
            current = _Pass().rewrite(current)
        except (
            OverflowError,
            ZeroDivisionError,
            ValueError,
        ):  # a folded number left the floating-point range, or a sum would be too deep
            return best
        if current == best:
            break
        if _size(current) > _size(best) or depth(current) > MAX_DEPTH:
            break
        best = current
    return best


def _size(expression: Expression) -> tuple[int, int]:
    return count_nodes(expression), len(constants(expression))


def _check_finite(value: float) -> float:
    if not math.isfinite(value):
        raise OverflowError
    return value


def _check_length(parts: Sequence[object]) -> None:
    """Refuse a sum or product that would be nested too deeply, since each sign has two arguments."""
    if len(parts) > MAX_DEPTH:
        raise OverflowError


@final
class _Pass:
    """One pass over an expression, which remembers the form of every part, since outer forms need inner ones."""

    def __init__(self) -> None:
        self._sums: dict[Expression, _Sum] = {}
        self._products: dict[Expression, _Product] = {}

    def rewrite(self, expression: Expression) -> Expression:
        """Return the expression in its new form."""
        for node in walk_up(expression):  # inner forms first, so that outer ones find them and do not go down
            self.sum_of(node)
        return _from_sum(self.sum_of(expression))

    def _build(self, total: _Sum) -> Expression:
        """Return a sum as an expression, and remember that this is its form."""
        expression = _from_sum(total)
        self._sums.setdefault(expression, total)
        return expression

    def sum_of(self, node: Expression) -> _Sum:
        """Return the node as constant + coefficient * term + ..."""
        if node not in self._sums:
            self._sums[node] = self._as_sum(node)
        return self._sums[node]

    def product_of(self, node: Expression) -> _Product:
        """Return the node as coefficient * factors; sums among the factors get a leading coefficient of one."""
        if node not in self._products:
            self._products[node] = self._as_product(node)
        return self._products[node]

    def _as_sum(self, node: Expression) -> _Sum:
        if isinstance(node, Constant):
            return _Sum(constant=node.value)
        if isinstance(node, Variable):
            return _Sum(terms={node: 1.0})
        assert isinstance(node, Call)
        if node.operator in {"+", "-"}:
            left, right = map(self.sum_of, node.args)
            return left.plus(right, 1.0 if node.operator == "+" else -1.0)
        if node.operator == "neg":
            return self.sum_of(node.args[0]).times(-1.0)
        if node.operator in _LOG_BASE:
            return self._logarithm(node)
        return self._distribute(self.product_of(node))

    def _distribute(self, product: _Product) -> _Sum:
        """Multiply out a number times a single bracket if that saves numbers."""
        _check_finite(product.coefficient)
        if product.coefficient == 0.0 or not (product.above or product.below):
            return _Sum(constant=product.coefficient)
        if len(product.above) == 1 and not product.below and _is_sum(product.above[0]):
            inner = self.sum_of(product.above[0])
            bare = sum(abs(coefficient) == 1.0 for coefficient in inner.terms.values())
            if bare <= 1 or product.coefficient in {1.0, -1.0}:
                return inner.times(product.coefficient)
        return _Sum(terms={_join(product.above, product.below): product.coefficient})

    def _as_product(self, node: Expression) -> _Product:
        if isinstance(node, Constant):
            return _Product(coefficient=node.value)
        if isinstance(node, Variable):
            return _Product(above=(node,))
        assert isinstance(node, Call)
        if node.operator in {"*", "/"}:
            left, right = map(self.product_of, node.args)
            return self._unit_sums(left.times(right) if node.operator == "*" else left.over(right))
        power = -1 if node.operator == "inv" else whole_power(node)
        if power is not None:
            factor = self._unit_sums(self.product_of(node.args[0]))
            if power == -1 or abs(power) * len(factor.above + factor.below) <= _MOST_FACTORS:
                return factor.to_the(power)
        if node.operator in {"+", "-", "neg"}:
            return self._sum_as_factors(self.sum_of(node))
        return self._function(node)

    def _sum_as_factors(self, total: _Sum) -> _Product:
        if not total.terms:
            return _Product(coefficient=total.constant)
        single = total.single()
        if single is None:
            return _Product(above=(self._build(total),))
        term, coefficient = single
        factors = _Product(above=(term,)) if _is_sum(term) else self.product_of(term)
        return _Product(coefficient).times(factors)

    def _unit_sums(self, product: _Product) -> _Product:
        """Pull the first coefficient out of every sum among several factors: 2 (x + 1) for (2 x + 2)."""
        if len(product.above) == 1 and not product.below and product.coefficient == 1.0:
            return product
        above, pulled_above = self._units(product.above)
        below, pulled_below = self._units(product.below)
        return _Product(_check_finite(product.coefficient * pulled_above / pulled_below), above, below)

    def _units(self, factors: Iterable[Expression]) -> tuple[tuple[Expression, ...], float]:
        units, pulled = [], 1.0
        for factor in factors:
            total = self.sum_of(factor) if _is_sum(factor) else _Sum()
            if total.lead == 1.0:
                units.append(factor)
                continue
            terms = {term: coefficient / total.lead for term, coefficient in total.terms.items()}
            units.append(self._build(_Sum(total.constant / total.lead, terms)))
            pulled *= total.lead
        return tuple(units), pulled

    def _function(self, node: Call) -> _Product:
        """Simplify any other operator: fold numbers, use parity, scaling and exp(a + b) = exp(a) exp(b)."""
        totals = [self.sum_of(child) for child in node.args]
        operator = OPERATORS[node.operator]
        totals, coefficient = _scale_switch(node.operator, totals)
        if operator.arity != 1 or not totals[0].terms:
            call = Call(node.operator, *map(_from_sum, totals))
            if all(isinstance(arg, Constant) for arg in call.args):
                return _Product(coefficient=coefficient * _fold(call))
            return _Product(coefficient=coefficient, above=(call,))
        total = totals[0]
        if node.operator == "exp" and 0.0 < abs(total.constant) <= _LARGEST_EXPONENT:
            coefficient, total = math.exp(total.constant), _Sum(terms=total.terms)
        if total.lead < 0 and operator.parity != 0:
            total, coefficient = total.times(-1.0), coefficient * operator.parity
        single = total.single()
        if operator.degree is not None and single is not None:
            term, scale = single
            coefficient *= abs(scale) ** operator.degree
            total = _Sum(terms={term: math.copysign(1.0, scale)})
        return _Product(coefficient=coefficient, above=(Call(node.operator, _from_sum(total)),))

    def _logarithm(self, node: Call) -> _Sum:
        """Return log(c x) as log(c) + log(x) for a positive number c."""
        total, base = self.sum_of(node.args[0]), _LOG_BASE[node.operator]
        if not total.terms:
            return _Sum(constant=_fold(Call(node.operator, Constant(total.constant))))
        single = total.single()
        if single is None:
            return _Sum(terms={Call(node.operator, _from_sum(total)): 1.0})
        term, scale = single
        sign = math.copysign(1.0, scale) if OPERATORS[node.operator].parity == 0 else 1.0
        argument = _from_sum(_Sum(terms={term: sign}))
        return _Sum(
            constant=math.log(abs(scale)) / math.log(base), terms={Call(node.operator, argument): 1.0}
        )


def _scale_switch(operator: str, totals: Sequence[_Sum]) -> tuple[list[_Sum], float]:
    """Return arguments without factors that change no sign of a switch, and the factor to put before the function."""
    scaled = [_unit(total) if i in _SIGN_ONLY.get(operator, ()) else total for i, total in enumerate(totals)]
    if operator in _COMPARISONS and scaled[0].terms and not scaled[1].terms:
        size = abs(scaled[0].lead)
        return [total.times(1 / size) for total in scaled], 1.0
    if operator != "cond":
        return scaled, 1.0
    decides, value = scaled
    if not value.terms:
        return [decides, _Sum(constant=1.0)], value.constant
    single = value.single()
    return (scaled, 1.0) if single is None else ([decides, _Sum(terms={single[0]: 1.0})], single[1])


def _unit(total: _Sum) -> _Sum:
    """Return a sum with a first coefficient of one or minus one, and the same sign."""
    return total.times(1 / abs(total.lead)) if total.terms else total


def _is_sum(node: Expression) -> bool:
    return isinstance(node, Call) and node.operator in {"+", "-"}


def _fold(call: Call) -> float:
    from symtorch_core.expressions.torch_programs import evaluate  # only folding needs to compute

    return _check_finite(float(evaluate(call, {"_": torch.zeros((), dtype=torch.float64)})))


def _from_sum(total: _Sum) -> Expression:
    _check_finite(total.constant)
    parts = [
        (_check_finite(coefficient), term) for term, coefficient in total.terms.items() if coefficient != 0.0
    ]
    if not parts:
        return Constant(total.constant)
    _check_length(parts)
    # Start with a positive term if there is one, to avoid a leading minus.
    lead = next((position for position, (coefficient, _) in enumerate(parts) if coefficient > 0), None)
    constant = total.constant
    if lead is not None:
        parts.insert(0, parts.pop(lead))
        result = _scale_term(*parts.pop(0))
    elif constant > 0:
        result, constant = Constant(constant), 0.0
    else:
        result = _scale_term(*parts.pop(0))
    for coefficient, term in parts:
        result = Call("+" if coefficient > 0 else "-", result, _scale_term(abs(coefficient), term))
    if constant != 0.0:
        result = Call("+" if constant > 0 else "-", result, Constant(abs(constant)))
    return result


def _scale_term(coefficient: float, term: Expression) -> Expression:
    if coefficient == 1.0:
        return term
    if coefficient == -1.0:
        return Call("neg", term)
    if isinstance(term, Call) and term.operator == "/":
        return Call("/", _scale_term(coefficient, term.args[0]), term.args[1])
    if isinstance(term, Call) and term.operator == "inv":
        return Call("/", Constant(coefficient), term.args[0])
    if isinstance(term, Call) and term.operator == "*":
        return Call("*", _scale_term(coefficient, term.args[0]), term.args[1])
    return Call("*", Constant(coefficient), term)


def _join(above: Iterable[Expression], below: Iterable[Expression]) -> Expression:
    top, bottom = _collect_powers(above), _collect_powers(below)
    if not top:
        return Call("inv", _multiply_all(bottom))
    return Call("/", _multiply_all(top), _multiply_all(bottom)) if bottom else _multiply_all(top)


def _multiply_all(factors: list[Expression]) -> Expression:
    _check_length(factors)
    result = factors[0]
    for factor in factors[1:]:
        result = Call("*", result, factor)
    return result


def _collect_powers(factors: Iterable[Expression]) -> list[Expression]:
    counts: dict[Expression, int] = {}
    for factor in factors:
        counts[factor] = counts.get(factor, 0) + 1
    return [_power(factor, count) for factor, count in counts.items()]


def _power(factor: Expression, count: int) -> Expression:
    if count == 1:
        return factor
    if count in {2, 3}:
        return Call("square" if count == 2 else "cube", factor)
    if count == 4:
        return Call("square", Call("square", factor))
    return Call("^", factor, Constant(count))
