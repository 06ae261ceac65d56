"""Linear scaling: the best a + b f of every program f for every output, by matrix products.

A program f counts as a + b f with the best a and b for each output (Keijzer 2003), so that the search only has to find
the shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from symtorch_core.expressions import Call, Constant, Expression
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.evaluation.evaluator import compute_chunk_size, compute_values, split_range
from symtorch_torchgp.programs.postfix import Programs
from symtorch_torchgp.programs.primitives import Primitives

_CLOSE = 1e-3
"""1 - R2 below which residuals are computed, since the difference of squares is too inaccurate there."""
_RESIDUAL_PAIRS = 2**13
_NEGLIGIBLE_OFFSET = 1e-7
_FLAT = 1e-6
"""Variance, as a share of the mean square, below which a program varies only by rounding errors."""


@final
@dataclass(frozen=True)
class Scaling:
    """The best a + b f of each program for one output.

    Attributes:
        centred: f without its weighted mean, shape (p, rows).
        slope: b, shape (p,); 0 if there is no fit.
        residual: target - a - b f, shape (p, rows).
        loss: weighted mean square of the residual, shape (p,); infinite if there is no fit.
    """

    centred: Tensor
    slope: Tensor
    residual: Tensor
    loss: Tensor


def fit_scaling(value: Tensor, target: Tensor, weight: Tensor) -> Scaling:
    """Fit programs by linear scaling, each to its own target; all arguments have the shape (p, rows)."""
    centred = value - (value * weight).sum(1, keepdim=True)
    weighted = weight * centred
    spread = (weighted * centred).sum(1)
    slope = (weighted * target).sum(1) / spread
    residual = target - slope[:, None] * centred
    loss = (weight * residual.square()).sum(1)
    good = torch.isfinite(loss)
    return Scaling(
        torch.where(good[:, None], centred, 0.0),
        torch.where(good, slope, 0.0),
        torch.where(good[:, None], residual, 0.0),
        torch.where(good, loss, torch.inf),
    )


def measure_unexplained(values: Tensor, rows: Rows) -> Tensor:
    """Return 1 - R2 of the best a + b f for every program and output; infinite if a value is not finite.

    Args:
        values: values of the programs, shape (p, rows).
        rows: the rows.

    Returns:
        Losses, shape (p, k).
    """
    centred = values - values.mean(1, keepdim=True)
    wt = rows.weights.T
    first = centred @ wt
    second = centred.square() @ wt
    cross = centred @ (rows.weights * rows.targets).T
    spread = second - first.square()
    # Below this spread, rounding errors would look like a fit.
    floor = _FLAT * second + torch.finfo(values.dtype).tiny
    share = (1.0 - cross.square() / spread).clamp_min(0.0)
    share = torch.where(torch.isfinite(share) & (spread > floor), share, torch.inf)
    close = (share < _CLOSE).nonzero()
    for part in split_range(len(close), _RESIDUAL_PAIRS):
        program, output = close[part].unbind(1)
        share[program, output] = fit_scaling(values[program], rows.targets[output], rows.weights[output]).loss
    return share


def score(programs: Programs, primitives: Primitives, rows: Rows) -> Tensor:
    """Return 1 - R2 of every program for every output, shape (p, k)."""
    parts = split_range(len(programs), compute_chunk_size(rows.count))
    return torch.cat(
        [
            measure_unexplained(compute_values(programs[part], primitives, rows.columns), rows)
            for part in parts
        ]
    )


def build_expressions(programs: Programs, primitives: Primitives, rows: Rows) -> list[Expression]:
    """Return the expressions a + b f of programs f for the only output of ``rows``, with constants a and b."""
    values = compute_values(programs, primitives, rows.columns)
    fit = fit_scaling(values, rows.targets.expand_as(values), rows.weights.expand_as(values))
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
