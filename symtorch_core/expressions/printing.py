"""Printing of trees as text: exact for the parser, or with few digits for people."""

from __future__ import annotations

from collections.abc import Callable

from symtorch_core.expressions.tree import Call, Constant, Expression, write_infix


def to_text(expression: Expression, digits: int | None = None) -> str:
    """Return infix text with as few brackets as the grammar allows.

    Args:
        expression: the expression to print.
        digits: significant digits of the constants, for people: squares, cubes and inverses are then written as
            powers and quotients. With None, :func:`parse` reads the text back to an equal tree.

    >>> from symtorch_core.expressions import parse
    >>> to_text(parse("(x - (square(y) - 1)) * 3.14159265"), digits=4)
    '(x - (y^2 - 1))*3.142'
    """
    if digits is None:
        return write_infix(expression, repr)

    def show(value: float) -> str:
        return f"{value:.{digits}g}"

    return write_infix(_use_common_notation(expression, show), show)


def _use_common_notation(node: Expression, show: Callable[[float], str]) -> Expression:
    """Return the same value in common notation."""
    if not isinstance(node, Call):
        return node
    args = [_use_common_notation(child, show) for child in node.args]
    match node.operator:
        case "^" if isinstance(args[1], Constant) and not args[1].value.is_integer():
            # Rounded here: an exponent that rounds to an integer is written as an integer.
            return Call("^", args[0], Constant(float(show(args[1].value))))
        case "square":
            return Call("^", args[0], Constant(2))
        case "cube":
            return Call("^", args[0], Constant(3))
        case "inv":
            return Call("/", Constant(1), args[0])
    return Call(node.operator, *args)
