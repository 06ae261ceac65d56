"""Targets seen through an operator: y = u(n) asks for an n that is like the inverse of u at y.

Where the outermost operator of a law is u = exp, sqrt, square, log or a reciprocal, what is inside may be far easier to
match than the law itself (AI Feynman tries the same transforms, Udrescu and Tegmark 2020). Errors there are weighed by
the slope of u, so that small residuals inside are small residuals of y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.fitting import Rows
from symtorch_torchgp.primitives import CONSTANT, Primitives
from symtorch_torchgp.programs import Programs, append

_WIDEST = 1e8
"""Weights that differ by more than this leave nothing to match."""


@final
@dataclass(frozen=True)
class _Inverse:
    """The inverse of an operator u, up to linear scaling on both sides.

    Attributes:
        inside: y to the value inside u, for y of one sign made positive.
        slope: derivative of that.
        one_sign: whether y must not change its sign.
        scaled: u(c n) is not a multiple of u(n), so n needs a factor; otherwise it needs a shift.
        increasing: the shifted n must not be turned around: u has no even or odd symmetry.
    """

    inside: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    one_sign: bool = True
    scaled: bool = False
    increasing: bool = False


INVERSES = MappingProxyType(
    {
        "exp": _Inverse(torch.log, torch.reciprocal, scaled=True),
        "inv": _Inverse(torch.reciprocal, lambda y: y.square().reciprocal()),
        "square": _Inverse(torch.sqrt, lambda y: 0.5 * y.rsqrt()),
        "sqrt": _Inverse(torch.square, lambda y: 2 * y, increasing=True),
        "log": _Inverse(torch.exp, torch.exp, one_sign=False, increasing=True),
    }
)


@final
@dataclass(frozen=True)
class Inside:
    """The targets inside one operator.

    Attributes:
        operator: its name.
        rows: the same outputs, with targets and weights inside; shape as there.
        possible: for which outputs there is such a thing, shape (k,).
    """

    operator: str
    rows: Rows
    possible: Tensor


def insides(rows: Rows, primitives: Primitives) -> list[Inside]:
    """The targets inside every operator of the search that has an inverse here."""
    found = []
    for name, inverse in INVERSES.items():
        if name not in primitives.operators:
            continue
        y = rows.targets * rows.spreads[:, None] + rows.means[:, None]
        if inverse.one_sign:
            possible = (y > 0).all(1) | (y < 0).all(1)
            y = y.abs()
        else:  # only up to a factor, which becomes an offset outside
            possible = torch.ones(len(y), dtype=torch.bool, device=y.device)
            y = y - y.amax(1, keepdim=True)
        inside, slope = inverse.inside(y), inverse.slope(y)
        weights = rows.weights / slope.square()
        finite = torch.isfinite(inside).all(1) & torch.isfinite(weights).all(1)
        widest = weights.amax(1) <= _WIDEST * weights.amin(1).clamp_min(torch.finfo(y.dtype).tiny)
        possible = possible & finite & (widest | (rows.weights.amin(1) == 0))
        inside = torch.where(possible[:, None], inside, rows.targets)
        weights = torch.where(possible[:, None], weights, rows.weights)
        found.append(Inside(name, Rows.of(rows.columns.T, inside.T, weights), possible))
    return found


def wrapped(
    pieces: Programs, values: Tensor, inside: Inside, outputs: Tensor, primitives: Primitives
) -> tuple[Programs, Tensor]:
    """Programs u(n + shift) or u(factor n), fitted to the targets inside u.

    Args:
        pieces: p programs n.
        values: of them, shape (p, rows).
        inside: the operator u and its targets.
        outputs: which output each is for, shape (p,).
        primitives: the code table.

    Returns:
        The programs, and which of them are possible and complete, shape (p,).
    """
    rows, inverse = inside.rows, INVERSES[inside.operator]
    target, weight = rows.targets[outputs], rows.weights[outputs]
    mean = (weight * values).sum(1)
    centred = values - mean[:, None]
    slope = (weight * centred * target).sum(1) / (weight * centred.square()).sum(1)
    slope = slope * rows.spreads[outputs]
    shift = (rows.means[outputs] - slope * mean) / slope
    number = slope if inverse.scaled else shift
    good = torch.isfinite(number) & inside.possible[outputs] & (pieces.size > 0)
    if inverse.increasing:
        good &= slope > 0
    join = "*" if inverse.scaled else "+"
    if join not in primitives.operators:
        return pieces, torch.zeros_like(good)
    good &= pieces.size + 3 <= pieces.codes.shape[1]
    pieces = append(pieces, good, CONSTANT, number)
    pieces = append(pieces, good, primitives.code_of(join))
    return append(pieces, good, primitives.code_of(inside.operator)), good
