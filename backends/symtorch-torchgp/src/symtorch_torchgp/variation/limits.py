"""Limits of a search, checked on many programs at once: size, constraints and nested constraints."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from symtorch_core import SearchSpace
from symtorch_torchgp.programs.postfix import Programs, find_subtree_starts
from symtorch_torchgp.programs.primitives import NOTHING, Primitives


def make_filter(search: SearchSpace, primitives: Primitives) -> Callable[[Programs], Tensor]:
    """Return a function that says which programs obey the limits of a search, shape (p,)."""
    first = primitives.first_operator
    code = {name: first + i for i, name in enumerate(primitives.operators)}
    limits = {code[name]: limit for name, limit in search.constraints.items() if name in code}
    nested = {
        code[outer]: {code[name]: most for name, most in inner.items() if name in code}
        for outer, inner in search.nested_constraints.items()
        if outer in code
    }
    return lambda programs: find_admissible(programs, primitives, search.maxsize, limits, nested)


def find_admissible(
    programs: Programs,
    primitives: Primitives,
    maxsize: int,
    constraints: dict[int, tuple[int, ...]],
    nested: dict[int, dict[int, int]],
) -> Tensor:
    """Return which programs obey the size limit and the constraints (given by code), shape (p,)."""
    codes = programs.codes
    costs = primitives.complexity[codes]
    good = costs.sum(1) <= maxsize
    if not constraints and not nested:
        return good
    starts = find_subtree_starts(codes, primitives)
    total = torch.nn.functional.pad(costs.cumsum(1), (1, 0))
    size = total[:, 1:] - total.gather(1, starts)
    places = torch.arange(codes.shape[1], device=codes.device).expand_as(codes)
    last = (places - 1).clamp_min(0)
    first = (starts.gather(1, last) - 1).clamp_min(0)
    for code, limits in constraints.items():
        here = codes == code
        children = (last,) if len(limits) == 1 else (first, last)
        for limit, child in zip(limits, children, strict=True):
            if limit >= 0:
                good &= ~(here & (size.gather(1, child) > limit)).any(1)
    for outer, inners in nested.items():
        for inner, most in inners.items():
            depth = _count_nesting(codes, primitives, inner, last, first)
            here = codes == outer
            below = depth.gather(1, last)
            binary = primitives.arity[codes] == 2
            below = torch.where(binary, torch.maximum(below, depth.gather(1, first)), below)
            good &= ~(here & (below > most)).any(1)
    return good


def _count_nesting(codes: Tensor, primitives: Primitives, inner: int, last: Tensor, first: Tensor) -> Tensor:
    """Return the largest number of ``inner`` on any path of the subtree at each place, shape (p, length)."""
    depth = torch.zeros_like(codes)
    arity = primitives.arity[codes]
    for place in range(codes.shape[1]):
        a = depth.gather(1, last[:, place : place + 1])[:, 0]
        b = depth.gather(1, first[:, place : place + 1])[:, 0]
        n = torch.where(codes[:, place] == NOTHING, 0, arity[:, place])
        below = torch.where(n == 2, torch.maximum(a, b), torch.where(n == 1, a, 0))
        depth[:, place] = below + (codes[:, place] == inner)
    return depth
