"""What a block costs: multiply-adds for one token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from symtorch_core import Surrogate, SymbolicModel
from symtorch_core.expressions import Call, Constant, Expression

_FREE = ("+", "-")  # an addition is the other half of a multiply-add


def multiply_adds(module: nn.Module) -> int:
    """Multiply-adds for one token: those of linear maps, and every operation but + and - of equations, equal ones once.

    Functions such as an MLP's activation, and products of an MLP's gates, are left out, as is usual.

    >>> multiply_adds(nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8)))
    256
    """
    if isinstance(module, SymbolicModel):
        chosen = module.surrogate if module.mode == "symbolic" else None
        return multiply_adds(module.block if chosen is None else chosen)
    if isinstance(module, Surrogate):
        maps = module.maps()
        parts = [part for part in (maps.down, maps.up, maps.linear) if part is not None]
        return sum(map(multiply_adds, parts)) + operations(module.structure())
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    if isinstance(module, Conv1D):
        return int(module.nx) * int(module.nf)
    return sum(map(multiply_adds, module.children()))


def operations(expressions: Sequence[Expression]) -> int:
    """Operations of equations but + and -, equal subexpressions counted once.

    >>> from symtorch_core.expressions import parse
    >>> operations([parse("2*(x*y) + x"), parse("3*(x*y)")])
    3
    """
    seen: set[Expression] = set()
    count = 0

    def visit(node: Expression) -> None:
        nonlocal count
        if not isinstance(node, Call) or node in seen:
            return
        # Constants are trained one by one: two products with constants are two products, whatever these are now.
        if not any(isinstance(argument, Constant) for argument in node.args):
            seen.add(node)
        count += node.operator not in _FREE
        for argument in node.args:
            visit(argument)

    for expression in expressions:
        visit(expression)
    return count
