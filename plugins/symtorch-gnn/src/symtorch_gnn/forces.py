"""The four pair potentials, and the forces they exert (SymTorch paper, arXiv 2602.21307, appendix E.1).

All quantities are dimensionless, as in the paper. Distances are softened, d = r + 0.01, so potential and force are
finite where two particles meet. But the force changes sign there, and the forces of r2 and charge reach 10^4 (times
masses): this gives the accelerations their heavy tails.

Signs: particle 1 receives the force and particle 2 exerts it; ``dx = x1 - x2`` and ``dy = y1 - y2`` point from 2 to 1.
The force on 1 is minus the gradient of the pair's potential with respect to the position of 1, so a positive slope
dU/dr attracts. Each pair counts once in the energy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

import torch
from torch import Tensor

SOFTENING: Final = 0.01

PairFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Of distance r, charges q1 and q2, masses m1 and m2, all of shapes that broadcast."""


@final
@dataclass(frozen=True)
class Force:
    """A pair force.

    Attributes:
        name: ``"spring"``, ``"r1"``, ``"r2"`` or ``"charge"``.
        potential: U(r, q1, q2, m1, m2).
        slope: dU/dr in closed form, of the same arguments.
        dt: time step of a simulation (SymTorch paper, E.1).
        variables: those besides dx, dy and r that the law contains.
    """

    name: str
    potential: PairFunction
    slope: PairFunction
    dt: float
    variables: tuple[str, ...] = ()

    def compute_on_first(
        self, dx: Tensor, dy: Tensor, r: Tensor, q1: Tensor, q2: Tensor, m1: Tensor, m2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the two components of the force on particle 1 from particle 2, each of the arguments' shape."""
        pull = -self.slope(r, q1, q2, m1, m2) / r
        return pull * dx, pull * dy


FORCES: Final[Mapping[str, Force]] = MappingProxyType(
    {
        force.name: force
        for force in (
            Force(
                "spring",
                lambda r, q1, q2, m1, m2: (r + SOFTENING - 1).square(),
                lambda r, q1, q2, m1, m2: 2 * (r + SOFTENING - 1),
                dt=1e-2,
            ),
            Force(
                "r1",
                lambda r, q1, q2, m1, m2: m1 * m2 * (r + SOFTENING).log(),
                lambda r, q1, q2, m1, m2: m1 * m2 / (r + SOFTENING),
                dt=5e-3,
                variables=("m1", "m2"),
            ),
            Force(
                "r2",
                lambda r, q1, q2, m1, m2: -m1 * m2 / (r + SOFTENING),
                lambda r, q1, q2, m1, m2: m1 * m2 / (r + SOFTENING).square(),
                dt=1e-3,
                variables=("m1", "m2"),
            ),
            Force(
                "charge",
                lambda r, q1, q2, m1, m2: q1 * q2 / (r + SOFTENING),
                lambda r, q1, q2, m1, m2: -q1 * q2 / (r + SOFTENING).square(),
                dt=1e-3,
                variables=("q1", "q2"),
            ),
        )
    }
)


def compute_pair_forces(force: Force, first: Tensor, second: Tensor) -> Tensor:
    """Return the forces on particles from others.

    Args:
        force: the law.
        first, second: features x, y, vx, vy, charge, mass of receivers and senders, shapes (..., 6).

    Returns:
        Shape (..., 2).
    """
    dx, dy = (first - second)[..., :2].unbind(-1)
    parts = force.compute_on_first(
        dx, dy, torch.hypot(dx, dy), first[..., 4], second[..., 4], first[..., 5], second[..., 5]
    )
    return torch.stack(parts, dim=-1)
