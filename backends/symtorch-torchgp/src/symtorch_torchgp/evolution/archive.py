"""The archive: the best program of each output at each complexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import NOTHING

_MEASURABLE = 0.9999
"""A loss counts as lower if it is lower by this factor."""


@final
@dataclass
class Archive:
    """The best programs so far of each output at each complexity, in double precision.

    Attributes:
        codes: shape (k, sizes, length).
        values: shape (k, sizes, length), float64.
        losses: shape (k, sizes), float64; infinite where there is no program.
    """

    codes: Tensor
    values: Tensor
    losses: Tensor

    @classmethod
    def empty(cls, outputs: int, maxsize: int, length: int, device: torch.device) -> Archive:
        """Return an empty archive for complexities 0 to maxsize."""
        shape = (outputs, maxsize + 1, length)
        return cls(
            torch.full(shape, NOTHING, device=device),
            torch.zeros(shape, device=device, dtype=torch.float64),
            torch.full(shape[:2], torch.inf, device=device, dtype=torch.float64),
        )

    def select_outputs(self, outputs: Tensor) -> Archive:
        """Return the archive of some of the outputs, given by number."""
        return Archive(self.codes[outputs], self.values[outputs], self.losses[outputs])

    def get_programs(self, output: int, sizes: Tensor) -> Programs:
        """Return the programs of an output at some complexities."""
        return Programs(self.codes[output, sizes], self.values[output, sizes])

    def select_best(self, outputs: Sequence[int]) -> Programs:
        """Return the programs of some outputs that are better than all simpler ones, from simple to complex.

        Args:
            outputs: numbers of the outputs.
        """
        chosen = torch.tensor(outputs, dtype=torch.long, device=self.losses.device)
        losses = self.losses[chosen]
        before = torch.nn.functional.pad(losses, (1, 0), value=torch.inf).cummin(1).values[:, :-1]
        better = losses < before
        return Programs(self.codes[chosen][better], self.values[chosen][better])

    def merge(self, row: int, other: Archive, other_row: int) -> None:
        """Take the better programs of another archive for one output.

        Args:
            row: place of the output here.
            other: the other archive.
            other_row: place of the output there.
        """
        better = other.losses[other_row] < self.losses[row]
        wide = better[:, None]
        self.codes[row] = torch.where(wide, other.codes[other_row], self.codes[row])
        self.values[row] = torch.where(wide, other.values[other_row], self.values[row])
        self.losses[row] = torch.where(better, other.losses[other_row], self.losses[row])

    def update(self, programs: Programs, complexity: Tensor, losses: Tensor) -> None:
        """Take the programs that are better than those here.

        Args:
            programs: p programs.
            complexity: their complexities, shape (p,).
            losses: their losses for every output, shape (p, k).
        """
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
