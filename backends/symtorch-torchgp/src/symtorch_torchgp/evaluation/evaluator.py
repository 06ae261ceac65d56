"""Values of all nodes of a schedule, and derivatives by its free places."""

from __future__ import annotations

import torch
from torch import Tensor

from symtorch_torchgp.evaluation.adjoints import differentiate_operator
from symtorch_torchgp.evaluation.schedules import Schedule, build_schedule
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives

_BUFFER_ELEMENTS = 2**23
_NODES_PER_PROGRAM = 8


def evaluate(
    plan: Schedule,
    primitives: Primitives,
    columns: Tensor,
    free: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Compute the value of every node.

    Args:
        plan: the schedule.
        primitives: the code table.
        columns: inputs, shape (d, rows).
        free: values of the free places, shape (f,), or (f, rows) if they differ between rows.
        known: values of the nodes for other free places; only nodes that depend on free places are computed again.

    Returns:
        Values, shape (plan.nodes, rows).
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
        compute = primitives.get_function(group.code).compute
        target.copy_(compute(*[buffer.index_select(0, operand) for operand in group.operands]))
    return buffer


def differentiate(plan: Schedule, primitives: Primitives, buffer: Tensor) -> Tensor:
    """Return the derivative of each program's value by each of its free places, by one pass back through the groups.

    Every node that depends on a free place has one parent, so adjoints are assigned, never added.

    Args:
        plan: the schedule.
        primitives: the code table.
        buffer: values of the nodes, shape (plan.nodes, rows).

    Returns:
        Derivatives, shape (f, rows), in the order of ``plan.free_nodes``.
    """
    adjoint = torch.empty_like(buffer)
    adjoint[plan.roots] = 1.0
    for group in reversed(plan.groups):
        if not group.free or group.code < primitives.first_operator:
            continue
        function = primitives.get_function(group.code)
        args = [buffer.index_select(0, operand) for operand in group.operands]
        result, incoming = buffer[group.start : group.stop], adjoint[group.start : group.stop].clone()
        for operand, slope in zip(
            group.operands, differentiate_operator(function, args, result, incoming), strict=True
        ):
            adjoint.index_copy_(0, operand, slope)
    return adjoint.index_select(0, plan.free_nodes)


def compute_values(programs: Programs, primitives: Primitives, columns: Tensor) -> Tensor:
    """Return the values of programs on all rows, shape (p, rows), computed in chunks that fit into the cache."""
    if len(programs) == 0:
        return columns.new_empty(0, columns.shape[1])
    results = []
    for part in split_range(len(programs), compute_chunk_size(columns.shape[1])):
        plan = build_schedule(programs[part], primitives)
        results.append(evaluate(plan, primitives, columns).index_select(0, plan.roots))
    return torch.cat(results)


def compute_chunk_size(rows: int) -> int:
    """Return the number of programs whose nodes fit into the cache for this number of rows."""
    return max(16, _BUFFER_ELEMENTS // (_NODES_PER_PROGRAM * rows))


def split_range(count: int, size: int) -> list[slice]:
    """Return slices of at most ``size`` that cover 0 to ``count``."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
