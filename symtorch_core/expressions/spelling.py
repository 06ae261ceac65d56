"""Rewriting of equations in the operators that a search has."""

from __future__ import annotations

from collections.abc import Collection

from symtorch_core.expressions.tree import Call, Constant, Expression, count_nodes, whole_power

_MOST_NODES = 1000
"""A power is written as a product of at most this many nodes."""


def respell(expression: Expression, operators: Collection[str]) -> Expression:
    """Return the same value in these operators, as far as differences, quotients and integer powers allow.

    Other operators stay unchanged, and so do powers of what is so large that it should not be written several times.

    >>> from symtorch_core.expressions import parse
    >>> print(respell(parse("x - 2/y^2"), {"+", "*", "inv"}))
    x + (-1.0*(2.0*inv(y*y)))
    """
    if not isinstance(expression, Call):
        return expression
    call = Call(expression.operator, *(respell(arg, operators) for arg in expression.args))
    if call.operator in operators:
        return call
    power = whole_power(call)
    if power is not None and "*" in operators and abs(power) * count_nodes(call.args[0]) <= _MOST_NODES:
        product = call.args[0]
        for _ in range(abs(power) - 1):
            product = Call("*", product, call.args[0])
        return product if power > 0 else respell(Call("inv", product), operators)
    match call.operator:
        case "-" if {"+", "*"} <= set(operators):
            return Call("+", call.args[0], Call("*", Constant(-1.0), call.args[1]))
        case "neg" if "*" in operators:
            return Call("*", Constant(-1.0), call.args[0])
        case "/" if {"*", "inv"} <= set(operators):
            return Call("*", call.args[0], Call("inv", call.args[1]))
        case "inv" if "/" in operators:
            return Call("/", Constant(1.0), call.args[0])
    return call
