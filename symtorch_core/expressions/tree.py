"""The expression tree: three node types and the functions that walk them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, final

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.operators import lookup

MAX_DEPTH = 200
"""Largest depth of a tree; far beyond any readable equation, well below Python's recursion limit."""
MAX_NODES = 100_000
"""Largest number of nodes of a tree that is read from text, with all definitions expanded."""


class Expression(ABC):
    """Closed-form expression: a :class:`Constant`, a :class:`Variable` or a :class:`Call` of an operator.

    Expressions are immutable and hashable; two are equal if their trees are. ``str(expression)`` is text that
    :func:`symtorch_core.expressions.parse` reads back to an equal tree.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def args(self) -> tuple[Expression, ...]:
        """Child expressions; empty for a leaf."""

    def __str__(self) -> str:
        return write_infix(self, repr)


@final
@dataclass(frozen=True, slots=True)
class Constant(Expression):
    """Finite real number."""

    value: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        if not math.isfinite(self.value):
            raise ExpressionError(f"an expression cannot hold the constant {self.value}: use finite numbers")

    @property
    def args(self) -> tuple[Expression, ...]:
        return ()


@final
@dataclass(frozen=True, slots=True)
class Variable(Expression):
    """Input, by name."""

    name: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ExpressionError(
                f"{self.name!r} cannot name a variable: use letters, digits and _ (like x_1)"
            )

    @property
    def args(self) -> tuple[Expression, ...]:
        return ()


@final
@dataclass(frozen=True, slots=True, init=False)
class Call(Expression):
    """Operator of the table applied to its arguments.

    >>> print(Call("+", Variable("x"), Constant(1)))
    x + 1.0
    """

    operator: str
    args: tuple[Expression, ...]
    _hash: int = field(init=False, repr=False, compare=False)

    def __init__(self, operator: str, *args: Expression) -> None:
        found = lookup(operator)
        if len(args) != found.arity:
            raise ExpressionError(f"{operator!r} takes {found.arity} argument(s), got {len(args)}")
        object.__setattr__(self, "operator", found.name)
        object.__setattr__(self, "args", args)
        object.__setattr__(self, "_hash", hash((found.name, args)))

    def __hash__(self) -> int:  # kept, since that of the whole tree takes as long as a walk
        return self._hash

    def __reduce__(self) -> tuple[type[Call], tuple[object, ...]]:
        return Call, (self.operator, *self.args)  # hashes of texts differ between processes


class Macro(Protocol):
    """Function of expressions that text may call by name, beside the operators of the table."""

    @property
    def name(self) -> str:
        """Name of the function in text."""

    def expand(self, *args: Expression) -> Expression:
        """Return the expression for a call with these arguments."""


def walk(expression: Expression) -> Iterator[Expression]:
    """Yield every node, parents before children, left to right."""
    stack = [expression]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.args))


def walk_up(*roots: Expression) -> Iterator[Expression]:
    """Yield every object among the nodes once, arguments before what holds them."""
    done: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, is_ready = stack.pop()
        if id(node) in done:
            continue
        if is_ready or not node.args:
            done.add(id(node))
            yield node
        else:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(node.args))


def depth(expression: Expression) -> int:
    """Return the number of nodes on the longest path from the root to a leaf."""
    depths: dict[int, int] = {}
    for node in walk_up(expression):
        depths[id(node)] = 1 + max((depths[id(child)] for child in node.args), default=0)
    return depths[id(expression)]


def count_nodes(expression: Expression) -> int:
    """Return the number of nodes of the tree, counted without a walk through each copy of what it repeats."""
    counts: dict[int, int] = {}
    for node in walk_up(expression):
        counts[id(node)] = 1 + sum(counts[id(child)] for child in node.args)
    return counts[id(expression)]


def share_parts(roots: Sequence[Expression]) -> tuple[Expression, ...]:
    """Return the same expressions, in which equal subexpressions are one object."""
    shared: dict[int, Expression] = {}
    known: dict[tuple[object, ...], Expression] = {}
    for node in walk_up(*roots):
        if isinstance(node, Call):
            args = [shared[id(child)] for child in node.args]
            key = (node.operator, *map(id, args))
            shared[id(node)] = known.setdefault(key, Call(node.operator, *args))
        else:
            shared[id(node)] = known.setdefault((type(node), str(node)), node)
    return tuple(shared[id(root)] for root in roots)


def variables(expression: Expression) -> tuple[str, ...]:
    """Return the names of the variables, in order of first appearance.

    >>> variables(Call("*", Variable("b"), Variable("a")))
    ('b', 'a')
    """
    return tuple(dict.fromkeys(node.name for node in walk(expression) if isinstance(node, Variable)))


def rebuild(expression: Expression, leaf: Callable[[Expression], Expression]) -> Expression:
    """Return a copy in which every leaf is replaced by ``leaf(leaf)``, left to right."""
    if isinstance(expression, Call):
        return Call(expression.operator, *(rebuild(child, leaf) for child in expression.args))
    return leaf(expression)


def substitute(expression: Expression, values: Mapping[str, Expression]) -> Expression:
    """Replace variables by expressions; names not in ``values`` stay unchanged."""
    return rebuild(
        expression, lambda leaf: values.get(leaf.name, leaf) if isinstance(leaf, Variable) else leaf
    )


def is_exponent(parent: Expression, position: int) -> bool:
    """Return whether this argument is a literal integer exponent: part of the structure, not a number to fit.

    Exponents that do not fit an integer of torch are ordinary numbers.
    """
    if not (isinstance(parent, Call) and parent.operator == "^" and position == 1):
        return False
    exponent = parent.args[1]
    return isinstance(exponent, Constant) and exponent.value.is_integer() and abs(exponent.value) < 2**53


def whole_exponent(power: Call) -> int:
    """Return the exponent of a power for which :func:`is_exponent` holds."""
    exponent = power.args[1]
    assert isinstance(exponent, Constant)
    return int(exponent.value)


_NAMED_POWERS = {"square": 2, "cube": 3}
_LARGEST_POWER = 8
"""Largest power that may be written as a product."""


def whole_power(call: Call) -> int | None:
    """Return the exponent of a square, a cube or a small integer power; None for any other call."""
    if call.operator in _NAMED_POWERS:
        return _NAMED_POWERS[call.operator]
    if is_exponent(call, 1):
        exponent = whole_exponent(call)
        return exponent if 0 < abs(exponent) <= _LARGEST_POWER else None
    return None


def constants(expression: Expression) -> tuple[float, ...]:
    """Return the numbers a fit may change, left to right; integer exponents are structure and not included.

    >>> x = Variable("x")
    >>> constants(Call("*", Constant(3), Call("^", x, Constant(2))))
    (3.0,)
    """
    found: list[float] = []

    def visit(node: Expression) -> None:
        if isinstance(node, Constant):
            found.append(node.value)
        for position, child in enumerate(node.args):
            if not is_exponent(node, position):
                visit(child)

    visit(expression)
    return tuple(found)


def with_constants(expression: Expression, values: Sequence[float]) -> Expression:
    """Return the same structure with other numbers, in the order of :func:`constants`.

    Raises:
        ExpressionError: ``values`` and ``constants(expression)`` differ in length.
    """
    expected = len(constants(expression))
    if len(values) != expected:
        raise ExpressionError(f"the expression has {expected} constants, got {len(values)} values")
    return replace_constants(expression, [Constant(value) for value in values])


def replace_constants(expression: Expression, parts: Sequence[Expression]) -> Expression:
    """Return the expression with one of the parts in place of each of :func:`constants`, in their order."""
    remaining = iter(parts)

    def visit(node: Expression) -> Expression:
        if isinstance(node, Constant):
            return next(remaining)
        if isinstance(node, Call):
            children = [
                child if is_exponent(node, position) else visit(child)
                for position, child in enumerate(node.args)
            ]
            return Call(node.operator, *children)
        return node

    return visit(expression)


# How tightly each printed form binds; an argument that binds less is put in brackets.
_SUM, _PRODUCT, _UNARY, _POWER, _ATOM = range(5)
_INFIX = {
    "+": (_SUM, " + "),
    "-": (_SUM, " - "),
    "*": (_PRODUCT, "*"),
    "/": (_PRODUCT, "/"),
    "^": (_POWER, "^"),
}


def write_infix(expression: Expression, show: Callable[[float], str]) -> str:
    """Return infix text with as few brackets as the grammar allows; ``show`` prints the constants."""
    return _print(expression, show)[0]


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
    # Left-associative: a right argument of the same level keeps its brackets, and so does a leading minus.
    right_text, right_binding = printed[1]
    negative = right_text.startswith("-")
    right = right_text if right_binding > binding and not negative else f"({right_text})"
    return f"{bracket(0, binding)}{sign}{right}", binding
