"""Principal components as torch modules: centred, not whitened (SymTorch paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from symtorch_core import FileFormatError, Reducer, Reduction, SearchError
from symtorch_core.reducer import names_from


@final
@dataclass(frozen=True)
class PCAReducer(Reducer):
    """Projects inputs and outputs on their leading principal components.

    The equations see z = V_in^T (x - mean_x), named z0, z1, ...; their values u give y = V_out u + mean_y.

    Attributes:
        k_in: input components kept; None keeps the inputs as they are.
        k_out: output components kept; None keeps the outputs as they are.

    >>> X = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    >>> reduction = PCAReducer(k_in=2).fit(X, X[:, :1], variable_names=["a", "b", "c", "d", "e", "f"])
    >>> reduction.reduce_inputs(X).shape
    torch.Size([100, 2])
    """

    name: ClassVar[str] = "pca"
    k_in: int | None = None
    k_out: int | None = None

    def fit(
        self,
        X: Tensor,
        Y: Tensor,
        *,
        variable_names: Sequence[str],
        weights: Tensor | None = None,
        block: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> Reduction:
        _check("k_in", self.k_in, X.shape[1])
        _check("k_out", self.k_out, Y.shape[1])
        names = list(variable_names) if self.k_in is None else [f"z{i}" for i in range(self.k_in)]
        reduction = self.restore(
            {
                "variable_names": names,
                "d_in": X.shape[1],
                "d_out": Y.shape[1],
                "k_in": self.k_in,
                "k_out": self.k_out,
            }
        ).to(X.dtype)
        if self.k_in is not None:
            mean, axes = principal_axes(X, self.k_in, weights)
            _set(reduction.down, axes.T, -axes.T @ mean)
        if self.k_out is not None:
            mean, axes = principal_axes(Y, self.k_out, weights)
            _set(reduction.project, axes.T, -axes.T @ mean)
            _set(reduction.up, axes, mean)
        return reduction

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        names = names_from(shape)
        k_in, k_out = shape.get("k_in"), shape.get("k_out")
        sizes = [shape.get("d_in"), shape.get("d_out"), *(k for k in (k_in, k_out) if k is not None)]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise FileFormatError("the saved principal components have no valid dimensions")
        d_in, d_out = shape["d_in"], shape["d_out"]
        return Reduction(
            down=_linear(d_in, k_in),
            up=_linear(k_out, d_out),
            project=_linear(d_out, k_out),
            variable_names=names,
            shape=shape,
        )


def principal_axes(X: Tensor, k: int, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (d,) and the k leading axes (d, k) of the rows of X, computed in float64.

    The sign of an axis is chosen so that its largest entry is positive: same data, same axes.
    """
    rows = X.double()
    share = (
        torch.ones(len(rows), dtype=torch.float64, device=rows.device)
        if weights is None
        else weights.double()
    )
    share = share / share.sum()
    mean = share @ rows
    centred = rows - mean
    covariance = centred.T @ (share[:, None] * centred)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :k]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    return mean, axes * largest.sign()


def _check(option: str, k: int | None, d: int) -> None:
    if k is not None and not 1 <= k <= d:
        raise SearchError(f"{option}={k}: give a number from 1 to {d}, the dimension of the data")


def _linear(d_in: int | None, d_out: int | None) -> nn.Module:
    """A linear map whose numbers are still to come: nothing is drawn from torch's random state for them."""
    if d_in is None or d_out is None:
        return nn.Identity()
    return nn.utils.skip_init(nn.Linear, d_in, d_out)


def _set(module: nn.Module, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(module, nn.Linear)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)
