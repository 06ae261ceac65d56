"""Constants of many programs, fitted at once by Levenberg-Marquardt steps."""

from __future__ import annotations

import torch
from torch import Tensor

from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evaluation.evaluator import compute_chunk_size, differentiate, evaluate, split_range
from symtorch_torchgp.evaluation.schedules import build_schedule
from symtorch_torchgp.fitting.scaling import Scaling, fit_scaling
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives

_MOST_CONSTANTS = 8


def fit_constants(
    programs: Programs, outputs: Tensor, primitives: Primitives, rows: Rows, steps: int
) -> Programs:
    """Fit the constants of programs to their own outputs; no program gets worse.

    Args:
        programs: p programs; those without constants, or with very many, stay as they are.
        outputs: output of each program, shape (p,).
        primitives: the code table.
        rows: the rows.
        steps: number of Levenberg-Marquardt steps.

    Returns:
        The programs with new constants.
    """
    count = (programs.codes == CONSTANT).sum(1)
    fit = ((count > 0) & (count <= _MOST_CONSTANTS)).nonzero()[:, 0]
    values = programs.values.clone()
    for part in split_range(len(fit), max(8, compute_chunk_size(rows.count) // 2)):
        chosen = fit[part]
        values[chosen] = _fit_by_marquardt(programs[chosen], outputs[chosen], primitives, rows, steps)
    return Programs(programs.codes, values)


def _fit_by_marquardt(
    programs: Programs, outputs: Tensor, primitives: Primitives, rows: Rows, steps: int
) -> Tensor:
    """Return new values of the constants, shape (p, length).

    The unknowns are the constants, a and b. Two columns of the Jacobian belong to a and b, so that constants that only
    shift or scale the program are not moved in vain.
    """
    plan = build_schedule(programs, primitives, programs.codes == CONSTANT)
    owner, place = plan.free_programs, plan.free_places
    p, dtype = len(programs), rows.columns.dtype
    # Slot of each constant within its program: constants are sorted by program.
    first = torch.searchsorted(owner, torch.arange(p, device=owner.device))
    slot = torch.arange(len(owner), device=owner.device) - first[owner]
    width = int(slot.max()) + 1
    target, weight = rows.targets[outputs], rows.weights[outputs]
    root_weight = weight.sqrt()
    lift = 10 * torch.finfo(dtype).eps
    identity = torch.eye(width + 2, device=owner.device, dtype=torch.float64)
    current = programs.values[owner, place].to(dtype)
    buffer = evaluate(plan, primitives, rows.columns, current)
    fit = fit_scaling(buffer.index_select(0, plan.roots), target, weight)
    damping = torch.full((p,), 1e-2, device=owner.device, dtype=torch.float64)
    jacobian = rows.columns.new_zeros(p, width + 2, rows.count)
    jacobian[:, width] = 1.0
    for step in range(steps):
        jacobian[owner, slot] = fit.slope[owner][:, None] * differentiate(plan, primitives, buffer)
        jacobian[:, width + 1] = fit.centred
        weighted = jacobian * root_weight[:, None, :]
        weighted = torch.nan_to_num(weighted, nan=0.0, posinf=0.0, neginf=0.0)
        normal = (weighted @ weighted.transpose(1, 2)).double()
        gradient = (weighted @ (root_weight * fit.residual)[:, :, None])[:, :, 0].double()
        scale = normal.diagonal(dim1=1, dim2=2).clamp_min(1e-30).rsqrt()
        normal = normal * scale[:, :, None] * scale[:, None, :] + (damping + lift)[:, None, None] * identity
        move = torch.linalg.solve_ex(normal, scale * gradient)[0] * scale
        move = torch.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0)
        proposed = current + move[owner, slot].to(dtype)
        new_buffer = evaluate(plan, primitives, rows.columns, proposed, buffer)
        new = fit_scaling(new_buffer.index_select(0, plan.roots), target, weight)
        better = new.loss < fit.loss
        current = torch.where(better[owner], proposed, current)
        damping = torch.where(better, damping * 0.1, damping * 10.0).clamp(1e-9, 1e6)
        if step + 1 == steps:
            break
        buffer = torch.where(better[plan.owners][:, None], new_buffer, buffer)
        wide = better[:, None]
        fit = Scaling(
            torch.where(wide, new.centred, fit.centred),
            torch.where(better, new.slope, fit.slope),
            torch.where(wide, new.residual, fit.residual),
            torch.where(better, new.loss, fit.loss),
        )
    values = programs.values.clone()
    values[owner, place] = current.to(values.dtype)
    return values
