"""Text to tree and back. Parsing follows a grammar: nothing that is read is ever executed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, final

from lark import Lark, Transformer, v_args
from lark.exceptions import LarkError, VisitError

from symtorch_core.errors import ExpressionError, did_you_mean
from symtorch_core.expressions.operators import lookup
from symtorch_core.expressions.tree import (
    MAX_DEPTH,
    Call,
    Constant,
    Expression,
    Variable,
    depth,
    is_exponent,
    whole_exponent,
)

if TYPE_CHECKING:
    from symtorch_core.expressions.definitions import Definition

_GRAMMAR = r"""
    ?start: comparison
    ?comparison: sum
        | sum COMPARE sum -> compare
    ?sum: product
        | sum "+" product -> add
        | sum "-" product -> sub
    ?product: unary
        | product "*" unary -> mul
        | product "/" unary -> div
    ?unary: power
        | "-" unary -> minus
        | "+" unary
    ?power: atom
        | atom ("^" | "**") unary -> pow
    ?atom: NUMBER -> number
        | NAME -> name
        | NAME "(" comparison ("," comparison)* ")" -> call
        | "(" comparison ")"
    COMPARE: ">=" | "<=" | ">" | "<"
    NUMBER: /(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?/
    NAME: /[^\W\d]\w*/
    %import common.WS
    %ignore WS
"""
_MAX_LENGTH = 100_000
_COMPARISONS = {">": "greater", "<": "less", ">=": "greater_equal", "<=": "less_equal"}


@final
@v_args(inline=True)
class _Builder(Transformer[Any, Expression]):
    """Builds the tree bottom-up while the parser runs."""

    def __init__(self, definitions: Collection[Definition]) -> None:
        super().__init__()
        self._definitions: Mapping[str, Definition] = {entry.name: entry for entry in definitions}

    def add(self, left: Expression, right: Expression) -> Expression:
        return Call("+", left, right)

    def sub(self, left: Expression, right: Expression) -> Expression:
        return Call("-", left, right)

    def mul(self, left: Expression, right: Expression) -> Expression:
        return Call("*", left, right)

    def div(self, left: Expression, right: Expression) -> Expression:
        return Call("/", left, right)

    def pow(self, base: Expression, exponent: Expression) -> Expression:
        return Call("^", base, exponent)

    def minus(self, value: Expression) -> Expression:
        return Constant(-value.value) if isinstance(value, Constant) else Call("neg", value)

    def compare(self, left: Expression, sign: str, right: Expression) -> Expression:
        return Call(_COMPARISONS[str(sign)], left, right)

    def number(self, token: str) -> Expression:
        return Constant(float(token))

    def name(self, token: str) -> Expression:
        return Variable(str(token))

    def call(self, name: str, *args: Expression) -> Expression:
        name = str(name)
        if name in self._definitions:
            return self._definitions[name].expand(*args)
        if name in {"fma", "muladd"} and len(args) == 3:
            return Call("+", Call("*", args[0], args[1]), args[2])
        if name in {"max", "min", "Max", "Min"} and len(args) > 2:
            return functools.reduce(lambda left, right: Call(name, left, right), args)
        return Call(lookup(name).name, *args)


@functools.lru_cache(maxsize=32)
def _parser(definitions: tuple[Definition, ...]) -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder(definitions))


def parse(
    text: str, variables: Collection[str] | None = None, definitions: Collection[Definition] = ()
) -> Expression:
    """Read an infix expression.

    Args:
        text: infix text with ``+ - * / ^`` (or ``**``), comparisons, and the operators of the table as
            functions; ``pi`` is the number unless it is among the variables.
        variables: the names that may appear; None accepts any.
        definitions: operators beside those of the table; the tree has them written out.

    >>> parse("2*sin(x0) + x1^2", variables=["x0", "x1"]).operator
    '+'

    Raises:
        ExpressionError: the text is not an expression (the message points at the place), names an unknown
            operator or variable, or is longer or deeper than any real equation.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text)} characters is too long (at most {_MAX_LENGTH})")
    try:
        tree: Any = _parser(tuple(definitions)).parse(text)
        expression: Expression = tree
    except VisitError as error:
        if isinstance(error.orig_exc, ExpressionError):
            raise error.orig_exc from None
        raise
    except LarkError as error:
        place = getattr(error, "column", -1)
        where = f" at character {place}" if isinstance(place, int) and place > 0 else ""
        raise ExpressionError(
            f"cannot read {text[:200]!r} as an expression{where}: check signs and brackets"
        ) from None
    if depth(expression) > MAX_DEPTH:
        raise ExpressionError(
            f"the expression is nested {depth(expression)} levels deep (at most {MAX_DEPTH})"
        )
    return _resolve_names(expression, None if variables is None else frozenset(variables))


def _resolve_names(expression: Expression, known: frozenset[str] | None) -> Expression:
    if isinstance(expression, Variable):
        if expression.name == "pi" and (known is None or "pi" not in known):
            return Constant(math.pi)
        if known is not None and expression.name not in known:
            hint = did_you_mean(expression.name, known)
            raise ExpressionError(
                f"unknown variable {expression.name!r}.{hint} Known variables: {', '.join(sorted(known))}"
            )
        return expression
    if isinstance(expression, Call):
        args = [_resolve_names(child, known) for child in expression.args]
        if expression.operator == "neg" and isinstance(args[0], Constant) and args != [*expression.args]:
            return Constant(-args[0].value)  # -pi is a number, like -3
        return Call(expression.operator, *args)
    return expression


# How tightly each printed form binds; an argument that binds less gets brackets.
_SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(5)
_INFIX = {
    "+": (_SUM, " + "),
    "-": (_SUM, " - "),
    "*": (_PRODUCT, "*"),
    "/": (_PRODUCT, "/"),
    "^": (_POWER, "^"),
}


def to_text(expression: Expression, digits: int | None = None) -> str:
    """Infix text with as few brackets as the grammar allows.

    Args:
        expression: what to print.
        digits: significant digits of the constants, for people: squares, cubes and inverses are then written as
            powers and quotients. None prints what :func:`parse` reads back to an equal tree.

    >>> to_text(parse("(x - (square(y) - 1)) * 3.14159265"), digits=4)
    '(x - (y^2 - 1))*3.142'
    """
    if digits is None:
        return _print(expression, repr)[0]

    def show(value: float) -> str:
        return f"{value:.{digits}g}"

    return _print(_readable(expression, show), show)[0]


def _readable(node: Expression, show: Callable[[float], str]) -> Expression:
    """The same value in the notation people use."""
    if not isinstance(node, Call):
        return node
    args = [_readable(child, show) for child in node.args]
    match node.operator:
        case "^" if isinstance(args[1], Constant) and not args[1].value.is_integer():
            # Rounded here: an exponent that becomes whole is written as a whole number.
            return Call("^", args[0], Constant(float(show(args[1].value))))
        case "square":
            return Call("^", args[0], Constant(2))
        case "cube":
            return Call("^", args[0], Constant(3))
        case "inv":
            return Call("/", Constant(1), args[0])
    return Call(node.operator, *args)


def _print(node: Expression, show: Callable[[float], str]) -> tuple[str, int]:
    if isinstance(node, Variable):
        return node.name, _ATOM
    if isinstance(node, Constant):
        text = show(node.value)
        return text, _UNARY if text.startswith("-") else _ATOM
    assert isinstance(node, Call)
    printed = [_print(child, show) for child in node.args]

    def bracket(position: int, least: int) -> str:
        text, binding = printed[position]
        return text if binding >= least else f"({text})"

    if node.operator == "neg" and not isinstance(node.args[0], Constant):
        return f"-{bracket(0, _UNARY)}", _UNARY
    if node.operator not in _INFIX:
        return f"{node.operator}({', '.join(text for text, _ in printed)})", _ATOM
    binding, sign = _INFIX[node.operator]
    if node.operator == "^":
        exponent = str(whole_exponent(node)) if is_exponent(node, 1) else bracket(1, _ATOM)
        return f"{bracket(0, _ATOM)}{sign}{exponent}", binding
    # Left-associative: a right argument of the same level keeps its brackets, and so does a leading minus
    # there.
    right_text, right_binding = printed[1]
    negative = right_text.startswith("-")
    right = right_text if right_binding > binding and not negative else f"({right_text})"
    return f"{bracket(0, binding)}{sign}{right}", binding
