"""The search: one population for all outputs.

Each output owns an equal share of the population. Parents are drawn by tournament within the share, a few from other
outputs; children are scored against EVERY output, and the best of any origin at each complexity enters an output's
archive. Who lives on is decided by non-dominated sorting on (complexity, loss), as in NSGA-II (Deb et al. 2002), after
programs of equal loss are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.fitting import Rows, fit_constants, score
from symtorch_torchgp.inverses import insides
from symtorch_torchgp.matching import matched, random_subtrees
from symtorch_torchgp.primitives import NOTHING, Primitives
from symtorch_torchgp.programs import Programs
from symtorch_torchgp.variation import Sampler, vary

_TOURNAMENT = 4
_FOREIGN_DONORS = 0.05
_FITTED_SHARE = 0.08
_FITTED_BEST = 0.04
_FIT_STEPS = 3
_MOST_FRONTS = 60
_MATCHED_SHARE = 0.25
_EACH = 2
"""Children by matching of one parent."""
_FROM_POPULATION = 600
"""Subtrees of the population offered to holes."""
_FRESH = 600
"""Random trees offered to holes."""
_FRESH_GROWTH = 6
_AT_ROOT = 0.3
_FIRST_PAIRED = 0.5
"""Share of the first population that is made of two random trees that match."""
_MEASURABLE = 0.9999
"""A loss that is not lower by this factor is the same."""


@final
@dataclass
class Archive:
    """The best program of each output at each complexity, so far, in double precision.

    Attributes:
        codes: shape (k, sizes, length).
        values: shape (k, sizes, length), float64.
        losses: shape (k, sizes), float64; infinite where there is none.
    """

    codes: Tensor
    values: Tensor
    losses: Tensor

    @classmethod
    def empty(cls, outputs: int, maxsize: int, length: int, device: torch.device) -> Archive:
        """An archive for complexities 0 to maxsize."""
        shape = (outputs, maxsize + 1, length)
        return cls(
            torch.full(shape, NOTHING, device=device),
            torch.zeros(shape, device=device, dtype=torch.float64),
            torch.full(shape[:2], torch.inf, device=device, dtype=torch.float64),
        )

    def of_outputs(self, outputs: Tensor) -> Archive:
        """The archive of some of the outputs, given by number."""
        return Archive(self.codes[outputs], self.values[outputs], self.losses[outputs])

    def programs(self, output: int, sizes: Tensor) -> Programs:
        """The programs of an output at some complexities."""
        return Programs(self.codes[output, sizes], self.values[output, sizes])

    def best(self, outputs: Sequence[int], penalty: Tensor) -> Programs:
        """The programs of some outputs, each better than all simpler ones, from simple to complex.

        Args:
            outputs: numbers.
            penalty: what a unit of complexity adds to a loss, for all outputs.
        """
        chosen = torch.tensor(outputs, dtype=torch.long, device=self.losses.device)
        sizes = torch.arange(self.losses.shape[1], device=chosen.device)
        losses = self.losses[chosen] + penalty[chosen][:, None] * sizes
        before = torch.nn.functional.pad(losses, (1, 0), value=torch.inf).cummin(1).values[:, :-1]
        better = losses < before
        return Programs(self.codes[chosen][better], self.values[chosen][better])

    def take(self, row: int, other: Archive, other_row: int) -> None:
        """Take over what another archive has better for one output."""
        better = other.losses[other_row] < self.losses[row]
        wide = better[:, None]
        self.codes[row] = torch.where(wide, other.codes[other_row], self.codes[row])
        self.values[row] = torch.where(wide, other.values[other_row], self.values[row])
        self.losses[row] = torch.where(better, other.losses[other_row], self.losses[row])

    def update(self, programs: Programs, complexity: Tensor, losses: Tensor) -> None:
        """Take in programs with their losses for every output, shape (p, k)."""
        sizes = self.losses.shape[1]
        fits = (complexity < sizes).nonzero()[:, 0]
        losses, group = losses[fits].double(), complexity[fits][:, None].expand(-1, losses.shape[1])
        best = self.losses.T.clone().scatter_reduce(0, group, losses, "amin")
        position = torch.arange(len(fits), device=losses.device)[:, None].expand_as(group)
        position = torch.where(losses == best.gather(0, group), position, len(fits))
        winner = torch.full_like(best, len(fits), dtype=torch.long).scatter_reduce(0, group, position, "amin")
        better = (winner < len(fits)) & (best < self.losses.T * _MEASURABLE)
        size, output = better.nonzero(as_tuple=True)
        chosen = fits[winner[size, output]]
        self.losses[output, size] = best[size, output]
        self.codes[output, size] = programs.codes[chosen]
        self.values[output, size] = programs.values[chosen].double()


@final
class Population:
    """The state of a search over k outputs with n programs each.

    Args:
        rows: what is searched on.
        primitives: the code table.
        sampler: where chance comes from.
        size: programs per output.
        maxsize: largest complexity of a program.
        admit: which programs may live, (p,) booleans.
        penalty: what a unit of complexity adds to a loss when survivors are chosen, shape (k,).
        start: programs to start from, besides random ones.
    """

    def __init__(
        self,
        rows: Rows,
        primitives: Primitives,
        sampler: Sampler,
        size: int,
        maxsize: int,
        admit: Callable[[Programs], Tensor],
        penalty: Tensor,
        start: Programs | None = None,
    ) -> None:
        self.rows, self.primitives, self.sampler, self.admit = rows, primitives, sampler, admit
        self.size, self.insides, self.penalty = size, insides(rows, primitives), penalty.float()
        self.outputs, self.maxsize = len(rows.targets), maxsize
        self.archive = Archive.empty(self.outputs, maxsize, sampler.length, sampler.device)
        count = self.outputs * size
        self.owner = torch.arange(self.outputs, device=sampler.device).repeat_interleave(size)
        programs = self._first(count)
        if start is not None:
            # As they are, even where they break a limit: their parts are worth having.
            programs = Programs.cat([start[:count], programs[len(start[:count]) :]])
        self.programs = programs
        losses = score(programs, primitives, rows)
        self.losses = losses.gather(1, self.owner[:, None])[:, 0]
        self.rank = torch.zeros(count, device=sampler.device)
        self.archive.update(programs, programs.complexity(primitives), losses)

    def _first(self, count: int) -> Programs:
        """Random programs, and in places of ``_EACH`` at a time pairs of random trees that match."""
        programs = self.sampler.trees(count)
        places = (self.sampler.uniform(count // _EACH) < _FIRST_PAIRED).nonzero()[:, 0] * _EACH
        partners = self.sampler.trees(_FROM_POPULATION + _FRESH, _FRESH_GROWTH)
        trees = self.sampler.trees(len(places), _FRESH_GROWTH)
        new = self._matched(trees, self.owner[places], partners, 1.0)
        slots = (places[:, None] + torch.arange(_EACH, device=places.device)).flatten()
        programs.codes[slots], programs.values[slots] = new.codes, new.values
        return self._replaced_if_bad(programs, self.sampler.trees(count, 1))

    def keep(self, outputs: Tensor) -> None:
        """Go on with these outputs only, (m,) numbers; the others get no more offspring."""
        chosen = torch.zeros(self.outputs, dtype=torch.bool, device=outputs.device)
        chosen[outputs] = True
        members = chosen[self.owner]
        self.programs, self.losses, self.rank = (
            self.programs[members],
            self.losses[members],
            self.rank[members],
        )
        self.rows, self.archive = self.rows.of_outputs(outputs), self.archive.of_outputs(outputs)
        self.insides, self.penalty = insides(self.rows, self.primitives), self.penalty[outputs]
        self.outputs = len(outputs)
        self.owner = torch.arange(self.outputs, device=outputs.device).repeat_interleave(self.size)

    def _replaced_if_bad(self, programs: Programs, fallback: Programs) -> Programs:
        good = self.admit(programs)[:, None]
        return Programs(
            torch.where(good, programs.codes, fallback.codes),
            torch.where(good, programs.values, fallback.values),
        )

    def step(self) -> None:
        """One generation."""
        parents, donors = self._parents(), self._donors()
        children = vary(self.programs[parents], self.programs[donors], self.sampler)
        self._match(children, parents)
        children = self._replaced_if_bad(children, self.programs[parents])
        losses = score(children, self.primitives, self.rows)
        own = losses.gather(1, self.owner[:, None])[:, 0]
        children, losses = self._fitted(children, losses, own)
        complexity = children.complexity(self.primitives)
        self.archive.update(children, complexity, losses)
        self._survive(children, complexity, losses.gather(1, self.owner[:, None])[:, 0])

    def _match(self, children: Programs, parents: Tensor) -> None:
        """Put children by matching in the place of the first of each output."""
        holes = int(_MATCHED_SHARE * self.size) // _EACH
        first = torch.arange(self.outputs, device=parents.device)[:, None] * self.size
        slots = (first + torch.arange(holes * _EACH, device=parents.device)).flatten()
        chosen = slots.view(self.outputs, -1)[:, ::_EACH].flatten()
        pool = torch.randint(
            len(self.programs), (_FROM_POPULATION,), generator=self.sampler.generator, device=parents.device
        )
        subtrees = [
            random_subtrees(self.programs[pool], self.sampler),
            self.sampler.trees(_FRESH, _FRESH_GROWTH),
        ]
        new = self._matched(
            self.programs[parents[chosen]], self.owner[chosen], Programs.cat(subtrees), _AT_ROOT
        )
        children.codes[slots], children.values[slots] = new.codes, new.values

    def _matched(self, parents: Programs, owner: Tensor, subtrees: Programs, at_root: float) -> Programs:
        return matched(
            parents,
            owner,
            subtrees,
            self.sampler,
            self.rows,
            self.insides,
            self.maxsize,
            each=_EACH,
            at_root=at_root,
        )

    def _parents(self) -> Tensor:
        """A tournament winner of the same output for each place of the population."""
        count = len(self.programs)
        drawn = torch.randint(
            self.size, (count, _TOURNAMENT), generator=self.sampler.generator, device=self.sampler.device
        )
        rivals = drawn + self.owner[:, None] * self.size
        winner = self.rank[rivals].argmin(1, keepdim=True)
        return rivals.gather(1, winner)[:, 0]

    def _donors(self) -> Tensor:
        count = len(self.programs)
        drawn = self._parents()
        foreign = torch.randint(count, (count,), generator=self.sampler.generator, device=self.sampler.device)
        return torch.where(self.sampler.uniform(count) < _FOREIGN_DONORS, foreign, drawn)

    def _fitted(self, children: Programs, losses: Tensor, own: Tensor) -> tuple[Programs, Tensor]:
        """Fit the constants of some children: a random share, and the most promising of each output."""
        best = torch.zeros(self.outputs, self.size, dtype=torch.bool, device=own.device)
        top = (
            own.view(self.outputs, self.size)
            .topk(max(1, int(_FITTED_BEST * self.size)), largest=False)
            .indices
        )
        best.scatter_(1, top, True)
        chosen = (self.sampler.uniform(len(children)) < _FITTED_SHARE) | best.view(-1)
        index = (chosen & torch.isfinite(own)).nonzero()[:, 0]
        if len(index) == 0:
            return children, losses
        fitted = fit_constants(children[index], self.owner[index], self.primitives, self.rows, _FIT_STEPS)
        values, losses = children.values.clone(), losses.clone()
        values[index] = fitted.values
        losses[index] = score(fitted, self.primitives, self.rows)
        return Programs(children.codes, values), losses

    def _survive(self, children: Programs, complexity: Tensor, own: Tensor) -> None:
        """Keep the best of old programs, children and archive, for each output."""
        k, n = self.outputs, self.size
        length = self.sampler.length
        old, archive = self.programs, self.archive

        def together(before: Tensor, new: Tensor, best: Tensor) -> Tensor:
            shape = (k, n, *new.shape[1:])
            return torch.cat([before.view(shape), new.view(shape), best.to(new.dtype)], 1)

        archived = torch.arange(archive.losses.shape[1], device=own.device).expand(k, -1)
        losses = together(self.losses, own, archive.losses)
        sizes = together(old.complexity(self.primitives), complexity, archived)
        codes = together(old.codes, children.codes, archive.codes)
        values = together(old.values, children.values, archive.values)
        rank = pareto_ranks(losses + self.penalty[:, None] * sizes, sizes, n)
        kept = rank.argsort(dim=1, stable=True)[:, :n]
        wide = kept[:, :, None].expand(-1, -1, length)
        self.programs = Programs(
            codes.gather(1, wide).view(-1, length), values.gather(1, wide).view(-1, length)
        )
        self.losses = losses.gather(1, kept).view(-1)
        self.rank = rank.gather(1, kept).view(-1)
        # Too few different programs: what fills up is replaced by fresh ones.
        empty = (~torch.isfinite(self.losses)).nonzero()[:, 0]
        if len(empty):
            fresh = self._replaced_if_bad(self.sampler.trees(len(empty)), self.sampler.trees(len(empty), 1))
            self.programs.codes[empty], self.programs.values[empty] = fresh.codes, fresh.values


def pareto_ranks(losses: Tensor, sizes: Tensor, enough: int) -> Tensor:
    """Front number of each program within its output by (complexity, loss), plus a tie-break by loss below one.

    Programs whose loss equals that of a no more complex one come last. Fronts beyond the ``enough`` best share
    a number.

    Args:
        losses: shape (k, m).
        sizes: complexities, shape (k, m).
        enough: how many programs of each output matter.
    """
    order = losses.argsort(dim=1, stable=True)
    order = order.gather(1, sizes.gather(1, order).argsort(dim=1, stable=True))
    sorted_losses = losses.gather(1, order)
    # Equal losses are equal programs: only the simplest, first in loss-then-size order, stays.
    by_loss = sorted_losses.argsort(dim=1, stable=True)
    ascending = sorted_losses.gather(1, by_loss)
    repeated = torch.zeros_like(ascending, dtype=torch.bool)
    repeated[:, 1:] = ascending[:, 1:] <= ascending[:, :-1] * (1 + 1e-6)
    duplicate = torch.zeros_like(repeated).scatter(1, by_loss, repeated)
    left = torch.where(duplicate | ~torch.isfinite(sorted_losses), torch.inf, sorted_losses)
    rank = torch.full_like(left, float(_MOST_FRONTS))
    for number in range(_MOST_FRONTS):
        best_before = torch.cat([torch.full_like(left[:, :1], torch.inf), left.cummin(1).values[:, :-1]], 1)
        member = torch.isfinite(left) & (left < best_before)
        rank = torch.where(member, float(number), rank)
        left = torch.where(member, torch.inf, left)
        if bool(((rank < _MOST_FRONTS).sum(1) >= enough).all()) or not bool(torch.isfinite(left).any()):
            break
    tie = sorted_losses.argsort(1).argsort(1) / (losses.shape[1] + 1)
    gone = duplicate | ~torch.isfinite(sorted_losses)
    rank = torch.where(gone, 2.0 * _MOST_FRONTS, rank) + tie
    return torch.zeros_like(rank).scatter(1, order, rank)
