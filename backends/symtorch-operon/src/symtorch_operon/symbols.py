"""Operon's symbols for the core's operators, and the translation of its trees to expressions of the core."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import final

import pyoperon as op

from symtorch_core import SearchError
from symtorch_core.expressions import Call, Constant, Expression, Variable


@final
@dataclass(frozen=True)
class Symbol:
    """Operon's symbol for an operator of the core.

    Attributes:
        kind: Operon's node type.
        arity: number of children; division with one child is the inverse, subtraction with one the negation.
    """

    kind: op.NodeType
    arity: int


# Kinds are looked up by the printed names of their nodes: in some releases, the names of the minimum and the maximum
# are swapped in the enumeration.
_KINDS = {op.Node(kind).Name: kind for kind in op.NodeType.__members__.values()}

SYMBOLS: Mapping[str, Symbol] = MappingProxyType(
    {
        name: Symbol(_KINDS[theirs], arity)
        for name, theirs, arity in (
            ("+", "+", 2),
            ("-", "-", 2),
            ("*", "*", 2),
            ("/", "/", 2),
            ("^", "pow", 2),
            ("pow_abs", "powabs", 2),
            ("max", "fmax", 2),
            ("min", "fmin", 2),
            ("neg", "-", 1),
            ("inv", "/", 1),
            ("square", "square", 1),
            ("sqrt", "sqrt", 1),
            ("sqrt_abs", "sqrtabs", 1),
            ("cbrt", "cbrt", 1),
            ("abs", "abs", 1),
            ("exp", "exp", 1),
            ("log", "log", 1),
            ("log_abs", "logabs", 1),
            ("log1p", "log1p", 1),
            ("sin", "sin", 1),
            ("cos", "cos", 1),
            ("tan", "tan", 1),
            ("asin", "asin", 1),
            ("acos", "acos", 1),
            ("atan", "atan", 1),
            ("sinh", "sinh", 1),
            ("cosh", "cosh", 1),
            ("tanh", "tanh", 1),
            ("floor", "floor", 1),
            ("ceil", "ceil", 1),
        )
    }
)
"""The operators of the core that Operon has, by the core's names."""

_MADE_OF_PRODUCTS = "cube"
_NAMES = {(int(symbol.kind), symbol.arity): name for name, symbol in SYMBOLS.items()}


def get_symbols(operators: Collection[str]) -> list[Symbol]:
    """Return Operon's symbols for a search's operators.

    Operon has no symbol for ``cube``, but products can replace it, so it is accepted if ``*`` is among the operators.

    Raises:
        SearchError: Operon lacks an operator; the message names it and lists those there are.
    """
    replaced = {_MADE_OF_PRODUCTS} if "*" in operators else set()
    lacking = [name for name in operators if name not in SYMBOLS and name not in replaced]
    if lacking:
        raise SearchError(
            f"operon has no operator {', '.join(map(repr, lacking))}: leave it out, or use another backend. "
            f"It has: {', '.join(SYMBOLS)}; and cube if '*' is among the operators"
        )
    return [SYMBOLS[name] for name in dict.fromkeys(operators) if name in SYMBOLS]


def to_expression(nodes: Iterable[op.Node], inputs: Mapping[int, tuple[str, float]]) -> Expression:
    """Return a tree of Operon as an expression of the core.

    Args:
        nodes: the nodes, in postfix order, as Operon keeps them.
        inputs: for each variable, by Operon's hash of it, its name and the number by which its column was divided.

    Raises:
        ExpressionError: a coefficient is not finite.
    """
    stack: list[Expression] = []
    for node in nodes:
        if node.IsConstant:
            stack.append(Constant(node.Value))
        elif node.IsVariable:
            name, scale = inputs[node.HashValue]
            stack.append(_weigh(node.Value / scale, Variable(name)))
        else:
            # The child next to its parent is the first argument.
            children = [stack.pop() for _ in range(node.Arity)]
            stack.append(_make_call(int(node.Type), children))
    (root,) = stack
    return root


def _weigh(weight: float, leaf: Expression) -> Expression:
    return leaf if weight == 1.0 else Call("*", Constant(weight), leaf)


def _make_call(kind: int, children: list[Expression]) -> Expression:
    if len(children) > 2:  # Operon's sums and products may have any number of children
        return reduce(lambda left, right: Call(_NAMES[kind, 2], left, right), children)
    return Call(_NAMES[kind, len(children)], *children)
