"""Does an equation have the form of the law? (SymTorch paper, appendix E, Table 7; decided by numbers, not by eye.)

Messages are summed and then read by a network that knows the receiver. So a message need not be the force: any linear
image of it will do. The image may also depend on the receiver's mass and charge, since the node model can undo that.
Which of these a network learns is chance. An equation has the law's form if, for each receiver, it is a linear image of
the force on fresh pairs of particles, nearer and farther apart than in the simulations. The verdict says what the
image's size depends on.
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
from symtorch_gnn.messages import TrimmedFit, fit_trimmed

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
    """How an equation compares with the force.

    Attributes:
        r2: of the linear fit of the true components to the equation, 10 % of the rows trimmed; the least among
            receivers of mass 1/3, 1 and 3 and charge -1 and 1.
        factor: what the image's size depends on: ``"force"`` (on nothing), ``"force / m1"``, or ``"force * g(m1)"``,
            perhaps with ``" * q1"``.
        slopes: of the equation in the two components, for a receiver of mass and charge 1.
        constant: the constant that is added to the image, relative to the spread of the equation.
        exponent, true_exponent: d log|value| / d log r along rays, of the equation and of the true force; None for a
            force that is not a power of r.
        strange: variables that are neither in the law nor the receiver's own.
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


def compare_with_law(expression: Expression, force: Force, seed: int = 0) -> Verdict:
    """Compare an equation in the variables of :data:`TRANSFORMS` with linear images of the true force.

    Pairs are new: dx and dy uniform on -4..4, charges of the sender -1 or 1, its mass exp(normal).

    >>> from symtorch_core.expressions import parse
    >>> from symtorch_gnn.forces import FORCES
    >>> verdict = compare_with_law(parse("m2*(0.3*dx - 2*dy)/r^2 + 0.5"), FORCES["r1"])
    >>> verdict.mark, verdict.factor
    ('full + constant', 'force / m1')
    >>> compare_with_law(parse("m2*(0.3*dx - 2*dy)/r^3"), FORCES["r1"]).mark
    'no'
    """
    generator = torch.Generator().manual_seed(seed)
    places = _REACH * (2 * torch.rand(_FRESH, 2, generator=generator, dtype=torch.float64) - 1)
    pairs = _draw_pairs(places, generator)
    fits: dict[tuple[float, float], TrimmedFit] = {}
    for mass, charge in itertools.product(_MASSES, _CHARGES):
        received = _set_receiver(pairs, mass, charge)
        values = _evaluate(expression, received)
        if not bool(torch.isfinite(values).all()) or float(values.std()) == 0:
            return Verdict(0.0, "", (0.0, 0.0), 0.0, math.nan, math.nan, ())
        fits[mass, charge] = fit_trimmed(_evaluate_force(force, received), values)
    one = _set_receiver(pairs, 1.0, 1.0)
    fit = fits[1.0, 1.0]
    rays = places / places.norm(dim=1, keepdim=True)
    allowed = {"dx", "dy", "r", "m1", "q1", *force.variables}
    return Verdict(
        r2=min(each.r2 for each in fits.values()),
        factor=_describe_factor(fits),
        slopes=(float(fit.slopes[0]), float(fit.slopes[1])),
        constant=abs(fit.intercept) / float(_evaluate(expression, one)[fit.kept].std()),
        exponent=_measure_exponent(
            lambda there: _evaluate(expression, there) - fit.intercept, one, rays, (2.0, 4.0)
        ),
        true_exponent=_find_exponent(force, one, rays),
        strange=tuple(name for name in variables(expression) if name not in allowed),
    )


def _describe_factor(fits: Mapping[tuple[float, float], TrimmedFit]) -> str:
    """Return what the size of the image depends on, read off its main slope."""
    main = int(fits[1.0, 1.0].slopes.abs().argmax())
    size = {receiver: float(fit.slopes[main]) for receiver, fit in fits.items()}
    if size[1.0, 1.0] == 0:
        return ""
    by_mass = [size[mass, 1.0] / size[1.0, 1.0] for mass in _MASSES]
    names = {"force": by_mass, "force / m1": [g * m for g, m in zip(by_mass, _MASSES, strict=True)]}
    known = [name for name, sizes in names.items() if all(abs(g - 1) < _SAME_SIZE for g in sizes)]
    turned = size[1.0, -1.0] / size[1.0, 1.0] < 0
    return (known[0] if known else "force * g(m1)") + (" * q1" if turned else "")


def _set_receiver(pairs: Mapping[str, Tensor], mass: float, charge: float) -> dict[str, Tensor]:
    """Return the same pairs with one receiver."""
    like = torch.ones_like(pairs["dx"])
    return {**pairs, "m1": mass * like, "q1": charge * like}


def _draw_pairs(places: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw pairs of particles whose displacements are ``places`` (n, 2)."""
    count = len(places)
    charges = 2.0 * torch.randint(0, 2, (count, 2), generator=generator).double() - 1
    masses = torch.randn(count, 2, generator=generator, dtype=torch.float64).exp()
    return {
        **_place_apart(places),
        **dict(zip(("q1", "q2"), charges.unbind(1), strict=True)),
        **dict(zip(("m1", "m2"), masses.unbind(1), strict=True)),
    }


def _place_apart(places: Tensor) -> dict[str, Tensor]:
    dx, dy = places.unbind(1)
    return {"dx": dx, "dy": dy, "r": torch.hypot(dx, dy) + SOFTENING}


def _evaluate(expression: Expression, pairs: Mapping[str, Tensor]) -> Tensor:
    return evaluate(expression, pairs).double().expand(len(pairs["dx"]))


def _evaluate_force(force: Force, pairs: Mapping[str, Tensor]) -> Tensor:
    """Return the true force on the first of each pair, shape (n, 2)."""
    names = ("q1", "q2", "m1", "m2")
    distance = torch.hypot(pairs["dx"], pairs["dy"])
    parts = force.compute_on_first(pairs["dx"], pairs["dy"], distance, *(pairs[name] for name in names))
    return torch.stack(parts, dim=1)


def _find_exponent(force: Force, pairs: Mapping[str, Tensor], rays: Tensor) -> float | None:
    """Return the exponent of a force that is a power of r (the same from 1 to 2 as from 2 to 4), else None."""

    def size(there: Mapping[str, Tensor]) -> Tensor:
        return _evaluate_force(force, there).norm(dim=1)

    near, far = (_measure_exponent(size, pairs, rays, between) for between in ((1.0, 2.0), (2.0, 4.0)))
    return far if abs(near - far) < _SAME_EXPONENT else None


def _measure_exponent(
    value: Callable[[Mapping[str, Tensor]], Tensor],
    pairs: Mapping[str, Tensor],
    rays: Tensor,
    between: tuple[float, float],
) -> float:
    """Return how a value grows along rays (n, 2) between two distances: the median of d log|value| / d log r."""
    near, far = (value({**pairs, **_place_apart(distance * rays)}).abs() for distance in between)
    large = near > near.median()  # where it is not nearly zero
    return float(((far / near)[large].log() / math.log(between[1] / between[0])).median())
