"""Crossover and six mutations of many programs, all as one splice."""

from __future__ import annotations

import torch
from torch import Tensor

from symtorch_torchgp.programs.postfix import (
    Programs,
    clear_values,
    find_subtree_start,
    find_subtree_starts,
    splice,
)
from symtorch_torchgp.variation.sampler import Sampler

_CROSSOVER, _SUBTREE, _INSERT, _DELETE, _HOIST, _POINT, _JITTER = range(7)
_ODDS = (0.40, 0.12, 0.12, 0.06, 0.05, 0.15, 0.10)


def vary(parents: Programs, donors: Programs, sampler: Sampler) -> Programs:
    """Return one child of each parent.

    Args:
        parents: p programs.
        donors: p programs from which subtrees are taken.
        sampler: source of all random choices.
    """
    count, device = len(parents), sampler.device
    odds = torch.tensor(_ODDS, device=device).cumsum(0)
    kind = torch.searchsorted(odds / odds[-1], sampler.draw_uniform(count)).clamp_max(len(_ODDS) - 1)
    end, size = sampler.draw_below(parents.size), parents.size
    starts = find_subtree_starts(parents.codes, sampler.primitives)
    start = starts.gather(1, end[:, None])[:, 0]
    # The run that is cut out, and the donor's run that replaces it; by default, the donor is the parent itself.
    cut, removed = start.clone(), end - start + 1
    codes, values = parents.codes.clone(), parents.values.clone()
    taken, inserted = start.clone(), removed.clone()

    def of_kind(number: int) -> Tensor:
        return (kind == number).nonzero()[:, 0]

    rows = of_kind(_CROSSOVER)
    donor = donors[rows]
    last = sampler.draw_below(donor.size)
    taken[rows] = find_subtree_start(donor, last, sampler.primitives)
    inserted[rows] = last - taken[rows] + 1
    codes[rows], values[rows] = donor.codes, donor.values
    rows = of_kind(_SUBTREE)
    fresh = sampler.draw_trees(len(rows), 4)
    codes[rows], values[rows], taken[rows], inserted[rows] = fresh.codes, fresh.values, 0, fresh.size
    rows = of_kind(_INSERT)
    piece = sampler.draw_pieces(len(rows))
    codes[rows], values[rows], taken[rows], inserted[rows] = piece.codes, piece.values, 0, piece.size
    cut[rows], removed[rows] = end[rows] + 1, 0
    rows = of_kind(_HOIST)
    cut[rows], removed[rows] = 0, size[rows]
    # Deleting a node leaves one of its children.
    rows = of_kind(_DELETE)
    arity = sampler.primitives.arity[parents.codes[rows, end[rows]]]
    last_child = (end[rows] - 1).clamp_min(0)
    first_child = (starts[rows, last_child] - 1).clamp_min(0)
    child = torch.where((sampler.draw_uniform(len(rows)) < 0.5) & (arity == 2), first_child, last_child)
    child = torch.where(arity == 0, end[rows], child)
    taken[rows] = starts[rows, child]
    inserted[rows] = child - taken[rows] + 1
    children = splice(parents, cut, removed, Programs(codes, values), taken, inserted)
    rows = of_kind(_POINT)
    _replace(children, rows, _mutate_points(parents[rows], end[rows], sampler))
    rows = of_kind(_JITTER)
    _replace(children, rows, _jitter_constants(parents[rows], sampler))
    return children


def _replace(programs: Programs, rows: Tensor, new: Programs) -> None:
    programs.codes[rows], programs.values[rows] = new.codes, new.values


def _mutate_points(programs: Programs, place: Tensor, sampler: Sampler) -> Programs:
    """Replace one place of each program by another leaf or operator of the same arity."""
    count, at = len(programs), place[:, None]
    arity = sampler.primitives.arity[programs.codes.gather(1, at)[:, 0]]
    new, value = sampler.draw_leaves(count)
    for n in (1, 2):
        choices = sampler.primitives.select_codes(n)
        if len(choices):
            new = torch.where(arity == n, sampler.pick(choices, count), new)
    return clear_values(
        Programs(programs.codes.scatter(1, at, new[:, None]), programs.values.scatter(1, at, value[:, None]))
    )


def _jitter_constants(programs: Programs, sampler: Sampler) -> Programs:
    """Change the constants of programs at random, some slightly, some strongly."""
    shape = programs.values.shape
    width = 10.0 ** (-2.0 * sampler.draw_uniform(len(programs), 1))
    moved = programs.values * (1 + width * sampler.draw_normal(*shape)) + 0.1 * width * sampler.draw_normal(
        *shape
    )
    return clear_values(Programs(programs.codes, moved))
