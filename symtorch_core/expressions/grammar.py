"""Text to tree, by a grammar: nothing that is read is ever executed."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol, final

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
)

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


class Macro(Protocol):
    """A function of expressions that the grammar knows by name, beside the operators of the table."""

    @property
    def name(self) -> str:
        """What it is called in text."""

    def expand(self, *args: Expression) -> Expression:
        """Return the expression that stands for a call with these arguments."""


@final
@v_args(inline=True)
class _Builder(Transformer[Any, Expression]):
    """Builds the tree bottom-up while the parser runs."""

    def __init__(self, definitions: Collection[Macro]) -> None:
        super().__init__()
        self._definitions: Mapping[str, Macro] = {entry.name: entry for entry in definitions}

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
def _parser(definitions: tuple[Macro, ...]) -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Builder(definitions))


def parse(
    text: str, variables: Collection[str] | None = None, definitions: Collection[Macro] = ()
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
