"""Evaluating many programs at once, and the derivatives by their constants.

The nodes of all programs of a chunk are sorted by height and operator. Equal subtrees are one node. All nodes of a kind
at a height are then one torch operation whose results lie next to each other in a buffer (nodes, rows), so a chunk
costs some dozens of operations however many programs it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.expression import OPERATORS
from symtorch_torchgp.primitives import CONSTANT, NOTHING, Primitives
from symtorch_torchgp.programs import Programs, subtree_starts

_HASH_BITS = 47
_HASH_MASK = (1 << _HASH_BITS) - 1
_MIX = (0x9E3779B97F4A7C15 - (1 << 64), 0xC2B2AE3D27D4EB4F - (1 << 64), 0x165667B19E3779F9)


@final
@dataclass(frozen=True)
class _Group:
    """Nodes of one operator at one height: places ``start`` to ``stop`` of the buffer, and where their operands lie."""

    code: int
    start: int
    stop: int
    fitted: bool
    operands: tuple[Tensor, ...]


@final
@dataclass(frozen=True)
class Schedule:
    """How to evaluate a chunk of programs; the same for any rows and any values of the constants.

    Attributes:
        groups: in order of evaluation; variables and constants come first.
        roots: buffer place of each program's value, shape (p,).
        nodes: places in the buffer.
        constant_nodes: buffer places of the constants, shape (c,).
        constant_programs: program of each of those, shape (c,).
        constant_places: its place in that program, shape (c,).
    """

    groups: tuple[_Group, ...]
    roots: Tensor
    nodes: int
    constant_nodes: Tensor
    constant_programs: Tensor
    constant_places: Tensor


def schedule(programs: Programs, primitives: Primitives, *, share_constants: bool) -> Schedule:
    """Sort the nodes of a chunk for evaluation.

    Args:
        programs: the chunk.
        primitives: the code table.
        share_constants: whether subtrees with equal constants are one node; not, if constants are to be fitted.
    """
    codes, values = programs.codes, programs.values
    count, length = codes.shape
    device = codes.device
    starts = subtree_starts(codes, primitives)
    arity = primitives.arity[codes]
    first = torch.arange(count, device=device)
    height = torch.zeros_like(codes)
    hashed = torch.zeros_like(codes)
    fitted = codes == CONSTANT
    places = torch.arange(length, device=device)
    last_child = (places - 1).clamp_min(0).expand(count, length)
    first_child = (starts.gather(1, last_child) - 1).clamp_min(0)
    if share_constants:
        bits = torch.int64 if values.dtype == torch.float64 else torch.int32
        leaf_mark = values.contiguous().view(bits).long()
    else:
        leaf_mark = torch.where(fitted, first[:, None] * length + places + 1, 0)
    for place in range(length):
        code, n = codes[:, place], arity[:, place]
        a, b = last_child[:, place], first_child[:, place]
        ha, hb = hashed[first, a], hashed[first, b]
        own = code * _MIX[0] + leaf_mark[:, place] * _MIX[1]
        unary = own + (ha ^ (ha >> 29)) * _MIX[2]
        binary = unary + (hb ^ (hb >> 31)) * _MIX[0] * 3
        mixed = torch.where(n == 2, binary, torch.where((n == 1) & (code != NOTHING), unary, own))
        hashed[:, place] = mixed ^ (mixed >> 32)
        deeper = torch.where(n == 2, torch.maximum(height[first, a], height[first, b]), height[first, a]) + 1
        height[:, place] = torch.where((n >= 1) & (code != NOTHING), deeper, 0)
        inner = torch.where(n == 2, fitted[first, a] | fitted[first, b], fitted[first, a] & (n == 1))
        fitted[:, place] |= inner & (code != NOTHING)
    used = codes != NOTHING
    # Group in the high bits, identity in the low ones: sorting unique keys sorts and merges nodes in one go.
    group_key = (height * len(primitives.arity) + codes) * 2 + fitted
    key = (group_key << _HASH_BITS) | (hashed & _HASH_MASK)
    unique, inverse = torch.unique(key[used], return_inverse=True)
    node_of = torch.zeros_like(codes)
    node_of[used] = inverse
    representative = torch.zeros(len(unique), dtype=torch.long, device=device)
    flat = torch.arange(count * length, device=device).view(count, length)[used]
    representative[inverse] = flat
    child_last = node_of.gather(1, last_child).flatten()[representative]
    child_first = node_of.gather(1, first_child).flatten()[representative]
    kinds, counts = torch.unique_consecutive(unique >> _HASH_BITS, return_counts=True)
    groups, start = [], 0
    for kind, number in zip(kinds.tolist(), counts.tolist(), strict=True):
        group_code, stop = (kind // 2) % len(primitives.arity), start + number
        operands: tuple[Tensor, ...] = ()
        if group_code >= primitives.first_operator:
            operator = OPERATORS[primitives.operators[group_code - primitives.first_operator]]
            last, first_one = child_last[start:stop], child_first[start:stop]
            operands = (last,) if operator.arity == 1 else (first_one, last)
        groups.append(_Group(group_code, start, stop, bool(kind % 2), operands))
        start = stop
    is_constant = used & (codes == CONSTANT)
    constant_programs, constant_places = is_constant.nonzero(as_tuple=True)
    roots = node_of[first, programs.size - 1]
    return Schedule(
        tuple(groups), roots, len(unique), node_of[is_constant], constant_programs, constant_places
    )


def evaluate(plan: Schedule, primitives: Primitives, columns: Tensor, values: Tensor) -> Tensor:
    """Fill a buffer with the value of every node.

    Args:
        plan: the schedule.
        primitives: the code table.
        columns: inputs, shape (d, rows).
        values: the constants in the order of ``plan.constant_nodes``, shape (c,).

    Returns:
        Shape (plan.nodes, rows).
    """
    buffer = columns.new_empty(plan.nodes, columns.shape[1])
    for group in plan.groups:
        target = buffer[group.start : group.stop]
        if group.code == CONSTANT:
            buffer[plan.constant_nodes] = values[:, None].expand(-1, columns.shape[1])
        elif group.code < primitives.first_operator:
            target.copy_(columns[group.code - 2])
        else:
            function = OPERATORS[primitives.operators[group.code - primitives.first_operator]].torch
            args = [buffer.index_select(0, operand) for operand in group.operands]
            target.copy_(function(*args))
    return buffer


def derivatives(plan: Schedule, primitives: Primitives, buffer: Tensor) -> Tensor:
    """Derivative of each program's value by each of its constants, by one pass back through the groups.

    The plan must not share constants: then every node that holds a constant has one parent, and adjoints are written,
    never added.

    Returns:
        Shape (c, rows), in the order of ``plan.constant_nodes``.
    """
    adjoint = torch.zeros_like(buffer)
    adjoint[plan.roots] = 1.0
    for group in reversed(plan.groups):
        if not group.fitted or group.code < primitives.first_operator:
            continue
        function = OPERATORS[primitives.operators[group.code - primitives.first_operator]].torch
        with torch.enable_grad():
            args = [buffer.index_select(0, operand).requires_grad_() for operand in group.operands]
            result = function(*args)
            if not result.requires_grad:  # a step function: its slope is zero
                continue
            slopes = torch.autograd.grad(
                result, args, adjoint[group.start : group.stop].clone(), allow_unused=True
            )
        for operand, slope in zip(group.operands, slopes, strict=True):
            if slope is not None:
                adjoint[operand] = slope
    return adjoint[plan.constant_nodes]
