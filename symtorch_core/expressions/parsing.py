"""Parsing of text into trees, by a grammar: text is never executed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection

from symtorch_core.errors import ExpressionError, did_you_mean
from symtorch_core.expressions.tree import (
    MAX_DEPTH,
    MAX_NODES,
    Call,
    Constant,
    Expression,
    Macro,
    Variable,
    count_nodes,
    depth,
)

_MAX_LENGTH = 100_000


@functools.lru_cache(maxsize=32)
def _get_parser(macros: tuple[Macro, ...]) -> Callable[[str], Expression]:
    from symtorch_core.expressions.grammar import build_parser  # lark is slow to import

    return build_parser(macros)


def parse(
    text: str, variables: Collection[str] | None = None, definitions: Collection[Macro] = ()
) -> Expression:
    """Parse an infix expression.

    Args:
        text: infix text with ``+ - * / ^`` (or ``**``), comparisons, and the operators of the table as
            functions; ``pi`` is the number unless a variable has this name.
        variables: the names that may appear; None accepts any.
        definitions: operators beside those of the table, which the tree has expanded.

    >>> parse("2*sin(x0) + x1^2", variables=["x0", "x1"]).operator
    '+'

    Raises:
        ExpressionError: the text is not an expression (the message names the position), contains an unknown
            operator or variable, or is longer, larger or deeper than any real equation.
    """
    if len(text) > _MAX_LENGTH:
        raise ExpressionError(f"an expression of {len(text)} characters is too long (at most {_MAX_LENGTH})")
    expression = _get_parser(tuple(definitions))(text)
    if depth(expression) > MAX_DEPTH:
        raise ExpressionError(
            f"the expression is nested {depth(expression)} levels deep (at most {MAX_DEPTH})"
        )
    if count_nodes(expression) > MAX_NODES:  # definitions in definitions multiply
        raise ExpressionError(f"the expression has {count_nodes(expression)} nodes (at most {MAX_NODES})")
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
