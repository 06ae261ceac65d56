"""Holes in programs, and the subtrees that may fill them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.evaluation.evaluator import differentiate, evaluate
from symtorch_torchgp.evaluation.schedules import build_schedule
from symtorch_torchgp.programs.postfix import Programs, append, cut, find_subtree_start, splice
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives
from symtorch_torchgp.variation.sampler import Sampler

_INVERTED = 0.3
_LARGEST = 1e12


@final
@dataclass(frozen=True)
class Library:
    """Different subtrees that may fill holes.

    Attributes:
        programs: n programs.
        values: finite values, shape (n, rows).
        complexity: shape (n,).
    """

    programs: Programs
    values: Tensor
    complexity: Tensor

    @classmethod
    def of(cls, programs: Programs, values: Tensor, primitives: Primitives) -> Library:
        """Build a library from programs and their values, shape (p, rows), without unusable and repeated ones."""
        usable = (torch.isfinite(values).all(1) & (values.abs().amax(1) < _LARGEST)).nonzero()[:, 0]
        order = usable[programs[usable].compute_complexity(primitives).argsort(stable=True)]
        # Equal values have equal projections on any direction: the simplest of them is kept.
        direction = torch.linspace(1, 2, values.shape[1], device=values.device, dtype=torch.float64).sin()
        _, group = torch.unique(values[order].double() @ direction, return_inverse=True)
        position = torch.arange(len(group), device=values.device)
        simplest = torch.full_like(group, len(group)).scatter_reduce(0, group, position, "amin")
        kept = order[simplest[simplest < len(group)].sort().values]
        return cls(programs[kept], values[kept], programs[kept].compute_complexity(primitives))


@final
@dataclass(frozen=True)
class Holes:
    """Programs from which a subtree is cut out.

    Attributes:
        programs: m whole programs.
        inner: the subtrees, as programs.
        inside: their values v, shape (m, rows).
        slope: derivatives J of the programs by their holes, shape (m, rows).
        whole: values f of the programs, shape (m, rows).
    """

    programs: Programs
    inner: Programs
    inside: Tensor
    slope: Tensor
    whole: Tensor

    @classmethod
    def of(
        cls,
        programs: Programs,
        start: Tensor,
        inner: Programs,
        inside: Tensor,
        primitives: Primitives,
        columns: Tensor,
    ) -> Holes:
        """Cut subtrees out of programs.

        Args:
            programs: m programs.
            start: first place of each subtree, shape (m,).
            inner: the subtrees.
            inside: their values, shape (m, rows).
            primitives: the code table.
            columns: inputs, shape (d, rows).
        """
        # The hole is a constant with a different value on every row.
        filler = Programs(torch.full_like(programs.codes, CONSTANT), torch.zeros_like(programs.values))
        zero, one = torch.zeros_like(start), torch.ones_like(start)
        holed = splice(programs, start, inner.size, filler, zero, one)
        places = torch.arange(programs.codes.shape[1], device=start.device)
        plan = build_schedule(holed, primitives, places == start[:, None])
        buffer = evaluate(plan, primitives, columns, inside)
        slope = differentiate(plan, primitives, buffer)
        return cls(programs, inner, inside, slope, buffer.index_select(0, plan.roots))

    def __getitem__(self, part: slice) -> Holes:
        return Holes(
            self.programs[part], self.inner[part], self.inside[part], self.slope[part], self.whole[part]
        )


def draw_subtrees(programs: Programs, sampler: Sampler) -> Programs:
    """Draw a subtree of each program; some become reciprocals if the search has ``inv`` but no division."""
    primitives = sampler.primitives
    last = sampler.draw_below(programs.size)
    subtrees = cut(programs, find_subtree_start(programs, last, primitives), last)
    if "inv" in primitives.operators and "/" not in primitives.operators:
        inverted = sampler.draw_uniform(len(subtrees)) < _INVERTED
        subtrees = append(subtrees, inverted, primitives.get_code("inv"))
    return subtrees
