"""New programs from old: crossover and six mutations, all as one splice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.primitives import CONSTANT, NOTHING, Primitives
from symtorch_torchgp.programs import Programs, clean, splice, subtree_starts

_POOL_GROWTH = 8
_CROSSOVER, _SUBTREE, _INSERT, _DELETE, _HOIST, _POINT, _JITTER = range(7)
_ODDS = (0.40, 0.12, 0.12, 0.06, 0.05, 0.15, 0.10)


@final
@dataclass(frozen=True)
class Sampler:
    """Draws leaves, operators, small pieces and places, from one generator."""

    primitives: Primitives
    length: int
    generator: torch.Generator
    device: torch.device

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

    def leaves(self, count: int) -> tuple[Tensor, Tensor]:
        """Codes and values of random leaves: a quarter constants, else variables."""
        variables = torch.arange(2, self.primitives.first_operator, device=self.device)
        codes = self.pick(variables, count)
        constant = self.uniform(count) < 0.25
        values = torch.where(constant, 2.0 * self.normal(count), 0.0)
        return torch.where(constant, CONSTANT, codes), values

    def pieces(self, count: int) -> Programs:
        """What may be put behind a subtree: a unary operator, or a leaf and a binary operator."""
        codes = torch.zeros(count, self.length, dtype=torch.long, device=self.device)
        values = torch.zeros(count, self.length, device=self.device)
        unary, binary = self.primitives.codes(1), self.primitives.codes(2)
        leaf, value = self.leaves(count)
        # By the number of operators of each kind, so that every operator is about equally likely.
        share = len(unary) / max(1, len(unary) + 2 * len(binary))
        is_unary = self.uniform(count) < share if len(binary) else torch.ones(count, dtype=torch.bool)
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
    place, donor_place = sampler.below(parents.size)[:, None], sampler.below(donors.size)[:, None]
    starts, donor_starts = (
        subtree_starts(parents.codes, sampler.primitives),
        subtree_starts(donors.codes, sampler.primitives),
    )
    start, size = starts.gather(1, place)[:, 0], parents.size
    end, donor_end = place[:, 0], donor_place[:, 0]
    donor_start = donor_starts.gather(1, donor_place)[:, 0]
    arity = sampler.primitives.arity[parents.codes.gather(1, place)[:, 0]]
    # Deleting a node leaves one of its children.
    last_child = (end - 1).clamp_min(0)
    first_child = (starts.gather(1, last_child[:, None])[:, 0] - 1).clamp_min(0)
    child = torch.where((sampler.uniform(count) < 0.5) & (arity == 2), first_child, last_child)
    child = torch.where(arity == 0, end, child)
    child_start = starts.gather(1, child[:, None])[:, 0]
    trees, pieces = sampler.trees(count, 4), sampler.pieces(count)

    def by_kind(default: Tensor, **choices: Tensor) -> Tensor:
        names = {
            "crossover": _CROSSOVER,
            "subtree": _SUBTREE,
            "insert": _INSERT,
            "delete": _DELETE,
            "hoist": _HOIST,
        }
        result = default
        for name, choice in choices.items():
            chosen = kind == names[name]
            result = torch.where(chosen[:, None] if choice.ndim == 2 else chosen, choice, result)
        return result

    zero = torch.zeros_like(start)
    donor = Programs(
        by_kind(parents.codes, crossover=donors.codes, subtree=trees.codes, insert=pieces.codes),
        by_kind(parents.values, crossover=donors.values, subtree=trees.values, insert=pieces.values),
    )
    children = splice(
        parents,
        by_kind(start, insert=end + 1, hoist=zero),
        by_kind(end - start + 1, insert=zero, hoist=size),
        donor,
        by_kind(start, crossover=donor_start, subtree=zero, insert=zero, delete=child_start),
        by_kind(
            end - start + 1,
            crossover=donor_end - donor_start + 1,
            subtree=trees.size,
            insert=pieces.size,
            delete=child - child_start + 1,
        ),
    )
    children = _point_mutated(children, kind == _POINT, place, sampler)
    return _jittered(children, kind == _JITTER, sampler)


def _point_mutated(programs: Programs, chosen: Tensor, place: Tensor, sampler: Sampler) -> Programs:
    """One place of each chosen program with another leaf or operator of the same arity."""
    count = len(programs)
    old = programs.codes.gather(1, place)[:, 0]
    arity = sampler.primitives.arity[old]
    new, value = sampler.leaves(count)
    for n in (1, 2):
        codes = sampler.primitives.codes(n)
        if len(codes):
            new = torch.where(arity == n, sampler.pick(codes, count), new)
    new = torch.where(chosen & (old != NOTHING), new, old)
    value = torch.where(chosen & (new == CONSTANT), value, programs.values.gather(1, place)[:, 0])
    return clean(
        Programs(
            programs.codes.scatter(1, place, new[:, None]), programs.values.scatter(1, place, value[:, None])
        )
    )


def _jittered(programs: Programs, chosen: Tensor, sampler: Sampler) -> Programs:
    """Chosen programs with their constants moved, some by a little, some by a lot."""
    shape = programs.values.shape
    width = 10.0 ** (-2.0 * sampler.uniform(len(programs), 1))
    moved = programs.values * (1 + width * sampler.normal(*shape)) + 0.1 * width * sampler.normal(*shape)
    return clean(Programs(programs.codes, torch.where(chosen[:, None], moved, programs.values)))


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
