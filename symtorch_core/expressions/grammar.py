"""The grammar of expressions, and the builder of trees from it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, final

from lark import Lark, Transformer, v_args
from lark.exceptions import LarkError, VisitError

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.operators import lookup
from symtorch_core.expressions.tree import Call, Constant, Expression, Macro, Variable

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
    NAME: /([^\W\d]|[^\x00-\x7f])(\w|[^\x00-\x7f])*/
    %import common.WS
    %ignore WS
"""
_COMPARISONS = {">": "greater", "<": "less", ">=": "greater_equal", "<=": "less_equal"}


@final
@v_args(inline=True)
class _Builder(Transformer[Any, Expression]):
    """Builder of the tree, bottom-up while the parser runs."""

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


def build_parser(macros: Collection[Macro]) -> Callable[[str], Expression]:
    """Return a function that parses text into trees with these macros expanded.

    The function raises an :class:`ExpressionError` if the text is not an expression.
    """
    lark = Lark(_GRAMMAR, parser="lalr", transformer=_Builder(macros))

    def read(text: str) -> Expression:
        try:
            tree: Any = lark.parse(text)
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
        expression: Expression = tree
        return expression

    return read
