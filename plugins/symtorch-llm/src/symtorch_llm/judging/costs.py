"""Cost of a block: multiply-adds for one token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from symtorch_core import Surrogate, SymbolicModel
from symtorch_core.expressions import Call, Constant, Expression

_FREE = ("+", "-")  # an addition is the other half of a multiply-add


def count_multiply_adds(module: nn.Module) -> int:
    """Count the multiply-adds for one token: those of linear maps, and operations of equations except + and -.

    Functions such as an MLP's activation, and the products of its gates, are not counted, as is usual.

    >>> count_multiply_adds(nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8)))
    256
    """
    if isinstance(module, SymbolicModel):
        chosen = module.surrogate if module.mode == "symbolic" else None
        return count_multiply_adds(module.block if chosen is None else chosen)
    if isinstance(module, Surrogate):
        maps = module.maps()
        parts = [part for part in (maps.down, maps.up, maps.linear) if part is not None]
        return sum(map(count_multiply_adds, parts)) + count_operations(module.structure())
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    if isinstance(module, Conv1D):
        return int(module.nx) * int(module.nf)
    return sum(map(count_multiply_adds, module.children()))


def count_operations(expressions: Sequence[Expression]) -> int:
    """Count the operations of equations except + and -; equal subexpressions count once.

    >>> from symtorch_core.expressions import parse
    >>> count_operations([parse("2*(x*y) + x"), parse("3*(x*y)")])
    3
    """
    seen: set[Expression] = set()
    count = 0

    def visit(node: Expression) -> None:
        nonlocal count
        if not isinstance(node, Call) or node in seen:
            return
        # Constants are trained one by one: two products with constants stay two, even if the constants are equal.
        if not any(isinstance(argument, Constant) for argument in node.args):
            seen.add(node)
        count += node.operator not in _FREE
        for argument in node.args:
            visit(argument)

    for expression in expressions:
        visit(expression)
    return count
