"""How well programs fit: all programs against all outputs by matrix products, constants by Levenberg-Marquardt.

A program f counts as a + b f with the best a and b for each output (linear scaling, Keijzer 2003), so that the search
only has to find the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.expressions import Call, Constant, Expression
from symtorch_torchgp.evaluation import chunk_size, chunks, derivatives, evaluate, schedule, values_of
from symtorch_torchgp.primitives import CONSTANT, Primitives
from symtorch_torchgp.programs import Programs

_MOST_CONSTANTS = 8
_CLOSE = 1e-3
"""1 - R2 below which residuals are computed: the difference of squares is too coarse there."""
_RESIDUAL_PAIRS = 2**13
_NEGLIGIBLE_OFFSET = 1e-7
_FLAT = 1e-6
"""A program whose variance is a smaller share of its mean square is only rounding."""


@final
@dataclass(frozen=True)
class Rows:
    """The rows a search looks at.

    Attributes:
        columns: inputs, shape (d, rows).
        targets: shape (k, rows), each with mean 0 and variance 1 under its weights.
        weights: shape (k, rows), each summing to 1.
        means: what was subtracted from the targets, shape (k,).
        spreads: what they were divided by, shape (k,).
    """

    columns: Tensor
    targets: Tensor
    weights: Tensor
    means: Tensor
    spreads: Tensor

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor) -> Rows:
        """From inputs (n, d), targets (n, k) and weights (k, n)."""
        share = weights / weights.sum(1, keepdim=True)
        targets = Y.T.contiguous()
        means = (share * targets).sum(1)
        targets = targets - means[:, None]
        spreads = (share * targets.square()).sum(1).sqrt().clamp_min(torch.finfo(targets.dtype).tiny)
        return cls(X.T.contiguous(), targets / spreads[:, None], share, means, spreads)

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.columns.shape[1]

    def of_outputs(self, outputs: Tensor) -> Rows:
        """The same rows for some of the outputs, given by number."""
        return Rows(
            self.columns,
            self.targets[outputs],
            self.weights[outputs],
            self.means[outputs],
            self.spreads[outputs],
        )


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
    floor = _FLAT * second + torch.finfo(values.dtype).tiny
    share = (1.0 - cross.square() / spread).clamp_min(0.0)
    share = torch.where(torch.isfinite(share) & (spread > floor), share, torch.inf)
    close = (share < _CLOSE).nonzero()
    for part in chunks(len(close), _RESIDUAL_PAIRS):
        program, output = close[part].unbind(1)
        share[program, output] = scaled(values[program], rows.targets[output], rows.weights[output]).loss
    return share


@final
@dataclass(frozen=True)
class Scaled:
    """The best a + b f of each program for one output.

    Attributes:
        centred: f without its weighted mean, shape (p, rows).
        slope: b, shape (p,); 0 where there is no fit.
        residual: target - a - b f, shape (p, rows).
        loss: weighted mean square of that, shape (p,); infinite where there is no fit.
    """

    centred: Tensor
    slope: Tensor
    residual: Tensor
    loss: Tensor


def scaled(value: Tensor, target: Tensor, weight: Tensor) -> Scaled:
    """Linear scaling of programs, each to its own target; all arguments have the shape (p, rows)."""
    centred = value - (value * weight).sum(1, keepdim=True)
    weighted = weight * centred
    spread = (weighted * centred).sum(1)
    slope = (weighted * target).sum(1) / spread
    residual = target - slope[:, None] * centred
    loss = (weight * residual.square()).sum(1)
    good = torch.isfinite(loss)
    return Scaled(
        torch.where(good[:, None], centred, 0.0),
        torch.where(good, slope, 0.0),
        torch.where(good[:, None], residual, 0.0),
        torch.where(good, loss, torch.inf),
    )


def score(programs: Programs, primitives: Primitives, rows: Rows) -> Tensor:
    """1 - R2 of every program for every output, shape (p, k)."""
    parts = chunks(len(programs), chunk_size(rows.count))
    return torch.cat(
        [unexplained(values_of(programs[part], primitives, rows.columns), rows) for part in parts]
    )


def materialised(programs: Programs, primitives: Primitives, rows: Rows) -> list[Expression]:
    """The expressions a + b f of programs f for the only output of ``rows``, with a and b as ordinary constants."""
    values = values_of(programs, primitives, rows.columns)
    fit = scaled(values, rows.targets.expand_as(values), rows.weights.expand_as(values))
    factor = fit.slope * rows.spreads
    offset = rows.means - factor * (values * rows.weights).sum(1)
    offset = torch.where(offset.abs() > _NEGLIGIBLE_OFFSET * rows.spreads, offset, 0.0)
    found: list[Expression] = []
    for codes, numbers, b, a in zip(
        programs.codes.tolist(), programs.values.tolist(), factor.tolist(), offset.tolist(), strict=True
    ):
        scaled_program = Call("*", Constant(b), primitives.decode(codes, numbers))
        found.append(Call("+", scaled_program, Constant(a)) if a else scaled_program)
    return found


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
    values = programs.values.clone()
    for part in chunks(len(fit), max(8, chunk_size(rows.count) // 2)):
        chosen = fit[part]
        values[chosen] = _marquardt(programs[chosen], outputs[chosen], primitives, rows, steps)
    return Programs(programs.codes, values)


def _marquardt(programs: Programs, outputs: Tensor, primitives: Primitives, rows: Rows, steps: int) -> Tensor:
    """New constants beside the codes, shape (p, length).

    The unknowns are the constants, a and b: two more columns of the Jacobian, so that a constant which only shifts
    or scales the program is seen to be superfluous.
    """
    plan = schedule(programs, primitives, programs.codes == CONSTANT)
    owner, place = plan.free_programs, plan.free_places
    p, dtype = len(programs), rows.columns.dtype
    # Slot of each constant within its program: constants come sorted by program.
    first = torch.searchsorted(owner, torch.arange(p, device=owner.device))
    slot = torch.arange(len(owner), device=owner.device) - first[owner]
    width = int(slot.max()) + 1
    target, weight = rows.targets[outputs], rows.weights[outputs]
    root_weight = weight.sqrt()
    lift = 10 * torch.finfo(dtype).eps
    identity = torch.eye(width + 2, device=owner.device, dtype=torch.float64)
    current = programs.values[owner, place].to(dtype)
    buffer = evaluate(plan, primitives, rows.columns, current)
    fit = scaled(buffer.index_select(0, plan.roots), target, weight)
    damping = torch.full((p,), 1e-2, device=owner.device, dtype=torch.float64)
    jacobian = rows.columns.new_zeros(p, width + 2, rows.count)
    jacobian[:, width] = 1.0
    for step in range(steps):
        jacobian[owner, slot] = fit.slope[owner][:, None] * derivatives(plan, primitives, buffer)
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
        new = scaled(new_buffer.index_select(0, plan.roots), target, weight)
        better = new.loss < fit.loss
        current = torch.where(better[owner], proposed, current)
        damping = torch.where(better, damping * 0.1, damping * 10.0).clamp(1e-9, 1e6)
        if step + 1 == steps:
            break
        buffer = torch.where(better[plan.owners][:, None], new_buffer, buffer)
        wide = better[:, None]
        fit = Scaled(
            torch.where(wide, new.centred, fit.centred),
            torch.where(better, new.slope, fit.slope),
            torch.where(wide, new.residual, fit.residual),
            torch.where(better, new.loss, fit.loss),
        )
    values = programs.values.clone()
    values[owner, place] = current.to(values.dtype)
    return values
