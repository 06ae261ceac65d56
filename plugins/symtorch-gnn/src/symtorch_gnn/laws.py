"""Has an equation the form of the law? (SymTorch paper, appendix E, Table 7; here decided by numbers, not by eye.)

Messages are summed and then read by a network that knows the receiver. So they need not be the force: any linear image
of it does, and the image may depend on the receiver's mass and charge, since the reader can undo that; which of these a
network ends up with is chance. An equation has the law's form if, for each receiver, it is a linear image of the force,
on fresh pairs of particles, farther and nearer than the simulations hold them. What its size depends on is told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from symtorch_core.expressions import Expression, evaluate, variables
from symtorch_gnn.forces import SOFTENING, Force
from symtorch_gnn.messages import TrimmedFit, trimmed_fit

TRANSFORMS: Final[Mapping[str, str]] = {
    "dx": "x_i - x_j",
    "dy": "y_i - y_j",
    "r": f"sqrt((x_i - x_j)^2 + (y_i - y_j)^2) + {SOFTENING}",
    "q1": "q_i",
    "q2": "q_j",
    "m1": "m_i",
    "m2": "m_j",
}
"""The variables of the equations, from those of an edge, receiver i and sender j (SymTorch paper, E.3)."""

EDGE_NAMES: Final = tuple(f"{name}_{end}" for end in "ij" for name in ("x", "y", "vx", "vy", "q", "m"))
"""Names of the 12 inputs of the edge model."""

ENOUGH: Final = 0.999
"""Trimmed R2 from which an equation is an image of the force."""
_ONE_SIDED: Final = 0.02
_CONSTANT: Final = 1e-3
_SAME_EXPONENT: Final = 0.05
_SAME_SIZE: Final = 0.05
_MASSES: Final = (1 / 3, 1.0, 3.0)
_CHARGES: Final = (-1.0, 1.0)
_FRESH: Final = 5_000
_REACH: Final = 4.0


@final
@dataclass(frozen=True)
class Verdict:
    """What an equation is, beside the force.

    Attributes:
        r2: of the linear fit of the true components to the equation, 10 % of the rows trimmed; the least among
            receivers of mass 1/3, 1 and 3 and charge -1 and 1.
        factor: what the image's size depends on: ``"force"`` (on nothing), ``"force / m1"``, or ``"force * g(m1)"``,
            perhaps with ``" * q1"``.
        slopes: of the equation in the two components, for a receiver of mass and charge 1.
        constant: what is added to the image, relative to the spread of the equation.
        exponent, true_exponent: d log|value| / d log r along rays, of the equation and of the true force; None for a
            force that is no power of r.
        strange: variables that the law does not contain, and that are not the receiver's own.
    """

    r2: float
    factor: str
    slopes: tuple[float, float]
    constant: float
    exponent: float
    true_exponent: float | None
    strange: tuple[str, ...]

    @property
    def matches(self) -> bool:
        """Whether the equation has the law's form: image, variables and exponent are right."""
        true = self.true_exponent
        same = true is None or abs(self.exponent - true) < _SAME_EXPONENT
        return self.r2 > ENOUGH and not self.strange and same

    @property
    def mark(self) -> str:
        """``"full"``, ``"only dx"``, ``"only dy"``, each perhaps ``" + constant"``, or ``"no"``."""
        if not self.matches:
            return "no"
        along_x, along_y = map(abs, self.slopes)
        side = "full"
        if min(along_x, along_y) < _ONE_SIDED * max(along_x, along_y):
            side = "only dx" if along_x > along_y else "only dy"
        return side + (" + constant" if self.constant > _CONSTANT else "")


def matches_law(expression: Expression, force: Force, seed: int = 0) -> Verdict:
    """Compare an equation in the variables of :data:`TRANSFORMS` with linear images of the true force.

    Pairs are new: dx and dy uniform on -4..4, charges of the sender -1 or 1, its mass exp(normal).

    >>> from symtorch_core.expressions import parse
    >>> from symtorch_gnn.forces import FORCES
    >>> verdict = matches_law(parse("m2*(0.3*dx - 2*dy)/r^2 + 0.5"), FORCES["r1"])
    >>> verdict.mark, verdict.factor
    ('full + constant', 'force / m1')
    >>> matches_law(parse("m2*(0.3*dx - 2*dy)/r^3"), FORCES["r1"]).mark
    'no'
    """
    generator = torch.Generator().manual_seed(seed)
    places = _REACH * (2 * torch.rand(_FRESH, 2, generator=generator, dtype=torch.float64) - 1)
    pairs = _pairs(places, generator)
    fits: dict[tuple[float, float], TrimmedFit] = {}
    for mass, charge in itertools.product(_MASSES, _CHARGES):
        received = _received(pairs, mass, charge)
        values = _value(expression, received)
        if not bool(torch.isfinite(values).all()) or float(values.std()) == 0:
            return Verdict(0.0, "", (0.0, 0.0), 0.0, math.nan, math.nan, ())
        fits[mass, charge] = trimmed_fit(_true(force, received), values)
    one = _received(pairs, 1.0, 1.0)
    fit = fits[1.0, 1.0]
    rays = places / places.norm(dim=1, keepdim=True)
    allowed = {"dx", "dy", "r", "m1", "q1", *force.variables}
    return Verdict(
        r2=min(each.r2 for each in fits.values()),
        factor=_factor(fits),
        slopes=(float(fit.slopes[0]), float(fit.slopes[1])),
        constant=abs(fit.intercept) / float(_value(expression, one)[fit.kept].std()),
        exponent=_exponent(lambda there: _value(expression, there) - fit.intercept, one, rays, (2.0, 4.0)),
        true_exponent=_power(force, one, rays),
        strange=tuple(name for name in variables(expression) if name not in allowed),
    )


def _factor(fits: Mapping[tuple[float, float], TrimmedFit]) -> str:
    """What the size of the image depends on, read off its main slope."""
    main = int(fits[1.0, 1.0].slopes.abs().argmax())
    size = {receiver: float(fit.slopes[main]) for receiver, fit in fits.items()}
    if size[1.0, 1.0] == 0:
        return ""
    by_mass = [size[mass, 1.0] / size[1.0, 1.0] for mass in _MASSES]
    names = {"force": by_mass, "force / m1": [g * m for g, m in zip(by_mass, _MASSES, strict=True)]}
    known = [name for name, sizes in names.items() if all(abs(g - 1) < _SAME_SIZE for g in sizes)]
    turned = size[1.0, -1.0] / size[1.0, 1.0] < 0
    return (known[0] if known else "force * g(m1)") + (" * q1" if turned else "")


def _received(pairs: Mapping[str, Tensor], mass: float, charge: float) -> dict[str, Tensor]:
    """The same pairs with one receiver."""
    like = torch.ones_like(pairs["dx"])
    return {**pairs, "m1": mass * like, "q1": charge * like}


def _pairs(places: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Variables of pairs of particles that are apart by ``places`` (n, 2)."""
    count = len(places)
    charges = 2.0 * torch.randint(0, 2, (count, 2), generator=generator).double() - 1
    masses = torch.randn(count, 2, generator=generator, dtype=torch.float64).exp()
    return {
        **_apart(places),
        **dict(zip(("q1", "q2"), charges.unbind(1), strict=True)),
        **dict(zip(("m1", "m2"), masses.unbind(1), strict=True)),
    }


def _apart(places: Tensor) -> dict[str, Tensor]:
    dx, dy = places.unbind(1)
    return {"dx": dx, "dy": dy, "r": torch.hypot(dx, dy) + SOFTENING}


def _value(expression: Expression, pairs: Mapping[str, Tensor]) -> Tensor:
    return evaluate(expression, pairs).double().expand(len(pairs["dx"]))


def _true(force: Force, pairs: Mapping[str, Tensor]) -> Tensor:
    """The true force on the first of each pair, shape (n, 2)."""
    names = ("q1", "q2", "m1", "m2")
    distance = torch.hypot(pairs["dx"], pairs["dy"])
    parts = force.on_first(pairs["dx"], pairs["dy"], distance, *(pairs[name] for name in names))
    return torch.stack(parts, dim=1)


def _power(force: Force, pairs: Mapping[str, Tensor], rays: Tensor) -> float | None:
    """The power of r that the force is, if it is one: the same from 1 to 2 as from 2 to 4."""

    def size(there: Mapping[str, Tensor]) -> Tensor:
        return _true(force, there).norm(dim=1)

    near, far = (_exponent(size, pairs, rays, between) for between in ((1.0, 2.0), (2.0, 4.0)))
    return far if abs(near - far) < _SAME_EXPONENT else None


def _exponent(
    value: Callable[[Mapping[str, Tensor]], Tensor],
    pairs: Mapping[str, Tensor],
    rays: Tensor,
    between: tuple[float, float],
) -> float:
    """How a value grows along rays (n, 2) between two distances: the median of d log|value| / d log r."""
    near, far = (value({**pairs, **_apart(distance * rays)}).abs() for distance in between)
    large = near > near.median()  # where it is not nearly zero
    return float(((far / near)[large].log() / math.log(between[1] / between[0])).median())
