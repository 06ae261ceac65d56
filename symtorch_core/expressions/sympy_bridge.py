"""Conversion of trees to sympy and back."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.operators import OPERATORS
from symtorch_core.expressions.tree import Call, Constant, Expression, Variable

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it


def to_sympy(expression: Expression, digits: int | None = None, *, real: bool = True) -> sp.Expr:
    """Return the expression as a sympy object.

    Args:
        expression: the expression to convert.
        digits: significant digits that constants are rounded to; None keeps them exactly.
        real: whether its symbols are declared as real, as the variables are. sympy takes them for other symbols than
            those it makes of texts and ``sympy.Symbol("x")``: with False, the simplifications for real numbers are made
            (sqrt(x^2) is abs(x)), and the symbols are plain.

    >>> from symtorch_core.expressions import parse
    >>> to_sympy(parse("x*x + 3.0*y"), real=False).diff("x")
    2*x
    """
    import sympy as sp

    if not real:
        exact = to_sympy(expression, digits)
        return exact.xreplace({symbol: sp.Symbol(symbol.name) for symbol in exact.free_symbols})
    if isinstance(expression, Constant):
        return _convert_number(expression.value, digits)
    if isinstance(expression, Variable):
        return sp.Symbol(expression.name, real=True)
    assert isinstance(expression, Call)
    args = [to_sympy(child, digits) for child in expression.args]
    result: sp.Expr = OPERATORS[expression.operator].sympy(*args)
    return result


def _convert_number(value: float, digits: int | None) -> sp.Expr:
    import sympy as sp

    if digits is not None:
        value = float(f"{value:.{digits}g}")
    # Integers, so that x**2.0 and 3.0*x print in the usual way.
    if value.is_integer() and abs(value) < 1e15:
        return sp.Integer(int(value))
    # The shortest decimal that reads back as this number: 0.1, not 0.10000000000000001.
    return sp.Float(repr(value), digits if digits is not None else 17)


@functools.cache
def _get_operators() -> dict[Any, str]:
    """Return the operator of each sympy class."""
    import sympy as sp

    return {
        sp.sin: "sin",
        sp.cos: "cos",
        sp.tan: "tan",
        sp.asin: "asin",
        sp.acos: "acos",
        sp.atan: "atan",
        sp.atan2: "atan2",
        sp.sinh: "sinh",
        sp.cosh: "cosh",
        sp.tanh: "tanh",
        sp.asinh: "asinh",
        sp.acosh: "acosh",
        sp.atanh: "atanh",
        sp.exp: "exp",
        sp.log: "log",
        sp.Abs: "abs",
        sp.sign: "sign",
        sp.erf: "erf",
        sp.erfc: "erfc",
        sp.gamma: "gamma",
        sp.floor: "floor",
        sp.ceiling: "ceil",
        sp.Mod: "mod",
        sp.Max: "max",
        sp.Min: "min",
        sp.And: "logical_and",
        sp.Or: "logical_or",
        sp.StrictGreaterThan: "greater",
        sp.GreaterThan: "greater_equal",
        sp.StrictLessThan: "less",
        sp.LessThan: "less_equal",
    }


def from_sympy(expression: sp.Basic) -> Expression:
    """Return a sympy object as a tree.

    >>> import sympy as sp
    >>> x = sp.Symbol("x")
    >>> print(from_sympy(x**2 / 3 - sp.sin(x)))
    0.3333333333333333*x^2 - sin(x)

    Raises:
        ExpressionError: the object holds something that is not in the operator table (the message names it).
    """
    import sympy as sp

    if isinstance(expression, sp.Symbol):
        return Variable(expression.name)
    if expression in {sp.true, sp.false}:
        return Constant(float(bool(expression)))
    if isinstance(expression, sp.Expr) and expression.is_number:
        return _convert_constant(expression)
    if isinstance(expression, sp.Add):
        return _convert_sum(expression.as_ordered_terms())
    if isinstance(expression, sp.Mul):
        return _convert_product(expression)
    if isinstance(expression, sp.Pow):
        base, exponent = expression.args
        if exponent == -1:
            return Call("inv", from_sympy(base))
        if exponent == sp.Rational(1, 2):
            return Call("sqrt", from_sympy(base))
        return Call("^", from_sympy(base), from_sympy(exponent))
    if isinstance(expression, sp.Piecewise):
        return _convert_pieces(expression.args)
    name = _get_operators().get(expression.func)
    if name is None:
        raise ExpressionError(f"the operator table has no row for sympy's {expression.func.__name__}")
    args = [from_sympy(child) for child in expression.args]
    if len(args) > OPERATORS[name].arity:  # Max and Min take any number in sympy
        return functools.reduce(lambda left, right: Call(name, left, right), args)
    return Call(name, *args)


def _convert_constant(number: sp.Expr) -> Constant:
    value = number.evalf(17)
    if not value.is_real:
        raise ExpressionError(f"{number} is not a real number")
    return Constant(float(value))


def _convert_pieces(pieces: Sequence[tuple[sp.Expr, sp.Basic]]) -> Expression:
    """Return the first piece whose condition holds: conditions are 1 or 0, and ``cond`` is 0 unless its is positive."""
    import sympy as sp

    (value, condition), *others = pieces
    if condition == sp.true or not others:
        first = from_sympy(value)
        return first if condition == sp.true else Call("cond", from_sympy(condition), first)
    holds, rest = from_sympy(condition), _convert_pieces(others)
    if rest == Constant(0.0):
        return Call("cond", holds, from_sympy(value))
    fails = Call("-", Constant(1.0), holds)
    return Call("+", Call("cond", holds, from_sympy(value)), Call("cond", fails, rest))


def _convert_sum(terms: Sequence[sp.Basic]) -> Expression:
    result: Expression | None = None
    for term in terms:
        if result is not None and term.as_coeff_Mul()[0].is_negative:
            result = Call("-", result, from_sympy(-term))
        else:
            tree = from_sympy(term)
            result = tree if result is None else Call("+", result, tree)
    assert result is not None
    return result


def _convert_product(expression: sp.Mul) -> Expression:
    import sympy as sp

    numerator, denominator = sp.fraction(expression)
    if denominator != 1 and not denominator.is_number:
        return Call("/", from_sympy(numerator), from_sympy(denominator))
    coefficient, rest = expression.as_coeff_Mul()
    if coefficient == -1:
        return Call("neg", from_sympy(rest))
    return functools.reduce(
        lambda left, right: Call("*", left, right),
        [from_sympy(factor) for factor in expression.as_ordered_factors()],
    )
