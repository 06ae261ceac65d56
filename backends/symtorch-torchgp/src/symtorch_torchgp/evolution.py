"""The search: one population for all outputs.

Each output owns an equal share of the population. Parents are drawn by tournament within the share, a few from other
outputs; children are scored against EVERY output, and the best of any origin at each complexity enters an output's
archive. Who lives on is decided by non-dominated sorting on (complexity, loss), as in NSGA-II (Deb et al. 2002), after
programs of equal loss are merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.fitting import Rows, fit_constants, score
from symtorch_torchgp.primitives import NOTHING, Primitives
from symtorch_torchgp.programs import Programs
from symtorch_torchgp.variation import Sampler, vary

_TOURNAMENT = 4
_FOREIGN_DONORS = 0.05
_FITTED_SHARE = 0.08
_FITTED_BEST = 0.04
_FIT_STEPS = 3
_MOST_FRONTS = 60


@final
@dataclass
class Archive:
    """The best program of each output at each complexity, so far.

    Attributes:
        codes: shape (k, sizes, length).
        values: shape (k, sizes, length).
        losses: shape (k, sizes); infinite where there is none.
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
            torch.zeros(shape, device=device),
            torch.full(shape[:2], torch.inf, device=device),
        )

    def take(self, row: int, other: Archive, other_row: int) -> None:
        """Take over what another archive has better for one output."""
        better = other.losses[other_row] < self.losses[row]
        wide = better[:, None]
        self.codes[row] = torch.where(wide, other.codes[other_row], self.codes[row])
        self.values[row] = torch.where(wide, other.values[other_row], self.values[row])
        self.losses[row] = torch.where(better, other.losses[other_row], self.losses[row])

    def update(self, programs: Programs, complexity: Tensor, losses: Tensor) -> Tensor:
        """Take in programs with their losses for every output (p, k); returns which outputs improved, (k,)."""
        before = self.losses.amin(1)
        for size in complexity.unique().tolist():
            if size >= self.losses.shape[1]:
                continue
            members = (complexity == size).nonzero()[:, 0]
            best, arg = losses[members].min(0)
            better = best < self.losses[:, size] * 0.9999
            chosen = members[arg]
            self.losses[:, size] = torch.where(better, best, self.losses[:, size])
            self.codes[:, size] = torch.where(better[:, None], programs.codes[chosen], self.codes[:, size])
            self.values[:, size] = torch.where(better[:, None], programs.values[chosen], self.values[:, size])
        return self.losses.amin(1) < before


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
        start: Programs | None = None,
    ) -> None:
        self.rows, self.primitives, self.sampler, self.size, self.admit = (
            rows,
            primitives,
            sampler,
            size,
            admit,
        )
        self.outputs = len(rows.targets)
        self.archive = Archive.empty(self.outputs, maxsize, sampler.length, sampler.device)
        count = self.outputs * size
        programs = sampler.trees(count)
        if start is not None:
            programs = Programs.cat([start, programs])[: max(count, len(start))][:count]
        programs = self._replaced_if_bad(programs, sampler.trees(count, 1))
        self.programs = programs
        self.owner = torch.arange(self.outputs, device=sampler.device).repeat_interleave(size)
        losses = score(programs, primitives, rows)
        self.losses = losses.gather(1, self.owner[:, None])[:, 0]
        self.rank = torch.zeros(count, device=sampler.device)
        self.archive.update(programs, programs.complexity(primitives), losses)

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
        self.rows = Rows(self.rows.columns, self.rows.targets[outputs], self.rows.weights[outputs])
        self.archive = Archive(
            self.archive.codes[outputs], self.archive.values[outputs], self.archive.losses[outputs]
        )
        self.outputs = len(outputs)
        self.owner = torch.arange(self.outputs, device=outputs.device).repeat_interleave(self.size)

    def _replaced_if_bad(self, programs: Programs, fallback: Programs) -> Programs:
        good = self.admit(programs)[:, None]
        return Programs(
            torch.where(good, programs.codes, fallback.codes),
            torch.where(good, programs.values, fallback.values),
        )

    def step(self) -> Tensor:
        """One generation; returns which outputs improved, (k,)."""
        parents, donors = self._parents(), self._donors()
        children = self._replaced_if_bad(
            vary(self.programs[parents], self.programs[donors], self.sampler), self.programs[parents]
        )
        losses = score(children, self.primitives, self.rows)
        own = losses.gather(1, self.owner[:, None])[:, 0]
        children, losses = self._fitted(children, losses, own)
        complexity = children.complexity(self.primitives)
        improved = self.archive.update(children, complexity, losses)
        self._survive(children, complexity, losses.gather(1, self.owner[:, None])[:, 0])
        return improved

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
        archived = torch.arange(self.archive.losses.shape[1], device=own.device).expand(k, -1)
        losses = torch.cat([self.losses.view(k, n), own.view(k, n), self.archive.losses], 1)
        sizes = torch.cat(
            [self.programs.complexity(self.primitives).view(k, n), complexity.view(k, n), archived], 1
        )
        codes = torch.cat(
            [self.programs.codes.view(k, n, length), children.codes.view(k, n, length), self.archive.codes], 1
        )
        values = torch.cat(
            [
                self.programs.values.view(k, n, length),
                children.values.view(k, n, length),
                self.archive.values,
            ],
            1,
        )
        rank = pareto_ranks(losses, sizes, n)
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
            fresh = self.sampler.trees(len(empty))
            good = self.admit(fresh)[:, None]
            simple = self.sampler.trees(len(empty), 1)
            self.programs.codes[empty] = torch.where(good, fresh.codes, simple.codes)
            self.programs.values[empty] = torch.where(good, fresh.values, simple.values)


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
