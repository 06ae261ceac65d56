"""Many programs as tensors, and the index arithmetic on them.

A program is a postfix sequence of codes: a row of a (programs, places) tensor. Its constants are in a second tensor. A
subtree is a run of places that ends at its root, so that subtrees are cut and pasted by arithmetic on indices, without
any loop over programs or trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.programs.primitives import CONSTANT, NOTHING, Primitives


@final
@dataclass(frozen=True)
class Programs:
    """Many programs of equal length.

    Attributes:
        codes: shape (p, length), int64; empty places are at the end.
        values: constants, shape (p, length), float32; 0 elsewhere.
    """

    codes: Tensor
    values: Tensor

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: Tensor | slice) -> Programs:
        return Programs(self.codes[index], self.values[index])

    @property
    def size(self) -> Tensor:
        """Number of places in use, shape (p,)."""
        return (self.codes != NOTHING).sum(1)

    def compute_complexity(self, primitives: Primitives) -> Tensor:
        """Return the complexity of each program, shape (p,)."""
        return primitives.complexity[self.codes].sum(1)

    def to_float(self) -> Programs:
        """Return the same programs with constants in single precision."""
        return Programs(self.codes, self.values.to(torch.float32))

    @staticmethod
    def cat(parts: list[Programs]) -> Programs:
        """Concatenate programs."""
        return Programs(torch.cat([p.codes for p in parts]), torch.cat([p.values for p in parts]))


def find_subtree_starts(codes: Tensor, primitives: Primitives) -> Tensor:
    """Return the first place of the subtree that ends at each place, shape (p, length).

    A leaf is its own start. A subtree starts where its first child starts, and its last child ends just before it. The
    numbers at empty places have no meaning.
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


def find_subtree_start(programs: Programs, end: Tensor, primitives: Primitives) -> Tensor:
    """Return the first place of the subtree that ends at one place of each program, shape (p,)."""
    return find_subtree_starts(programs.codes, primitives).gather(1, end[:, None])[:, 0]


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
        start: the first replaced place, shape (p,).
        removed: number of replaced places, shape (p,).
        donor: p programs.
        donor_start: the first place of the donor's run, shape (p,).
        inserted: length of the donor's run, shape (p,).

    Returns:
        The new programs; the target itself where the new program would be too long.
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
    """Return the subtrees at places ``start`` to ``end`` (inclusive), shape (p,) each, as programs."""
    length = programs.codes.shape[1]
    places = torch.arange(length, device=programs.codes.device)[None, :]
    index = (places + start[:, None]).clamp_max(length - 1)
    inside = places <= (end - start)[:, None]
    return Programs(
        torch.where(inside, programs.codes.gather(1, index), NOTHING),
        torch.where(inside, programs.values.gather(1, index), 0.0),
    )


def append(programs: Programs, which: Tensor, code: int, values: Tensor | None = None) -> Programs:
    """Append a code to some programs, if they have room.

    Args:
        programs: p programs.
        which: True for those to change, shape (p,).
        code: the code.
        values: values of the constants, shape (p,), for the code of a constant.
    """
    size = programs.size
    chosen = (which & (size < programs.codes.shape[1])).nonzero()[:, 0]
    codes, numbers = programs.codes.clone(), programs.values.clone()
    codes[chosen, size[chosen]] = code
    if values is not None:
        numbers[chosen, size[chosen]] = values[chosen].to(numbers.dtype)
    return Programs(codes, numbers)


def clear_values(programs: Programs) -> Programs:
    """Return the same programs with zeros beside everything that is not a constant."""
    return Programs(programs.codes, torch.where(programs.codes == CONSTANT, programs.values, 0.0))
