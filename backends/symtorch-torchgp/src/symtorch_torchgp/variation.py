"""New programs from old: crossover and six mutations, all as one splice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.primitives import CONSTANT, NOTHING, Primitives
from symtorch_torchgp.programs import Programs, clean, splice, subtree_start, subtree_starts

_POOL_GROWTH = 8
_CROSSOVER, _SUBTREE, _INSERT, _DELETE, _HOIST, _POINT, _JITTER = range(7)
_ODDS = (0.40, 0.12, 0.12, 0.06, 0.05, 0.15, 0.10)


@final
@dataclass(frozen=True)
class Sampler:
    """Draws leaves, operators, small pieces and places, from one generator.

    Attributes:
        primitives: to draw from.
        length: places of a program.
        generator, device: of all draws.
        levels: numbers of the data's size, shape (n,), where constants may be thresholds; None where they are none.
    """

    primitives: Primitives
    length: int
    generator: torch.Generator
    device: torch.device
    levels: Tensor | None = None

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self.generator, device=self.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def below(self, limit: Tensor) -> Tensor:
        """A whole number from 0 to each limit - 1."""
        return (self.uniform(*limit.shape) * limit).long().clamp_max(limit - 1)

    def pick(self, choices: Tensor, count: int) -> Tensor:
        """``count`` of the choices, with repetition."""
        return choices[torch.randint(len(choices), (count,), generator=self.generator, device=self.device)]

    def variables(self) -> Programs:
        """Every variable as a program."""
        count = len(self.primitives.variables)
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        codes[:, 0] = torch.arange(2, 2 + count, device=self.device)
        return Programs(codes, torch.zeros(count, self.length, device=self.device))

    def leaves(self, count: int) -> tuple[Tensor, Tensor]:
        """Codes and values of random leaves: a quarter constants, else variables."""
        variables = torch.arange(2, self.primitives.first_operator, device=self.device)
        codes = self.pick(variables, count)
        constant = self.uniform(count) < 0.25
        whole = self.pick(torch.tensor([1.0, 1.0, 1.0, 2.0, -1.0], device=self.device), count)
        values = torch.where(self.uniform(count) < 0.5, whole, 2.0 * self.normal(count))
        if self.levels is not None:  # a threshold of a variable, or of a sum of two
            second = torch.where(self.uniform(count) < 0.5, self.pick(self.levels, count), 0.0)
            values = torch.where(self.uniform(count) < 0.5, values, self.pick(self.levels, count) + second)
        values = torch.where(constant, values, 0.0)
        return torch.where(constant, CONSTANT, codes), values

    def pieces(self, count: int) -> Programs:
        """What may be put behind a subtree: a unary operator, or a leaf and a binary operator."""
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        values = torch.zeros(count, self.length, device=self.device)
        unary, binary = self.primitives.codes(1), self.primitives.codes(2)
        leaf, value = self.leaves(count)
        # By the number of operators of each kind, so that every operator is about equally likely.
        share = len(unary) / max(1, len(unary) + 2 * len(binary))
        is_unary = (
            self.uniform(count) < share
            if len(binary)
            else torch.ones(count, dtype=torch.bool, device=self.device)
        )
        if len(binary):
            codes[:, 0], codes[:, 1], values[:, 0] = leaf, self.pick(binary, count), value
        if len(unary):
            codes[is_unary, 0], values[is_unary, 0] = self.pick(unary, count)[is_unary], 0.0
            codes[is_unary, 1] = NOTHING
        return Programs(codes, clean(Programs(codes, values)).values)

    def trees(self, count: int, growth: int = _POOL_GROWTH) -> Programs:
        """Random programs of up to about ``2 * growth + 1`` places."""
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        values = torch.zeros(count, self.length, device=self.device)
        codes[:, 0], values[:, 0] = self.leaves(count)
        trees = Programs(codes, values)
        rounds = (self.uniform(count) * (growth + 1)).long()
        for step in range(growth):
            place = self.below(trees.size) + 1
            piece = self.pieces(count)
            inserted = torch.where(rounds > step, piece.size, 0)
            zero = torch.zeros_like(place)
            trees = splice(trees, place, zero, piece, zero, inserted)
        return trees


def vary(parents: Programs, donors: Programs, sampler: Sampler) -> Programs:
    """One child of each parent.

    Args:
        parents: p programs.
        donors: p programs to take subtrees from.
        sampler: where chance comes from.
    """
    count, device = len(parents), sampler.device
    odds = torch.tensor(_ODDS, device=device).cumsum(0)
    kind = torch.searchsorted(odds / odds[-1], sampler.uniform(count)).clamp_max(len(_ODDS) - 1)
    end, size = sampler.below(parents.size), parents.size
    starts = subtree_starts(parents.codes, sampler.primitives)
    start = starts.gather(1, end[:, None])[:, 0]
    # What is cut out, and what is put there instead: places of the donor, which is the parent itself by default.
    cut, removed = start.clone(), end - start + 1
    codes, values = parents.codes.clone(), parents.values.clone()
    taken, inserted = start.clone(), removed.clone()

    def of_kind(number: int) -> Tensor:
        return (kind == number).nonzero()[:, 0]

    rows = of_kind(_CROSSOVER)
    donor = donors[rows]
    last = sampler.below(donor.size)
    taken[rows] = subtree_start(donor, last, sampler.primitives)
    inserted[rows] = last - taken[rows] + 1
    codes[rows], values[rows] = donor.codes, donor.values
    rows = of_kind(_SUBTREE)
    fresh = sampler.trees(len(rows), 4)
    codes[rows], values[rows], taken[rows], inserted[rows] = fresh.codes, fresh.values, 0, fresh.size
    rows = of_kind(_INSERT)
    piece = sampler.pieces(len(rows))
    codes[rows], values[rows], taken[rows], inserted[rows] = piece.codes, piece.values, 0, piece.size
    cut[rows], removed[rows] = end[rows] + 1, 0
    rows = of_kind(_HOIST)
    cut[rows], removed[rows] = 0, size[rows]
    # Deleting a node leaves one of its children.
    rows = of_kind(_DELETE)
    arity = sampler.primitives.arity[parents.codes[rows, end[rows]]]
    last_child = (end[rows] - 1).clamp_min(0)
    first_child = (starts[rows, last_child] - 1).clamp_min(0)
    child = torch.where((sampler.uniform(len(rows)) < 0.5) & (arity == 2), first_child, last_child)
    child = torch.where(arity == 0, end[rows], child)
    taken[rows] = starts[rows, child]
    inserted[rows] = child - taken[rows] + 1
    children = splice(parents, cut, removed, Programs(codes, values), taken, inserted)
    rows = of_kind(_POINT)
    _put(children, rows, _point_mutated(parents[rows], end[rows], sampler))
    rows = of_kind(_JITTER)
    _put(children, rows, _jittered(parents[rows], sampler))
    return children


def _put(programs: Programs, rows: Tensor, new: Programs) -> None:
    programs.codes[rows], programs.values[rows] = new.codes, new.values


def _point_mutated(programs: Programs, place: Tensor, sampler: Sampler) -> Programs:
    """One place of each program with another leaf or operator of the same arity."""
    count, at = len(programs), place[:, None]
    arity = sampler.primitives.arity[programs.codes.gather(1, at)[:, 0]]
    new, value = sampler.leaves(count)
    for n in (1, 2):
        choices = sampler.primitives.codes(n)
        if len(choices):
            new = torch.where(arity == n, sampler.pick(choices, count), new)
    return clean(
        Programs(programs.codes.scatter(1, at, new[:, None]), programs.values.scatter(1, at, value[:, None]))
    )


def _jittered(programs: Programs, sampler: Sampler) -> Programs:
    """Programs with their constants moved, some by a little, some by a lot."""
    shape = programs.values.shape
    width = 10.0 ** (-2.0 * sampler.uniform(len(programs), 1))
    moved = programs.values * (1 + width * sampler.normal(*shape)) + 0.1 * width * sampler.normal(*shape)
    return clean(Programs(programs.codes, moved))


def admissible(
    programs: Programs,
    primitives: Primitives,
    maxsize: int,
    constraints: dict[int, tuple[int, ...]],
    nested: dict[int, dict[int, int]],
) -> Tensor:
    """Which programs respect the size limit and the constraints (given by code), shape (p,)."""
    codes = programs.codes
    costs = primitives.complexity[codes]
    good = costs.sum(1) <= maxsize
    if not constraints and not nested:
        return good
    starts = subtree_starts(codes, primitives)
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
            depth = _nesting(codes, primitives, inner, last, first)
            here = codes == outer
            below = depth.gather(1, last)
            binary = primitives.arity[codes] == 2
            below = torch.where(binary, torch.maximum(below, depth.gather(1, first)), below)
            good &= ~(here & (below > most)).any(1)
    return good


def _nesting(codes: Tensor, primitives: Primitives, inner: int, last: Tensor, first: Tensor) -> Tensor:
    """Most occurrences of ``inner`` on a path within the subtree at each place."""
    depth = torch.zeros_like(codes)
    arity = primitives.arity[codes]
    for place in range(codes.shape[1]):
        a = depth.gather(1, last[:, place : place + 1])[:, 0]
        b = depth.gather(1, first[:, place : place + 1])[:, 0]
        n = torch.where(codes[:, place] == NOTHING, 0, arity[:, place])
        below = torch.where(n == 2, torch.maximum(a, b), torch.where(n == 1, a, 0))
        depth[:, place] = below + (codes[:, place] == inner)
    return depth
