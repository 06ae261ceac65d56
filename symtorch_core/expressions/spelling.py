"""Rewriting of equations in the operators that a search has."""

from __future__ import annotations

from collections.abc import Collection

from symtorch_core.expressions.tree import Call, Constant, Expression, whole_power


def respell(expression: Expression, operators: Collection[str]) -> Expression:
    """Return the same value in these operators, as far as differences, quotients and integer powers allow.

    Other operators stay unchanged.

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
    if power is not None and "*" in operators:
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
