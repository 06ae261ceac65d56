"""Functions of a search: its operators, those of the table and those that the user defines, as backends use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from symtorch_core.errors import SearchError
from symtorch_core.expressions import (
    OPERATORS,
    Call,
    Definition,
    Expression,
    Variable,
    evaluate,
    is_definition,
    parse_definition,
    walk,
)
from symtorch_core.search.space import SearchSpace


@final
@dataclass(frozen=True)
class Function:
    """An operator of a search.

    Attributes:
        name: name of the operator, or of its definition.
        arity: number of arguments.
        compute: elementwise function of ``arity`` tensors.
        build: function from ``arity`` expressions to the expression of a call, with definitions written out.
        complexity: what a call adds to the complexities of its arguments, each counted once.
    """

    name: str
    arity: int
    compute: Callable[..., Tensor]
    build: Callable[..., Expression]
    complexity: int


def list_functions(search: SearchSpace, backend: str) -> tuple[Function, ...]:
    """Return the operators of a search, binary first, for backends that compute with torch.

    Args:
        search: the search space.
        backend: its name, for messages.

    >>> double, *_ = list_functions(SearchSpace(binary_operators=(), unary_operators=("twice(x) = 2*x",)), "mine")
    >>> print(double.name, double.complexity, double.build(Variable("t")))
    twice 2 2.0*t

    Raises:
        SearchError: a definition cannot be read, or a constraint names it.
    """
    return tuple(
        _define(parse_definition(operator), search, backend)
        if is_definition(operator)
        else _look_up(operator, search)
        for operator in search.operators
    )


def _look_up(name: str, search: SearchSpace) -> Function:
    operator = OPERATORS[name]

    def build(*args: Expression) -> Expression:
        return Call(name, *args)

    return Function(name, operator.arity, operator.torch, build, search.rules.operators.get(name, 1))


def _define(definition: Definition, search: SearchSpace, backend: str) -> Function:
    body, parameters = definition.body, definition.parameters
    if body is None:
        raise SearchError(
            f"{backend} cannot compute {definition.source!r}: {definition.unreadable}. Write it in the operators of "
            'the table, or use regressor="pysr", which takes Julia code'
        )

    def compute(*args: Tensor) -> Tensor:
        return evaluate(body, dict(zip(parameters, args, strict=True))).expand_as(args[0])

    inner = {name for limits in search.nested_constraints.values() for name in limits}
    if definition.name in {*search.constraints, *search.nested_constraints, *inner}:
        raise SearchError(
            f"{backend} writes {definition.name!r} out in its equations, so that constraints cannot name it: limit the "
            "operators in its definition"
        )
    rules = search.rules
    own = sum(rules.count(node) for node in walk(body) if isinstance(node, Variable))
    size = rules.operators.get(definition.name, max(1, rules.count(body) - own))
    return Function(definition.name, len(parameters), compute, definition.expand, size)
