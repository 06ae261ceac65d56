"""Expressions of the core as Julia code."""

from __future__ import annotations

from collections.abc import Mapping

from symtorch_core import SearchError, SearchSpace
from symtorch_core.expressions import Call, Constant, Expression, Variable, respell, walk


def write_julia(expression: Expression, search: SearchSpace, names: Mapping[str, str]) -> str:
    """Return an equation as Julia code in the operators of a search.

    Args:
        expression: the equation, in operators of the core's table.
        search: the search.
        names: name in Julia of every operator and variable.

    >>> from symtorch_core.expressions import parse
    >>> write_julia(parse("2*t^2 - 1"), SearchSpace(), {"+": "+", "*": "*", "t": "x0"})
    '((2.0 * (x0 * x0)) + (-1.0 * 1.0))'

    Raises:
        SearchError: these operators cannot express it.
    """
    respelled = respell(expression, search.operators)
    for node in walk(respelled):
        if isinstance(node, Call) and node.operator not in search.operators:
            raise SearchError(
                f"cannot start from {str(expression)!r}: the search has no operator {node.operator!r}"
            )
    return format_tree(respelled, names)


def format_tree(node: Expression, names: Mapping[str, str]) -> str:
    """Return a tree as Julia code, every call in brackets, with these names of operators and variables."""
    if isinstance(node, Constant):
        return repr(node.value)
    if isinstance(node, Variable):
        return names[node.name]
    assert isinstance(node, Call)
    args = [format_tree(child, names) for child in node.args]
    name = names[node.operator]
    return f"{name}({', '.join(args)})" if name.isidentifier() else f"({f' {name} '.join(args)})"


def name_variable(column: int) -> str:
    """Return the name of an input in Julia, where a name of the user could be that of a function."""
    return f"x{column}"
