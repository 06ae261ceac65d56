"""Means and covariances of activations, gathered batch by batch in float64.

Everything linear that a reducer learns (principal components, reduced-rank regression, a linear part) follows from
these numbers, so a reducer built on them never needs all rows in memory, or a second copy of them on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from symtorch_core.errors import SearchError

_ROWS_AT_ONCE = 65_536
_NEGLIGIBLE = 1e-10
"""Directions with less than this share of the largest variance count as constant."""


@final
@dataclass(frozen=True)
class Moments:
    """Weighted mean and covariance of inputs and outputs, float64, on the device of the data.

    Attributes:
        weight: sum of the weights.
        x, y: means, shapes (d_in,) and (d_out,).
        xx, xy, yy: covariances, shapes (d_in, d_in), (d_in, d_out) and (d_out, d_out).

    >>> X = torch.tensor([[0.0], [2.0], [4.0]])
    >>> Moments.of(X, 3 * X).xy
    tensor([[8.]], dtype=torch.float64)
    """

    weight: float
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, X: Tensor, Y: Tensor, weights: Tensor | None = None) -> Self:
        """Compute the moments of rows in memory, cast to float64 a part at a time.

        Args:
            X: inputs, shape (n, d_in), n at least 1.
            Y: outputs, shape (n, d_out).
            weights: shape (n,), non-negative, not all zero; None weighs all rows equally.
        """
        share = [None] * len(X) if weights is None else weights.split(_ROWS_AT_ONCE)
        return cls.from_batches(zip(X.split(_ROWS_AT_ONCE), Y.split(_ROWS_AT_ONCE), share, strict=False))

    @classmethod
    def from_batches(cls, batches: Iterable[tuple[Tensor, Tensor, Tensor | None]]) -> Self:
        """Compute the moments of a stream of batches (X, Y, weights); weights may be None.

        Raises:
            SearchError: there are no rows, or no row has a positive weight.
        """
        total: Self | None = None
        for X, Y, weights in batches:
            if weights is not None and not bool((weights > 0).any()):
                continue
            part = cls._of_batch(X.double(), Y.double(), weights)
            total = part if total is None else total.merge(part)
        if total is None:
            raise SearchError("a reducer needs at least one row of positive weight")
        return total

    @classmethod
    def _of_batch(cls, X: Tensor, Y: Tensor, weights: Tensor | None) -> Self:
        share = (
            torch.ones(len(X), dtype=torch.float64, device=X.device) if weights is None else weights.double()
        )
        total = float(share.sum())
        share = share / total
        x, y = share @ X, share @ Y
        X, Y = X - x, Y - y
        scaled = share[:, None] * X
        return cls(total, x, y, X.T @ scaled, scaled.T @ Y, Y.T @ (share[:, None] * Y))

    def merge(self, other: Self) -> Self:
        """Return the moments of the rows of both (Chan, Golub and LeVeque 1983)."""
        weight = self.weight + other.weight
        mine, theirs = self.weight / weight, other.weight / weight
        x, y = other.x - self.x, other.y - self.y
        both = mine * theirs

        def combine(a: Tensor, b: Tensor, left: Tensor, right: Tensor) -> Tensor:
            return mine * a + theirs * b + both * torch.outer(left, right)

        return type(self)(
            weight,
            self.x + theirs * x,
            self.y + theirs * y,
            combine(self.xx, other.xx, x, x),
            combine(self.xy, other.xy, x, y),
            combine(self.yy, other.yy, y, y),
        )

    def seen_through(self, down: Tensor) -> Moments:
        """Return the moments of z = down @ x and y (no offset: z has the mean ``down @ x``).

        Args:
            down: shape (k, d_in).
        """
        return Moments(self.weight, down @ self.x, self.y, down @ self.xx @ down.T, down @ self.xy, self.yy)

    def linear_map(self, ridge: float = 0.0) -> Tensor:
        """Return the least-squares map from x - mean to y - mean, shape (d_out, d_in).

        Args:
            ridge: number added to the variances, as a share of their mean.
        """
        return (compute_pseudo_inverse(self.xx, ridge) @ self.xy).T

    def rest(self, linear: Tensor) -> Tensor:
        """Return the covariance of y - linear @ x for a linear map (d_out, d_in), shape (d_out, d_out)."""
        shared = linear @ self.xy
        return self.yy - shared - shared.T + linear @ self.xx @ linear.T


def compute_principal_axes(covariance: Tensor, k: int) -> Tensor:
    """Return the k leading eigenvectors, shape (d, k), with the largest entry of each positive, so reproducible."""
    axes: Tensor = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :k]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return axes * largest.sign()


def compute_spectrum(covariance: Tensor) -> Tensor:
    """Return the eigenvalues of a (d, d) covariance in descending order, none negative, shape (d,)."""
    values: Tensor = torch.linalg.eigvalsh(covariance)
    return values.flip(0).clamp_min(0.0)


def compute_square_roots(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symmetric square root of a (d, d) covariance and its pseudo-inverse, both (d, d).

    Directions without variance are zero in both.
    """
    values, vectors = torch.linalg.eigh(covariance)
    nonzero = values > _NEGLIGIBLE * values.max().clamp_min(0.0)
    roots = torch.where(nonzero, values, 0.0).sqrt()
    inverse = torch.where(nonzero, 1 / torch.where(nonzero, roots, 1.0), 0.0)
    return vectors @ (roots[:, None] * vectors.T), vectors @ (inverse[:, None] * vectors.T)


def compute_pseudo_inverse(covariance: Tensor, ridge: float = 0.0) -> Tensor:
    """Return the inverse of a (d, d) covariance, zero in directions without variance, shape (d, d).

    Args:
        covariance: shape (d, d), symmetric.
        ridge: number added to the variances first, as a share of their mean.
    """
    values, vectors = torch.linalg.eigh(covariance)
    values = values + ridge * values.mean()
    nonzero = values > _NEGLIGIBLE * values.max().clamp_min(0.0)
    inverse = torch.where(nonzero, 1 / torch.where(nonzero, values, 1.0), 0.0)
    result: Tensor = vectors @ (inverse[:, None] * vectors.T)
    return result
