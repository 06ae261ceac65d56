"""Conversion of trees to sympy and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.operators import OPERATORS
from symtorch_core.expressions.torch_programs import compute_numbers
from symtorch_core.expressions.tree import (
    Call,
    Constant,
    Expression,
    Variable,
    count_nodes,
    is_exponent,
    walk_up,
    whole_exponent,
)

if TYPE_CHECKING:
    import sympy as sp  # heavy: each function that needs it imports it

MOST_NODES: Final = 400
"""sympy works out an equation of at most this many nodes, ..."""
MOST_LEVELS: Final = 40
"""... at most this deep, where a long sum or product is one level, and (a function may take forever) of ..."""
MOST_TERMS: Final = 30
"""... functions of at most this many terms, once products and powers of sums are multiplied out, ..."""
MOST_TERMS_OF_CASES: Final = 6
"""... or this many, if sympy must find out which case of the function holds, or there are functions in it, ..."""
MOST_DEGREE: Final = 12
"""... of at most this degree, ..."""
MOST_FUNCTIONS: Final = 2
"""... with at most this many functions in each other, ..."""
MOST_DIGITS: Final = 1000
"""... and of numbers with at most this many digits once their powers are worked out."""
_COUNTLESS: Final = 10**6
_POWERS: Final = {"+": 1, "-": 1, "*": 1, "/": 1, "neg": 1, "inv": 1, "square": 2, "cube": 3}
_CASES: Final = {
    "pow_abs", "max", "min", "mod", "atan2", "greater", "less", "greater_equal", "less_equal", "cond", "logical_or",
    "logical_and", "clamp", "cbrt", "sign", "relu", "atanh_clip", "floor", "ceil", "round", "gamma",
}  # fmt: skip


def to_sympy(expression: Expression, digits: int | None = None, *, real: bool = True) -> sp.Expr:
    """Return the expression as a sympy object, in a time that grows with its size.

    Functions of numbers become numbers. sympy's own functions stand for all others, as long as their arguments are
    short (see the limits above): what sympy asks about a long one may take forever. Beyond that, the functions of the
    result are only names, those of the table, and so are powers of numbers that no float holds.

    Args:
        expression: the expression to convert.
        digits: significant digits that constants are rounded to; None keeps them exactly.
        real: whether its symbols are declared as real, as the variables are. sympy takes them for other symbols than
            those it makes of texts and ``sympy.Symbol("x")``: with False, the simplifications for real numbers are made
            (sqrt(x^2) is abs(x)), and the symbols are plain.

    >>> from symtorch_core.expressions import parse
    >>> to_sympy(parse("x*x + 3.0*y"), real=False).diff("x")
    2*x
    >>> to_sympy(parse("9^9^9^9 + x"))
    x + pow(9, pow(9, 387420489))
    """
    import sympy as sp

    numbers = compute_numbers(expression)
    if _is_short(expression, numbers):
        try:
            exact = _build(expression, digits, numbers, real=True, by_name=False)
            if real:
                return exact
            return exact.xreplace({symbol: sp.Symbol(symbol.name) for symbol in exact.free_symbols})
        except (ArithmeticError, TypeError, ValueError):  # sympy met a pole, or compared what is not real
            pass
    with sp.evaluate(False):
        return _build(expression, digits, numbers, real=real, by_name=True)


def _build(
    expression: Expression, digits: int | None, numbers: Mapping[int, float], *, real: bool, by_name: bool
) -> sp.Expr:
    """Return the expression in sympy, with its functions as sympy's or only by name."""
    import sympy as sp

    built: dict[int, sp.Expr] = {}
    for node in walk_up(expression):
        args = [built[id(child)] for child in node.args]
        number = numbers.get(id(node), math.nan)
        if isinstance(node, Variable):
            built[id(node)] = sp.Symbol(node.name, real=True) if real else sp.Symbol(node.name)
            continue
        is_exact = isinstance(node, Call) and _get_power(node) is not None
        if math.isfinite(number) and not (is_exact and not by_name):
            built[id(node)] = _convert_number(number, digits)
            continue
        assert isinstance(node, Call)
        if by_name and (not is_exact or id(node) in numbers):
            built[id(node)] = sp.Function(_NAMES.get(node.operator, node.operator))(*args)
        elif by_name and node.operator in {"+", "-"}:
            right = args[1] if node.operator == "+" else -args[1]
            built[id(node)] = sp.Add(*_split(sp.Add, args[0]), *_split(sp.Add, right))
        elif by_name and node.operator == "*":
            built[id(node)] = sp.Mul(*_split(sp.Mul, args[0]), *_split(sp.Mul, args[1]))
        else:
            built[id(node)] = OPERATORS[node.operator].sympy(*args)
    return built[id(expression)]


def _split(kind: Any, part: sp.Expr) -> tuple[sp.Expr, ...]:
    """Return the terms of a short sum or the factors of a short product, so that a long one is not as deep as long."""
    parts: tuple[sp.Expr, ...] = kind.make_args(part)
    return parts if len(parts) <= _MOST_SPLIT else (part,)


_MOST_SPLIT: Final = 16
_NAMES: Final = {
    "+": "add",
    "-": "sub",
    "*": "mul",
    "/": "div",
    "^": "pow",
    "max": "Max",
    "min": "Min",
    "abs": "Abs",
}


def _get_power(node: Call) -> int | None:
    """Return the power to which sums, products and whole powers raise their arguments; None for another operator."""
    if node.operator == "^":
        return max(1, abs(whole_exponent(node))) if is_exponent(node, 1) else None
    return _POWERS.get(node.operator)


def _get_chain(node: Expression) -> str | None:
    """Return whether a node is part of a sum or of a product, which sympy flattens; None for any other."""
    return {"+": "sum", "-": "sum", "*": "product"}.get(node.operator) if isinstance(node, Call) else None


@final
@dataclass(frozen=True)
class _Size:
    """What sympy's work on a part of an expression depends on: see the limits above."""

    terms: int = 1
    degree: int = 1
    functions: int = 0
    digits: int = 0
    levels: int = 1


def _is_short(expression: Expression, numbers: Mapping[int, float]) -> bool:
    """Return whether sympy works out the expression within a second, as far as its limits say."""
    if count_nodes(expression) > MOST_NODES or not all(map(math.isfinite, numbers.values())):
        return False
    sizes: dict[int, _Size] = {}
    for node in walk_up(expression):
        size = _measure(node, [sizes[id(child)] for child in node.args], id(node) in numbers)
        if size is None:
            return False
        sizes[id(node)] = size
    return True


def _measure(node: Expression, args: Sequence[_Size], is_number: bool) -> _Size | None:
    """Return the size of a node with arguments of these sizes; None if it is beyond a limit."""
    if isinstance(node, Constant):
        return _Size(degree=0, digits=len(f"{node.value:.0f}") if node.value.is_integer() else 0)
    if isinstance(node, Variable):
        return _Size()
    assert isinstance(node, Call)
    power = _get_power(node)
    if power is None and is_number:
        return _Size(degree=0, digits=17)
    functions = max(size.functions for size in args)
    kind = _get_chain(node)
    levels = max(
        size.levels + (kind is None or _get_chain(child) != kind)
        for child, size in zip(node.args, args, strict=True)
    )
    digits = (power or 1) * sum(size.digits for size in args)
    if digits > MOST_DIGITS or levels > MOST_LEVELS:
        return None
    if power is None:
        terms = sum(size.terms for size in args)
        most = MOST_TERMS_OF_CASES if functions or node.operator in _CASES else MOST_TERMS
        degree = max(size.degree for size in args)
        if terms > most or degree > MOST_DEGREE or functions >= MOST_FUNCTIONS:
            return None
        return _Size(terms, degree, functions + 1, digits, levels)
    if kind == "sum":
        terms, degree = sum(size.terms for size in args), max(size.degree for size in args)
    else:
        terms, degree = math.prod(size.terms for size in args), sum(size.degree for size in args)
    return _Size(_raise(terms, power), power * degree, functions, digits, levels)


def _raise(terms: int, power: int) -> int:
    """Return the power of a number of terms, or a large number in its place."""
    return terms**power if power * math.log(terms) < math.log(_COUNTLESS) else _COUNTLESS


def _convert_number(value: float, digits: int | None) -> sp.Expr:
    import sympy as sp

    if digits is not None:
        rounded = float(f"{value:.{digits}g}")
        value = rounded if math.isfinite(rounded) else value  # 1.798e308 is none
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
