"""Evaluating many programs at once, and their derivatives by chosen places.

The nodes of all programs of a chunk are sorted by height and operator. Equal subtrees are one node. All nodes of a kind
at a height are then one torch operation whose results lie next to each other in a buffer (nodes, rows), so a chunk
costs some dozens of operations however many programs it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.expressions import OPERATORS
from symtorch_torchgp.primitives import CONSTANT, NOTHING, Primitives
from symtorch_torchgp.programs import Programs, subtree_starts
from symtorch_torchgp.slopes import slopes

_HASH_BITS = 47
_HASH_MASK = (1 << _HASH_BITS) - 1
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64), 0x165667B19E3779F9)
_BASE = 0x9E3779B97F4A7C15 | 1
_BUFFER_ELEMENTS = 2**23
_NODES_PER_PROGRAM = 8


@final
@dataclass(frozen=True)
class _Group:
    """Nodes of one operator at one height: places ``start`` to ``stop`` of the buffer, and where their operands lie."""

    code: int
    start: int
    stop: int
    free: bool
    operands: tuple[Tensor, ...]


@final
@dataclass(frozen=True)
class Schedule:
    """How to evaluate a chunk of programs; the same for any rows and any values of the free places.

    Attributes:
        groups: in order of evaluation; variables and constants come first.
        roots: buffer place of each program's value, shape (p,).
        nodes: places in the buffer.
        owners: for each node a program that has it, the only one for nodes that hold a free place, shape (nodes,).
        fixed_nodes: buffer places of the constants that are not free, shape (c,).
        fixed_values: their values, shape (c,).
        free_nodes: buffer places of the free constants, shape (f,), sorted by program.
        free_programs: program of each of those, shape (f,).
        free_places: its place in that program, shape (f,).
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


def schedule(programs: Programs, primitives: Primitives, free: Tensor | None = None) -> Schedule:
    """Sort the nodes of a chunk for evaluation.

    Args:
        programs: the chunk.
        primitives: the code table.
        free: shape (p, length), True at constants that get their values at evaluation; each is a node of its own.
            None for none of them.
    """
    device, count = programs.codes.device, len(programs)
    longest = int(programs.size.max())
    codes = programs.codes[:, :longest].T.contiguous()
    values = programs.values[:, :longest].T.contiguous()
    is_free = torch.zeros_like(codes, dtype=torch.bool)
    if free is not None:
        is_free = free[:, :longest].T.contiguous()
    starts = subtree_starts(programs.codes[:, :longest], primitives).T.contiguous()
    hashed, holds_free = _identities(codes, values, is_free, starts)
    height = _heights(codes, starts, primitives)
    used = codes != NOTHING
    # Group in the high bits, identity in the low ones: sorting unique keys sorts and merges nodes in one go.
    table = len(primitives.arity)
    key = ((height * table + codes) * 2 + holds_free << _HASH_BITS) | (hashed & _HASH_MASK)
    flat = used.flatten().nonzero()[:, 0]
    unique, inverse = torch.unique(key.flatten()[flat], return_inverse=True)
    node_of = torch.zeros(codes.numel(), dtype=torch.long, device=device)
    node_of[flat] = inverse
    representative = torch.zeros(len(unique), dtype=torch.long, device=device)
    representative[inverse] = flat
    # In the flattened (length, p) layout, the last child stands one row above, the first right before the last.
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
            if OPERATORS[primitives.operators[code - primitives.first_operator]].arity == 2:
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


def _identities(codes: Tensor, values: Tensor, is_free: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """A hash of the subtree that ends at each place, and whether it holds a free place; both (length, p).

    A subtree is a run of places, so a polynomial hash of the run is a difference of two prefix sums, moved to a common
    power. All arithmetic is modulo 2^64, where odd numbers have inverses.
    """
    length, count = codes.shape
    bits = torch.int64 if values.dtype == torch.float64 else torch.int32
    own_place = torch.arange(length * count, device=codes.device).view(length, count) + 1
    letter = codes * _MIX[0] + torch.where(is_free, -own_place, values.view(bits).long()) * _MIX[1]
    letter = (letter ^ (letter >> 29)) * _MIX[2]
    letter = letter ^ (letter >> 32)
    up = torch.tensor([_signed(pow(_BASE, place, 2**64)) for place in range(length)], device=codes.device)
    down = torch.tensor([_signed(pow(_BASE, -place, 2**64)) for place in range(length)], device=codes.device)
    total = torch.nn.functional.pad((letter * up[:, None]).cumsum(0), (0, 0, 1, 0))
    run = (total[1:] - total.gather(0, starts)) * down[starts]
    run = (run ^ (run >> 30)) * _MIX[1]
    free = torch.nn.functional.pad(is_free.long().cumsum(0), (0, 0, 1, 0))
    return run ^ (run >> 31), free[1:] > free.gather(0, starts)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _heights(codes: Tensor, starts: Tensor, primitives: Primitives) -> Tensor:
    """Height of the subtree that ends at each place, (length, p)."""
    arity = torch.where(codes == NOTHING, 0, primitives.arity[codes])
    call, binary = (arity >= 1).long(), (arity == 2).long()
    first = (starts.roll(1, 0) - 1).clamp_min(0)
    height = torch.zeros_like(codes)
    for place in range(1, len(codes)):
        other = height.gather(0, first[place : place + 1])[0] * binary[place]
        torch.mul(torch.maximum(height[place - 1], other) + 1, call[place], out=height[place])
    return height


def evaluate(
    plan: Schedule,
    primitives: Primitives,
    columns: Tensor,
    free: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Fill a buffer with the value of every node.

    Args:
        plan: the schedule.
        primitives: the code table.
        columns: inputs, shape (d, rows).
        free: values of the free places, shape (f,) or, where they differ by row, (f, rows).
        known: a buffer filled for other values of the free places; what does not depend on them is taken from it.

    Returns:
        Shape (plan.nodes, rows).
    """
    rows = columns.shape[1]
    buffer = columns.new_empty(plan.nodes, rows) if known is None else known.clone()
    if known is None and len(plan.fixed_nodes):
        buffer[plan.fixed_nodes] = plan.fixed_values.to(columns.dtype)[:, None].expand(-1, rows)
    if free is not None:
        buffer[plan.free_nodes] = free if free.ndim == 2 else free[:, None].expand(-1, rows)
    for group in plan.groups:
        if group.code == CONSTANT or (known is not None and not group.free):
            continue
        target = buffer[group.start : group.stop]
        if group.code < primitives.first_operator:
            target.copy_(columns[group.code - 2])
            continue
        function = OPERATORS[primitives.operators[group.code - primitives.first_operator]].torch
        target.copy_(function(*[buffer.index_select(0, operand) for operand in group.operands]))
    return buffer


def values_of(programs: Programs, primitives: Primitives, columns: Tensor) -> Tensor:
    """The value of every program on every row, shape (p, rows), evaluated in chunks that stay in the cache."""
    if len(programs) == 0:
        return columns.new_empty(0, columns.shape[1])
    results = []
    for part in chunks(len(programs), chunk_size(columns.shape[1])):
        plan = schedule(programs[part], primitives)
        results.append(evaluate(plan, primitives, columns).index_select(0, plan.roots))
    return torch.cat(results)


def chunk_size(rows: int) -> int:
    """Programs whose nodes fill the cache for so many rows."""
    return max(16, _BUFFER_ELEMENTS // (_NODES_PER_PROGRAM * rows))


def chunks(count: int, size: int) -> list[slice]:
    """Slices of at most ``size`` that cover 0 to ``count``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def derivatives(plan: Schedule, primitives: Primitives, buffer: Tensor) -> Tensor:
    """Derivative of each program's value by each of its free places, by one pass back through the groups.

    Every node that holds a free place has one parent, so adjoints are written, never added.

    Returns:
        Shape (f, rows), in the order of ``plan.free_nodes``.
    """
    adjoint = torch.empty_like(buffer)
    adjoint[plan.roots] = 1.0
    for group in reversed(plan.groups):
        if not group.free or group.code < primitives.first_operator:
            continue
        operator = OPERATORS[primitives.operators[group.code - primitives.first_operator]]
        args = [buffer.index_select(0, operand) for operand in group.operands]
        result, incoming = buffer[group.start : group.stop], adjoint[group.start : group.stop].clone()
        for operand, slope in zip(group.operands, slopes(operator, args, result, incoming), strict=True):
            adjoint.index_copy_(0, operand, slope)
    return adjoint.index_select(0, plan.free_nodes)
