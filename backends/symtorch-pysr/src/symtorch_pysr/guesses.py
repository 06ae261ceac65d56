"""Equations to start a search from, in Julia."""

from __future__ import annotations

from collections.abc import Mapping

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, Variable, respell, walk


def in_julia(expression: Expression, search: SearchSpace, names: Mapping[str, str]) -> str:
    """An equation as text that Julia reads under a search's operators.

    Args:
        expression: in the operators of the table.
        search: whose operators it is to be said in.
        names: the name in Julia of every operator and variable.

    >>> from symtorch_core.expressions import parse
    >>> in_julia(parse("2*t^2 - 1"), SearchSpace(), {"+": "+", "*": "*", "t": "x0"})
    '((2.0 * (x0 * x0)) + (-1.0 * 1.0))'

    Raises:
        SearchError: it cannot be said in these operators.
    """
    said = respell(expression, search.operators)
    for node in walk(said):
        if isinstance(node, Call) and node.operator not in search.operators:
            raise SearchError(
                f"cannot start from {str(expression)!r}: the search has no operator {node.operator!r}"
            )
    return printed(said, names)


def printed(node: Expression, names: Mapping[str, str]) -> str:
    """A tree as Julia code, every call in brackets, with these names of operators and variables."""
    if isinstance(node, Constant):
        return repr(node.value)
    if isinstance(node, Variable):
        return names[node.name]
    assert isinstance(node, Call)
    args = [printed(child, names) for child in node.args]
    name = names[node.operator]
    return f"{name}({', '.join(args)})" if name.isidentifier() else f"({f' {name} '.join(args)})"
