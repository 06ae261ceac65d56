"""Second moments of holes and subtrees, from which the fit of every pair follows in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

_RESOLUTION = 1e-5
_LARGEST_FACTOR = 1e6


@final
@dataclass(frozen=True)
class Sums:
    """Second moments over rows of z + beta q g for m holes (z, q) and n subtrees g, all centred.

    Attributes:
        zz: of z with itself, shape (m, 1).
        zy: of z with the target, shape (m, 1).
        gg: of q g with itself, shape (m, n).
        gz: of q g with z, shape (m, n).
        gy: of q g with the target, shape (m, n).
        scale: mean square of q g, the scale of rounding errors, shape (m, n).
    """

    zz: Tensor
    zy: Tensor
    gg: Tensor
    gz: Tensor
    gy: Tensor
    scale: Tensor

    @classmethod
    def of(cls, q: Tensor, z: Tensor, g: Tensor, target: Tensor, weight: Tensor) -> Sums:
        """Compute the moments from q, z, target and weight, shape (m, rows), and g, shape (n, rows)."""
        z = z - (weight * z).sum(1, keepdim=True)
        weighted = weight * q
        mean, gz, gy = (torch.cat([weighted, weighted * z, weighted * target]) @ g.T).chunk(3)
        scale = (weighted * q) @ g.square().T
        return cls(
            (weight * z.square()).sum(1, keepdim=True),
            (weight * z * target).sum(1, keepdim=True),
            scale - mean.square(),
            gz,
            gy,
            scale,
        )

    def compute_loss(self, factor: float) -> Tensor:
        """Return 1 - R2 of a + b (z + factor q g), shape (m, n)."""
        spread = self.zz + factor**2 * self.gg + 2 * factor * self.gz
        loss = 1 - (self.zy + factor * self.gy).square() / spread
        good = (spread > _RESOLUTION * (self.zz + self.scale)) & (self.gg > _RESOLUTION * self.scale)
        return torch.where(good & torch.isfinite(loss), loss, torch.inf)

    def compute_best_loss(self) -> tuple[Tensor, Tensor]:
        """Return 1 - R2 of a + b (z + beta q g) with the best beta, and this beta, both of shape (m, n)."""
        zz = self.zz.clamp_min(torch.finfo(self.zz.dtype).tiny)
        gg = self.gg - self.gz.square() / zz
        gy = self.gy - self.gz * self.zy / zz
        of_g = gy / gg
        of_z = (self.zy - of_g * self.gz) / zz
        loss, factor = 1 - self.zy.square() / zz - gy * of_g, of_g / of_z
        size = factor.abs()
        good = (gg > _RESOLUTION * self.scale) & (size < _LARGEST_FACTOR) & (size > 1 / _LARGEST_FACTOR)
        return torch.where(good & torch.isfinite(loss), loss, torch.inf), factor
