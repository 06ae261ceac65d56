"""Expressions as torch programs: an interpreter for fitting, and a compiled program for deployment.

Both call the operators of one table on the same tree, so they agree to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, fx, nn

from symtorch_core.errors import ExpressionError
from symtorch_core.expressions.batched_programs import Batched
from symtorch_core.expressions.operators import OPERATORS
from symtorch_core.expressions.tree import (
    Call,
    Constant,
    Expression,
    Variable,
    constants,
    is_exponent,
    walk_up,
    whole_exponent,
)


def evaluate(
    expression: Expression, columns: Mapping[str, Tensor], values: Tensor | Sequence[Tensor] | None = None
) -> Tensor:
    """Return the value of an expression on tensors, by walking the tree.

    Args:
        expression: the expression to evaluate.
        columns: a tensor for each variable, all of one shape.
        values: constants to use instead of the expression's own, shape ``(len(constants(expression)),)``.

    Returns:
        A tensor of the columns' shape, or a scalar if the expression has no variable.

    >>> from symtorch_core.expressions import parse
    >>> evaluate(parse("2*x + 1"), {"x": torch.tensor([1.0, 2.0])})
    tensor([3., 5.])
    """
    template = next(iter(columns.values())) if columns else torch.zeros((), dtype=torch.float64)
    if values is None:
        values = torch.tensor(constants(expression), dtype=template.dtype, device=template.device)
    remaining = iter(values)

    def visit(node: Expression) -> Tensor:
        if isinstance(node, Variable):
            return columns[node.name]
        if isinstance(node, Constant):
            return next(remaining)
        assert isinstance(node, Call)
        if is_exponent(node, 1):
            return torch.pow(visit(node.args[0]), whole_exponent(node))
        return OPERATORS[node.operator].torch(*(visit(child) for child in node.args))

    return visit(expression)


def compute_numbers(*expressions: Expression) -> dict[int, float]:
    """Return the values of all parts without a variable, perhaps not finite ones, by the parts' ids.

    >>> from symtorch_core.expressions import parse
    >>> compute_numbers(parse("2*3")).values()
    dict_values([2.0, 3.0, 6.0])
    """
    numbers: dict[int, float] = {}
    for node in walk_up(*expressions):
        if isinstance(node, Constant):
            numbers[id(node)] = node.value
        elif isinstance(node, Call) and all(id(child) in numbers for child in node.args):
            args = torch.tensor([numbers[id(child)] for child in node.args], dtype=torch.float64)
            numbers[id(node)] = float(OPERATORS[node.operator].torch(*args))
    return numbers


@final
class Program(nn.Module):
    """Several expressions as ONE torch program in which equal subexpressions are computed once.

    It has two forms: a graph with one operation per node, for everything that looks into a program (gradients,
    torch.compile, torch.export, vmap); and a batched form for plain eager inference, where equal operations run
    together because starting an operation costs more than its work.

    Args:
        expressions: one expression for each output.
        variables: names of the inputs, in column order.

    >>> from symtorch_core.expressions import parse
    >>> Program([parse("2*a + b"), parse("a")], ["a", "b"])(torch.tensor([[1.0, 5.0]]), torch.tensor([2.0]))
    tensor([[7., 1.]])
    """

    def __init__(self, expressions: Sequence[Expression], variables: Sequence[str]) -> None:
        super().__init__()
        self._expressions = tuple(expressions)
        self._variables = tuple(variables)
        self._graph = fx.GraphModule(nn.Module(), _build_graph(self._expressions, self._variables))
        self._batched = Batched(self._expressions, self._variables)

    def forward(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Evaluate all expressions.

        Args:
            x: shape (..., len(variables)).
            numbers: the constants of the expressions, concatenated in order, of the same type as x.

        Returns:
            Shape (..., len(expressions)).

        Raises:
            ExpressionError: the number of columns of x is not the number of variables.
        """
        if x.shape[-1] != len(self._variables):
            raise ExpressionError(
                f"the equations take {len(self._variables)} inputs ({', '.join(self._variables)}), "
                f"got {x.shape[-1]} columns"
            )
        if _is_plain(x, numbers) and x.shape[:-1].numel() <= self._batched.most_rows(x.device):
            rows = x.reshape(-1, x.shape[-1])
            values: Tensor = self._batched(rows, numbers)
            return values.reshape(*x.shape[:-1], len(self._expressions))
        # Without numbers there is nothing to unbind; exported programs cannot hold an empty result.
        results = self._graph(x.unbind(-1), numbers.unbind(0) if numbers.shape[0] else ())
        return torch.stack([result.expand(x.shape[:-1]) for result in results], dim=-1)

    def __repr__(self) -> str:
        return f"Program({len(self._expressions)} expressions in {', '.join(self._variables)})"

    def __reduce__(self) -> tuple[type[Program], tuple[object, ...]]:
        # Copies and pickles carry the expressions and compile them again; nothing executable is stored.
        return Program, (self._expressions, self._variables)


def _is_plain(x: Tensor, numbers: Tensor) -> bool:
    """Return whether this is eager inference, without differentiation, tracing or transforms."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if torch._C._len_torch_dispatch_stack() > 0:  # make_fx, fake tensors, counters of operations
        return False
    if torch.is_grad_enabled() and (x.requires_grad or numbers.requires_grad):
        return False
    if torch.func.debug_unwrap(x) is not x or torch.func.debug_unwrap(numbers) is not numbers:
        return False
    return torch.autograd.forward_ad.unpack_dual(x).tangent is None


def _build_graph(expressions: Sequence[Expression], variables: Sequence[str]) -> fx.Graph:
    graph = fx.Graph()
    columns = graph.placeholder("columns")
    numbers = graph.placeholder("numbers")
    known: dict[object, fx.Node] = {}
    position = 0

    def emit(key: object, function: object, *args: object) -> fx.Node:
        # Two subexpressions are equal if operator and operands are; each constant is an operand of its own.
        if key not in known:
            known[key] = graph.call_function(function, args)  # type: ignore[arg-type]
        return known[key]

    def visit(node: Expression) -> fx.Node:
        nonlocal position
        if isinstance(node, Variable):
            index = variables.index(node.name)
            return emit(("column", index), _get_item, columns, index)
        if isinstance(node, Constant):
            position += 1
            return emit(("number", position), _get_item, numbers, position - 1)
        assert isinstance(node, Call)
        if is_exponent(node, 1):
            base, exponent = visit(node.args[0]), whole_exponent(node)
            return emit(("power", base, exponent), torch.pow, base, exponent)
        args = [visit(child) for child in node.args]
        return emit((node.operator, *args), OPERATORS[node.operator].torch, *args)

    graph.output(tuple(visit(expression) for expression in expressions))
    return graph


def _get_item(values: tuple[Tensor, ...], index: int) -> Tensor:
    return values[index]
