"""The one population of all outputs.

Each output owns an equal share of the population. Parents are drawn by tournament within the share, and a few donors
from other outputs. Children are scored against EVERY output, and the best of any origin at each complexity enters an
output's archive. Survivors are chosen by non-dominated sorting on (complexity, loss), as in NSGA-II (Deb et al. 2002),
after programs of equal loss are merged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evolution.archive import Archive
from symtorch_torchgp.evolution.ranks import compute_pareto_ranks
from symtorch_torchgp.fitting.constants import fit_constants
from symtorch_torchgp.fitting.scaling import score
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import Primitives
from symtorch_torchgp.variation.holes import draw_subtrees
from symtorch_torchgp.variation.inverses import invert_targets
from symtorch_torchgp.variation.matching import match_subtrees
from symtorch_torchgp.variation.mutation import vary
from symtorch_torchgp.variation.sampler import Sampler

_TOURNAMENT = 4
_FOREIGN_DONORS = 0.05
_FITTED_SHARE = 0.08
_FITTED_BEST = 0.04
_FIT_STEPS = 3
_MATCHED_SHARE = 0.25
_EACH = 2
"""Children of one parent by matching."""
_FROM_POPULATION = 600
"""Subtrees of the population offered to holes."""
_FRESH = 600
"""Random trees offered to holes."""
_FRESH_GROWTH = 6
_AT_ROOT = 0.3
_FIRST_PAIRED = 0.5
"""Share of the first population that consists of pairs of matched random trees."""


@final
class Population:
    """The state of a search over k outputs with n programs each.

    Args:
        rows: the rows to search on.
        primitives: the code table.
        sampler: source of all random choices.
        size: programs of one output.
        maxsize: the largest complexity of a program.
        admit: returns which programs are allowed, shape (p,).
        parsimony: loss added for each unit of complexity when survivors are chosen, as a share of the targets'
            variance.
        start: programs to start from, besides random ones; None for none.
    """

    def __init__(
        self,
        rows: Rows,
        primitives: Primitives,
        sampler: Sampler,
        size: int,
        maxsize: int,
        admit: Callable[[Programs], Tensor],
        parsimony: float,
        start: Programs | None = None,
    ) -> None:
        self.rows, self.primitives, self.sampler, self.admit = rows, primitives, sampler, admit
        self.size, self.inner_targets, self.parsimony = size, invert_targets(rows, primitives), parsimony
        self.outputs, self.maxsize = len(rows.targets), maxsize
        self.archive = Archive.empty(self.outputs, maxsize, sampler.length, sampler.device)
        count = self.outputs * size
        self.owner = torch.arange(self.outputs, device=sampler.device).repeat_interleave(size)
        programs = self._draw_first(count)
        if start is not None:
            # Kept even if they break a limit: their parts are useful.
            programs = Programs.cat([start[:count], programs[len(start[:count]) :]])
        self.programs = programs
        losses = score(programs, primitives, rows)
        self.losses = losses.gather(1, self.owner[:, None])[:, 0]
        self.rank = torch.zeros(count, device=sampler.device)
        self.archive.update(programs, programs.compute_complexity(primitives), losses)

    def _draw_first(self, count: int) -> Programs:
        """Draw random programs, and in some groups of ``_EACH`` places, pairs of matched random trees."""
        programs = self.sampler.draw_trees(count)
        places = (self.sampler.draw_uniform(count // _EACH) < _FIRST_PAIRED).nonzero()[:, 0] * _EACH
        partners = self.sampler.draw_trees(_FROM_POPULATION + _FRESH, _FRESH_GROWTH)
        trees = self.sampler.draw_trees(len(places), _FRESH_GROWTH)
        new = self._match(trees, self.owner[places], partners, 1.0)
        slots = (places[:, None] + torch.arange(_EACH, device=places.device)).flatten()
        programs.codes[slots], programs.values[slots] = new.codes, new.values
        return self._replace_inadmissible(programs, self.sampler.draw_trees(count, 1))

    def keep_outputs(self, outputs: Tensor) -> None:
        """Drop all outputs but these, shape (m,), given by number."""
        chosen = torch.zeros(self.outputs, dtype=torch.bool, device=outputs.device)
        chosen[outputs] = True
        members = chosen[self.owner]
        self.programs, self.losses, self.rank = (
            self.programs[members],
            self.losses[members],
            self.rank[members],
        )
        self.rows, self.archive = self.rows.select_outputs(outputs), self.archive.select_outputs(outputs)
        self.inner_targets = invert_targets(self.rows, self.primitives)
        self.outputs = len(outputs)
        self.owner = torch.arange(self.outputs, device=outputs.device).repeat_interleave(self.size)

    def _replace_inadmissible(self, programs: Programs, fallback: Programs) -> Programs:
        good = self.admit(programs)[:, None]
        return Programs(
            torch.where(good, programs.codes, fallback.codes),
            torch.where(good, programs.values, fallback.values),
        )

    def step(self) -> None:
        """Evolve by one generation."""
        parents, donors = self._draw_parents(), self._draw_donors()
        children = vary(self.programs[parents], self.programs[donors], self.sampler)
        self._match_children(children, parents)
        children = self._replace_inadmissible(children, self.programs[parents])
        losses = score(children, self.primitives, self.rows)
        own = losses.gather(1, self.owner[:, None])[:, 0]
        children, losses = self._fit_some(children, losses, own)
        complexity = children.compute_complexity(self.primitives)
        self.archive.update(children, complexity, losses)
        self._select_survivors(children, complexity, losses.gather(1, self.owner[:, None])[:, 0])

    def _match_children(self, children: Programs, parents: Tensor) -> None:
        """Replace the first children of each output by children of matching."""
        holes = int(_MATCHED_SHARE * self.size) // _EACH
        first = torch.arange(self.outputs, device=parents.device)[:, None] * self.size
        slots = (first + torch.arange(holes * _EACH, device=parents.device)).flatten()
        chosen = slots.view(self.outputs, -1)[:, ::_EACH].flatten()
        pool = torch.randint(
            len(self.programs), (_FROM_POPULATION,), generator=self.sampler.generator, device=parents.device
        )
        subtrees = [
            draw_subtrees(self.programs[pool], self.sampler),
            self.sampler.draw_trees(_FRESH, _FRESH_GROWTH),
        ]
        new = self._match(
            self.programs[parents[chosen]], self.owner[chosen], Programs.cat(subtrees), _AT_ROOT
        )
        children.codes[slots], children.values[slots] = new.codes, new.values

    def _match(self, parents: Programs, owner: Tensor, subtrees: Programs, at_root: float) -> Programs:
        return match_subtrees(
            parents,
            owner,
            subtrees,
            self.sampler,
            self.rows,
            self.inner_targets,
            self.maxsize,
            each=_EACH,
            at_root=at_root,
        )

    def _draw_parents(self) -> Tensor:
        """Return, for each place of the population, the winner of a tournament within its output, shape (p,)."""
        count = len(self.programs)
        drawn = torch.randint(
            self.size, (count, _TOURNAMENT), generator=self.sampler.generator, device=self.sampler.device
        )
        rivals = drawn + self.owner[:, None] * self.size
        winner = self.rank[rivals].argmin(1, keepdim=True)
        return rivals.gather(1, winner)[:, 0]

    def _draw_donors(self) -> Tensor:
        count = len(self.programs)
        drawn = self._draw_parents()
        foreign = torch.randint(count, (count,), generator=self.sampler.generator, device=self.sampler.device)
        return torch.where(self.sampler.draw_uniform(count) < _FOREIGN_DONORS, foreign, drawn)

    def _fit_some(self, children: Programs, losses: Tensor, own: Tensor) -> tuple[Programs, Tensor]:
        """Fit the constants of some children: a random share, and the most promising of each output."""
        best = torch.zeros(self.outputs, self.size, dtype=torch.bool, device=own.device)
        top = (
            own.view(self.outputs, self.size)
            .topk(max(1, int(_FITTED_BEST * self.size)), largest=False)
            .indices
        )
        best.scatter_(1, top, True)
        chosen = (self.sampler.draw_uniform(len(children)) < _FITTED_SHARE) | best.view(-1)
        index = (chosen & torch.isfinite(own)).nonzero()[:, 0]
        if len(index) == 0:
            return children, losses
        fitted = fit_constants(children[index], self.owner[index], self.primitives, self.rows, _FIT_STEPS)
        values, losses = children.values.clone(), losses.clone()
        values[index] = fitted.values
        losses[index] = score(fitted, self.primitives, self.rows)
        return Programs(children.codes, values), losses

    def _select_survivors(self, children: Programs, complexity: Tensor, own: Tensor) -> None:
        """Choose the best of old programs, children and archive, for each output."""
        k, n = self.outputs, self.size
        length = self.sampler.length
        old, archive = self.programs, self.archive

        def combine(before: Tensor, new: Tensor, best: Tensor) -> Tensor:
            shape = (k, n, *new.shape[1:])
            return torch.cat([before.view(shape), new.view(shape), best.to(new.dtype)], 1)

        archived = torch.arange(archive.losses.shape[1], device=own.device).expand(k, -1)
        losses = combine(self.losses, own, archive.losses)
        sizes = combine(old.compute_complexity(self.primitives), complexity, archived)
        codes = combine(old.codes, children.codes, archive.codes)
        values = combine(old.values, children.values, archive.values)
        rank = compute_pareto_ranks(losses + self.parsimony * sizes, sizes, n)
        kept = rank.argsort(dim=1, stable=True)[:, :n]
        wide = kept[:, :, None].expand(-1, -1, length)
        self.programs = Programs(
            codes.gather(1, wide).view(-1, length), values.gather(1, wide).view(-1, length)
        )
        self.losses = losses.gather(1, kept).view(-1)
        self.rank = rank.gather(1, kept).view(-1)
        # Where there are too few different programs, the rest is replaced by new ones.
        empty = (~torch.isfinite(self.losses)).nonzero()[:, 0]
        if len(empty):
            trees = self.sampler.draw_trees(len(empty))
            fresh = self._replace_inadmissible(trees, self.sampler.draw_trees(len(empty), 1))
            self.programs.codes[empty], self.programs.values[empty] = fresh.codes, fresh.values
