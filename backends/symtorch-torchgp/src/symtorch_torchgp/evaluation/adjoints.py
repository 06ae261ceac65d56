"""Adjoints of the operators: by formula for the common ones, by autograd for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from symtorch_core.search import Function

_Formula = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, ...]]

# (arguments, result, incoming adjoint) -> adjoint of each argument
_FORMULAS: MappingProxyType[str, _Formula] = MappingProxyType(
    {
        "+": lambda a, f, g: (g, g),
        "-": lambda a, f, g: (g, -g),
        "*": lambda a, f, g: (g * a[1], g * a[0]),
        "/": lambda a, f, g: (g / a[1], -g * f / a[1]),
        "neg": lambda a, f, g: (-g,),
        "inv": lambda a, f, g: (-g * f * f,),
        "square": lambda a, f, g: (2 * g * a[0],),
        "cube": lambda a, f, g: (3 * g * a[0] * a[0],),
        "sqrt": lambda a, f, g: (0.5 * g / f,),
        "exp": lambda a, f, g: (g * f,),
        "log": lambda a, f, g: (g / a[0],),
        "sin": lambda a, f, g: (g * torch.cos(a[0]),),
        "cos": lambda a, f, g: (-g * torch.sin(a[0]),),
        "tanh": lambda a, f, g: (g * (1 - f * f),),
        "abs": lambda a, f, g: (g * torch.sign(a[0]),),
    }
)


def differentiate_operator(
    function: Function, args: Sequence[Tensor], result: Tensor, incoming: Tensor
) -> tuple[Tensor, ...]:
    """Return the adjoint of each argument of an operator.

    Args:
        function: the operator.
        args: its arguments, each of shape (nodes, rows).
        result: its value for them, shape (nodes, rows).
        incoming: adjoint of the result, shape (nodes, rows).
    """
    formula = _FORMULAS.get(function.name)
    if formula is not None:
        return formula(args, result, incoming)
    with torch.enable_grad():
        leaves = [arg.detach().requires_grad_() for arg in args]
        value = function.compute(*leaves)
        if not value.requires_grad:  # a step function
            return tuple(torch.zeros_like(arg) for arg in args)
        found = torch.autograd.grad(value, leaves, incoming, allow_unused=True)
    return tuple(
        torch.zeros_like(arg) if slope is None else slope for arg, slope in zip(args, found, strict=True)
    )
