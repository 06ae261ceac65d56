"""How well programs fit: all programs against all outputs by a matrix product, constants by Levenberg-Marquardt.

A program f counts as a + b f with the best a and b for each output (linear scaling, Keijzer 2003), so that the search
only has to find the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.evaluation import derivatives, evaluate, schedule
from symtorch_torchgp.primitives import CONSTANT, Primitives
from symtorch_torchgp.programs import Programs

_MOST_CONSTANTS = 8
_BUFFER_ELEMENTS = 2**22
_NODES_PER_PROGRAM = 8


@final
@dataclass(frozen=True)
class Rows:
    """The rows a search looks at.

    Attributes:
        columns: inputs, shape (d, rows).
        targets: shape (k, rows), each with mean 0 and variance 1 under its weights.
        weights: shape (k, rows), each summing to 1.
    """

    columns: Tensor
    targets: Tensor
    weights: Tensor

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor) -> Rows:
        """From inputs (n, d), targets (n, k) and weights (k, n)."""
        share = weights / weights.sum(1, keepdim=True)
        targets = Y.T.contiguous()
        targets = targets - (share * targets).sum(1, keepdim=True)
        spread = (share * targets.square()).sum(1, keepdim=True).sqrt()
        targets = targets / spread.clamp_min(torch.finfo(targets.dtype).tiny)
        return cls(X.T.contiguous(), targets, share)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.columns.shape[1]


def unexplained(values: Tensor, rows: Rows) -> Tensor:
    """1 - R2 of the best a + b f for every program and output; infinite where a value is not finite.

    Args:
        values: shape (p, rows).
        rows: targets and weights.

    Returns:
        Shape (p, k).
    """
    centred = values - values.mean(1, keepdim=True)
    wt = rows.weights.T
    first = centred @ wt
    second = centred.square() @ wt
    cross = centred @ (rows.weights * rows.targets).T
    spread = second - first.square()
    # A spread that is only rounding would make noise look like a fit.
    floor = 1e-6 * second + 1e-30
    share = 1.0 - cross.square() / spread
    bad = ~(torch.isfinite(share) & (spread > floor))
    return torch.where(bad, torch.inf, share.clamp_min(0.0))


def chunk_size(rows: int) -> int:
    """Programs whose nodes fill the cache for so many rows."""
    return max(16, _BUFFER_ELEMENTS // (_NODES_PER_PROGRAM * rows))


def score(programs: Programs, primitives: Primitives, rows: Rows) -> Tensor:
    """1 - R2 of every program for every output, shape (p, k)."""
    results = []
    for part in _chunks(len(programs), chunk_size(rows.count)):
        chunk = programs[part]
        plan = schedule(chunk, primitives, share_constants=True)
        numbers = chunk.values[plan.constant_programs, plan.constant_places]
        buffer = evaluate(plan, primitives, rows.columns, numbers)
        results.append(unexplained(buffer.index_select(0, plan.roots), rows))
    return torch.cat(results)


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def fit_constants(
    programs: Programs, outputs: Tensor, primitives: Primitives, rows: Rows, steps: int
) -> Programs:
    """Programs with constants moved to lower 1 - R2 for their own output; never worse.

    Args:
        programs: p programs; those without constants, or with very many, come back as they are.
        outputs: output of each program, shape (p,).
        primitives: the code table.
        rows: the data.
        steps: Levenberg-Marquardt steps.
    """
    count = (programs.codes == CONSTANT).sum(1)
    fit = ((count > 0) & (count <= _MOST_CONSTANTS)).nonzero()[:, 0]
    if len(fit) == 0:
        return programs
    values = programs.values.clone()
    for part in _chunks(len(fit), max(8, chunk_size(rows.count) // 2)):
        chosen = fit[part]
        values[chosen] = _marquardt(programs[chosen], outputs[chosen], primitives, rows, steps)
    return Programs(programs.codes, values)


def _marquardt(programs: Programs, outputs: Tensor, primitives: Primitives, rows: Rows, steps: int) -> Tensor:
    """New constants beside the codes, shape (p, length)."""
    plan = schedule(programs, primitives, share_constants=False)
    owner, place = plan.constant_programs, plan.constant_places
    p = len(programs)
    # Slot of each constant within its program: constants come sorted by program.
    first = torch.searchsorted(owner, torch.arange(p, device=owner.device))
    slot = torch.arange(len(owner), device=owner.device) - first[owner]
    width = int(slot.max()) + 1
    target, weight = rows.targets[outputs], rows.weights[outputs]
    current = programs.values[owner, place]
    buffer = evaluate(plan, primitives, rows.columns, current)
    loss, residual, slope = _residuals(buffer[plan.roots], target, weight)
    damping = torch.full((p,), 1e-2, device=owner.device)
    for _ in range(steps):
        jacobian = target.new_zeros(p, width, rows.count)
        jacobian[owner, slot] = derivatives(plan, primitives, buffer)
        jacobian = torch.nan_to_num(jacobian * slope[:, None, None], posinf=0.0, neginf=0.0)
        # The best a and b follow the constants, so their share is projected out of the Jacobian.
        jacobian = _projected(jacobian, buffer[plan.roots], weight)
        weighted = (jacobian * weight[:, None, :]).double()
        normal = weighted @ jacobian.double().transpose(1, 2)
        gradient = (weighted @ residual.double()[:, :, None])[:, :, 0]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        lift = damping[:, None].double() * diagonal + 1e-12 * diagonal.amax(1, keepdim=True) + 1e-30
        move = torch.linalg.solve_ex(normal + torch.diag_embed(lift), gradient)[0]
        proposed = current + torch.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0)[owner, slot].to(
            current.dtype
        )
        new_buffer = evaluate(plan, primitives, rows.columns, proposed)
        new_loss, new_residual, new_slope = _residuals(new_buffer[plan.roots], target, weight)
        better = new_loss < loss
        current = torch.where(better[owner], proposed, current)
        loss = torch.where(better, new_loss, loss)
        residual = torch.where(better[:, None], new_residual, residual)
        slope = torch.where(better, new_slope, slope)
        damping = torch.where(better, damping * 0.1, damping * 10.0).clamp(1e-9, 1e6)
        buffer = new_buffer if bool(better.all()) else evaluate(plan, primitives, rows.columns, current)
    values = programs.values.clone()
    values[owner, place] = current
    return values


def _residuals(value: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """1 - R2, residual of the best a + b f, and b, for each program and its own output."""
    mean = (value * weight).sum(1, keepdim=True)
    centred = value - mean
    spread = (weight * centred.square()).sum(1)
    slope = (weight * centred * target).sum(1) / spread.clamp_min(1e-30)
    residual = target - slope[:, None] * centred
    loss = (weight * residual.square()).sum(1)
    good = torch.isfinite(loss) & (spread > 1e-30)
    return (
        torch.where(good, loss, torch.inf),
        torch.where(good[:, None], residual, 0.0),
        torch.where(good, slope, 0.0),
    )


def _projected(jacobian: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """The Jacobian without what a constant offset and the program's own value explain of it."""
    w = weight[:, None, :]
    size = (w * jacobian.square()).sum(2, keepdim=True)
    jacobian = jacobian - (jacobian * w).sum(2, keepdim=True)
    centred = torch.nan_to_num(value - (value * weight).sum(1, keepdim=True), posinf=0.0, neginf=0.0)[
        :, None, :
    ]
    spread = (w * centred.square()).sum(2, keepdim=True).clamp_min(1e-30)
    rest = jacobian - (w * jacobian * centred).sum(2, keepdim=True) / spread * centred
    # A column that is all offset and scale leaves only rounding: that constant stays where it is.
    flat = (w * rest.square()).sum(2, keepdim=True) < 1e-8 * size
    return torch.where(flat, 0.0, rest)
