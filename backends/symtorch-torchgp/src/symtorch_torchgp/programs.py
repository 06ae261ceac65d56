"""Populations of programs as tensors, and the index arithmetic on them.

A program is a postfix sequence of codes, a row of a (programs, places) tensor; its constants stand beside it.
A subtree is a run of places that ends at its root, so cutting and pasting subtrees is arithmetic on indices: no loop
over programs or trees anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.primitives import CONSTANT, NOTHING, Primitives


@final
@dataclass(frozen=True)
class Programs:
    """A population.

    Attributes:
        codes: shape (p, length), int64; empty places are at the end.
        values: shape (p, length), float32; constants, 0 elsewhere.
    """

    codes: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Tensor | slice) -> Programs:
        return Programs(self.codes[index], self.values[index])

    @property
    def size(self) -> Tensor:
        """Places in use, shape (p,)."""
        return (self.codes != NOTHING).sum(1)

    def complexity(self, primitives: Primitives) -> Tensor:
        """Complexity of each program, shape (p,)."""
        return primitives.complexity[self.codes].sum(1)

    def float(self) -> Programs:
        """The same with constants in single precision."""
        return Programs(self.codes, self.values.to(torch.float32))

    @staticmethod
    def cat(parts: list[Programs]) -> Programs:
        """Populations one after the other."""
        return Programs(torch.cat([p.codes for p in parts]), torch.cat([p.values for p in parts]))


def subtree_starts(codes: Tensor, primitives: Primitives) -> Tensor:
    """First place of the subtree that ends at each place, shape (p, length); meaningless behind the end.

    A leaf starts where it stands; a subtree starts where its first child starts, and the last child ends right before
    its parent.
    """
    count, length = codes.shape
    arity = primitives.arity[codes.T.contiguous()]
    leaf, unary = arity == 0, arity == 1
    starts = torch.arange(length, device=codes.device)[:, None].repeat(1, count)
    for place in range(1, length):
        last = starts[place - 1]
        first = starts.gather(0, (last - 1).clamp_min_(0)[None])[0]
        starts[place] = torch.where(leaf[place], starts[place], torch.where(unary[place], last, first))
    return starts.T.contiguous()


def subtree_start(programs: Programs, end: Tensor, primitives: Primitives) -> Tensor:
    """First place of the subtree that ends at one place of each program, shape (p,)."""
    return subtree_starts(programs.codes, primitives).gather(1, end[:, None])[:, 0]


def splice(
    target: Programs,
    start: Tensor,
    removed: Tensor,
    donor: Programs,
    donor_start: Tensor,
    inserted: Tensor,
) -> Programs:
    """Replace a run of places of each target by a run of places of its donor.

    Args:
        target: p programs.
        start: first place replaced, shape (p,).
        removed: how many places go, shape (p,).
        donor: p programs.
        donor_start: first place taken, shape (p,).
        inserted: how many places are taken, shape (p,).

    Returns:
        The new programs; where one would not fit into the places, the target as it was.
    """
    length = target.codes.shape[1]
    places = torch.arange(length, device=target.codes.device)[None, :]
    start, removed, donor_start, inserted = (t[:, None] for t in (start, removed, donor_start, inserted))
    from_donor = (places >= start) & (places < start + inserted)
    behind = places >= start + inserted
    index = torch.where(behind, places - inserted + removed, places)
    beyond = index >= length
    index = index.clamp(0, length - 1)
    donor_index = (places - start + donor_start).clamp(0, donor.codes.shape[1] - 1)
    codes = torch.where(from_donor, donor.codes.gather(1, donor_index), target.codes.gather(1, index))
    values = torch.where(from_donor, donor.values.gather(1, donor_index), target.values.gather(1, index))
    codes = torch.where(beyond & ~from_donor, NOTHING, codes)
    fits = (target.size[:, None] - removed + inserted) <= length
    return Programs(torch.where(fits, codes, target.codes), torch.where(fits, values, target.values))


def cut(programs: Programs, start: Tensor, end: Tensor) -> Programs:
    """The subtrees at places ``start`` to ``end`` (inclusive), shape (p,) each, as programs of their own."""
    length = programs.codes.shape[1]
    places = torch.arange(length, device=programs.codes.device)[None, :]
    index = (places + start[:, None]).clamp_max(length - 1)
    inside = places <= (end - start)[:, None]
    return Programs(
        torch.where(inside, programs.codes.gather(1, index), NOTHING),
        torch.where(inside, programs.values.gather(1, index), 0.0),
    )


def append(programs: Programs, which: Tensor, code: int, values: Tensor | None = None) -> Programs:
    """One more code at the end of the programs ``which``, shape (p,), that have room, with values for a constant."""
    size = programs.size
    chosen = (which & (size < programs.codes.shape[1])).nonzero()[:, 0]
    codes, numbers = programs.codes.clone(), programs.values.clone()
    codes[chosen, size[chosen]] = code
    if values is not None:
        numbers[chosen, size[chosen]] = values[chosen].to(numbers.dtype)
    return Programs(codes, numbers)


def clean(programs: Programs) -> Programs:
    """The same programs with zeros beside everything that is not a constant."""
    return Programs(programs.codes, torch.where(programs.codes == CONSTANT, programs.values, 0.0))
