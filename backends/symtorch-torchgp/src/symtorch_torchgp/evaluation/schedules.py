"""Schedules: the order in which all nodes of a chunk of programs are evaluated.

The nodes of all programs of a chunk are sorted by height and operator. Equal subtrees are one node. All nodes of a kind
at a height are then one torch operation whose results lie next to each other in a buffer (nodes, rows), so a chunk
costs some dozens of operations however many programs it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.programs.postfix import Programs, find_subtree_starts
from symtorch_torchgp.programs.primitives import CONSTANT, NOTHING, Primitives

_HASH_BITS = 47
_HASH_MASK = (1 << _HASH_BITS) - 1
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64), 0x165667B19E3779F9)
_BASE = 0x9E3779B97F4A7C15 | 1


@final
@dataclass(frozen=True)
class _Group:
    """Nodes of one operator at one height: places ``start`` to ``stop`` of the buffer, and those of their operands."""

    code: int
    start: int
    stop: int
    free: bool
    operands: tuple[Tensor, ...]


@final
@dataclass(frozen=True)
class Schedule:
    """The order in which a chunk of programs is evaluated, for any rows and any values of the free places.

    Attributes:
        groups: in order of evaluation; variables and constants come first.
        roots: buffer place of each program's value, shape (p,).
        nodes: number of places in the buffer.
        owners: for each node a program that has it, shape (nodes,); the only one for nodes that depend on a free place.
        fixed_nodes: buffer places of the fixed constants, shape (c,).
        fixed_values: their values, shape (c,).
        free_nodes: buffer places of the free constants, shape (f,), sorted by program.
        free_programs: program of each free constant, shape (f,).
        free_places: its place in this program, shape (f,).
    """

    groups: tuple[_Group, ...]
    roots: Tensor
    nodes: int
    owners: Tensor
    fixed_nodes: Tensor
    fixed_values: Tensor
    free_nodes: Tensor
    free_programs: Tensor
    free_places: Tensor


def build_schedule(programs: Programs, primitives: Primitives, free: Tensor | None = None) -> Schedule:
    """Build the schedule of a chunk of programs.

    Args:
        programs: the chunk.
        primitives: the code table.
        free: shape (p, length), True at constants that get their values at evaluation, each as a separate node. None
            if there are none.
    """
    device, count = programs.codes.device, len(programs)
    longest = int(programs.size.max())
    codes = programs.codes[:, :longest].T.contiguous()
    values = programs.values[:, :longest].T.contiguous()
    is_free = torch.zeros_like(codes, dtype=torch.bool)
    if free is not None:
        is_free = free[:, :longest].T.contiguous()
    starts = find_subtree_starts(programs.codes[:, :longest], primitives).T.contiguous()
    hashed, holds_free = _hash_subtrees(codes, values, is_free, starts)
    height = _compute_heights(codes, starts, primitives)
    used = codes != NOTHING
    # The group is in the high bits, the hash in the low ones: sorting unique keys sorts and merges nodes at once.
    table = len(primitives.arity)
    key = ((height * table + codes) * 2 + holds_free << _HASH_BITS) | (hashed & _HASH_MASK)
    flat = used.flatten().nonzero()[:, 0]
    unique, inverse = torch.unique(key.flatten()[flat], return_inverse=True)
    node_of = torch.zeros(codes.numel(), dtype=torch.long, device=device)
    node_of[flat] = inverse
    representative = torch.zeros(len(unique), dtype=torch.long, device=device)
    representative[inverse] = flat
    # In the flattened (length, p) layout, the last child is one row above, and the first child just before the last.
    last = (representative - count).clamp_min(0)
    first = ((starts.flatten()[last] - 1).clamp_min(0)) * count + representative % count
    child_last, child_first = node_of[last], node_of[first]
    kinds, counts = torch.unique_consecutive(unique >> _HASH_BITS, return_counts=True)
    groups, start = [], 0
    for kind, number in zip(kinds.tolist(), counts.tolist(), strict=True):
        code, stop = (kind // 2) % table, start + number
        operands: tuple[Tensor, ...] = ()
        if code >= primitives.first_operator:
            operands = (child_last[start:stop],)
            if primitives.get_function(code).arity == 2:
                operands = (child_first[start:stop], child_last[start:stop])
        groups.append(_Group(code, start, stop, bool(kind % 2), operands))
        start = stop
    fixed = ((codes == CONSTANT) & ~is_free).flatten().nonzero()[:, 0]
    free_programs, free_places = is_free.T.nonzero(as_tuple=True)
    return Schedule(
        tuple(groups),
        node_of[(programs.size - 1) * count + torch.arange(count, device=device)],
        len(unique),
        representative % count,
        node_of[fixed],
        values.flatten()[fixed],
        node_of[free_places * count + free_programs],
        free_programs,
        free_places,
    )


def _hash_subtrees(codes: Tensor, values: Tensor, is_free: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Return a hash of the subtree that ends at each place, and whether it has a free place; both (length, p).

    A subtree is a run of places, so its polynomial hash is a difference of two prefix sums, brought to a common power.
    All arithmetic is modulo 2^64, where odd numbers have inverses.
    """
    length, count = codes.shape
    bits = torch.int64 if values.dtype == torch.float64 else torch.int32
    own_place = torch.arange(length * count, device=codes.device).view(length, count) + 1
    letter = codes * _MIX[0] + torch.where(is_free, -own_place, values.view(bits).long()) * _MIX[1]
    letter = (letter ^ (letter >> 29)) * _MIX[2]
    letter = letter ^ (letter >> 32)
    up = torch.tensor(
        [_wrap_to_signed(pow(_BASE, place, 2**64)) for place in range(length)], device=codes.device
    )
    down = torch.tensor(
        [_wrap_to_signed(pow(_BASE, -place, 2**64)) for place in range(length)], device=codes.device
    )
    total = torch.nn.functional.pad((letter * up[:, None]).cumsum(0), (0, 0, 1, 0))
    run = (total[1:] - total.gather(0, starts)) * down[starts]
    run = (run ^ (run >> 30)) * _MIX[1]
    free = torch.nn.functional.pad(is_free.long().cumsum(0), (0, 0, 1, 0))
    return run ^ (run >> 31), free[1:] > free.gather(0, starts)


def _wrap_to_signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _compute_heights(codes: Tensor, starts: Tensor, primitives: Primitives) -> Tensor:
    """Return the height of the subtree that ends at each place, shape (length, p)."""
    arity = torch.where(codes == NOTHING, 0, primitives.arity[codes])
    call, binary = (arity >= 1).long(), (arity == 2).long()
    first = (starts.roll(1, 0) - 1).clamp_min(0)
    height = torch.zeros_like(codes)
    for place in range(1, len(codes)):
        other = height.gather(0, first[place : place + 1])[0] * binary[place]
        torch.mul(torch.maximum(height[place - 1], other) + 1, call[place], out=height[place])
    return height
