"""Limits of what sympy is asked to work out, and the sizes of expressions that they limit.

Nobody can say how long sympy takes for a function of a long argument. These limits come from measurements: within
them, conversion and printing of random expressions took a fraction of a second each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

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

MOST_NODES: Final = 400
"""sympy works out an equation of at most this many nodes, ..."""
MOST_LEVELS: Final = 40
"""... at most this deep, where a long sum or product is one level, and (a function may take forever) of ..."""
MOST_TERMS: Final = 30
"""... functions of at most this many terms, once products and powers of sums are multiplied out, ..."""
MOST_TERMS_OF_CASES: Final = 6
"""... or this many, if sympy must find out which case of the function holds, or there are functions in it, ..."""
MOST_DEGREE: Final = 12
"""... of at most this degree (half of it, with functions in it), ..."""
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


def get_power(node: Call) -> int | None:
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


def is_short(expression: Expression, numbers: Mapping[int, float]) -> bool:
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
    power = get_power(node)
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
        if terms > most or degree > MOST_DEGREE // (1 + functions) or functions >= MOST_FUNCTIONS:
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
