"""Inner targets: y = u(n) holds if n is the inverse of u at y.

If the outermost operator of a law is u = exp, sqrt, square, log or a reciprocal, its argument may be far easier to
match than the law itself (AI Feynman tries the same transforms, Udrescu and Tegmark 2020). Errors of the argument are
weighted by the derivative of u, so that they count as errors of y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import torch
from torch import Tensor

from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.programs.postfix import Programs, append
from symtorch_torchgp.programs.primitives import CONSTANT, Primitives

_WIDEST = 1e8
"""The largest ratio of weights: rows that count less would not count at all, though exact laws hold there too."""


@final
@dataclass(frozen=True)
class _Inverse:
    """The inverse of an operator u, up to linear scaling on both sides.

    Attributes:
        inside: maps y to the argument of u; y of one sign is made positive first.
        slope: derivative of ``inside``.
        one_sign: whether y must have one sign.
        scaled: whether n needs a factor, since u(c n) is not a multiple of u(n); otherwise it needs a shift.
        increasing: whether n must not be negated, since u is neither even nor odd.
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
class InnerTargets:
    """Targets of the argument of one operator.

    Attributes:
        operator: name of the operator.
        rows: the rows, with targets and weights of the argument.
        possible: which outputs can be values of the operator, shape (k,).
    """

    operator: str
    rows: Rows
    possible: Tensor


def invert_targets(rows: Rows, primitives: Primitives) -> list[InnerTargets]:
    """Return the inner targets of every operator of the search that has an inverse here."""
    found = []
    for name, inverse in INVERSES.items():
        if name not in primitives.operators:
            continue
        # In units of the spread: a factor of y is a factor, or an offset, of the argument.
        y = rows.heights
        if inverse.one_sign:
            possible = (y > 0).all(1) | (y < 0).all(1)
            y = y.abs()
        else:  # up to a factor, which becomes an offset of the result
            possible = torch.ones(len(y), dtype=torch.bool, device=y.device)
            y = (y - y.amax(1, keepdim=True)) * rows.spreads[:, None]
        inside, slope = inverse.inside(y), inverse.slope(y)
        gain = slope.square().reciprocal()
        gain = gain.clamp_min(gain.amax(1, keepdim=True) / _WIDEST)
        weights = rows.weights * gain
        possible = possible & torch.isfinite(inside).all(1) & torch.isfinite(weights).all(1)
        inside = torch.where(possible[:, None], inside, rows.targets)
        weights = torch.where(possible[:, None], weights, rows.weights)
        found.append(InnerTargets(name, Rows.of(rows.columns.T, inside.T, weights), possible))
    return found


def wrap_pieces(
    pieces: Programs, values: Tensor, inside: InnerTargets, outputs: Tensor, primitives: Primitives
) -> tuple[Programs, Tensor]:
    """Return programs u(n + shift) or u(factor n), fitted to the inner targets of u.

    Args:
        pieces: p programs n.
        values: their values, shape (p, rows).
        inside: the operator u and its inner targets.
        outputs: output of each program, shape (p,).
        primitives: the code table.

    Returns:
        The programs, and which of them are valid, shape (p,).
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
    pieces = append(pieces, good, primitives.get_code(join))
    return append(pieces, good, primitives.get_code(inside.operator)), good
