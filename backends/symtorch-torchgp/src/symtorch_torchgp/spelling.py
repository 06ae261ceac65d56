"""Equations in the operators that a search has: what people and the simplifier write, said in other words."""

from __future__ import annotations

from collections.abc import Collection

from symtorch_core.expression import Call, Constant, Expression

_POWERS = {"square": 2, "cube": 3}
_LARGEST_POWER = 8


def spelled(expression: Expression, operators: Collection[str]) -> Expression:
    """The same value with these operators, where differences, quotients and whole powers can be said in them.

    Anything else stays as it is.

    >>> from symtorch_core.expression import parse
    >>> print(spelled(parse("x - 2/y^2"), {"+", "*", "inv"}))
    x + (-1.0*(2.0*inv(y*y)))
    """
    if not isinstance(expression, Call):
        return expression
    call = Call(expression.operator, *(spelled(arg, operators) for arg in expression.args))
    if call.operator in operators:
        return call
    power = _whole_power(call)
    if power is not None and "*" in operators:
        product = call.args[0]
        for _ in range(abs(power) - 1):
            product = Call("*", product, call.args[0])
        return product if power > 0 else spelled(Call("inv", product), operators)
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


def _whole_power(call: Call) -> int | None:
    if call.operator in _POWERS:
        return _POWERS[call.operator]
    if call.operator == "^" and isinstance(call.args[1], Constant):
        exponent = call.args[1].value
        if exponent.is_integer() and 0 < abs(exponent) <= _LARGEST_POWER:
            return int(exponent)
    return None
