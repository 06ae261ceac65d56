"""Principal components as torch modules: centred, not whitened (SymTorch paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from symtorch_core import Reduction
from symtorch_core.reduction import (
    MomentReducer,
    Moments,
    Size,
    build_linear_reduction,
    check_size,
    compute_kept_share,
    compute_principal_axes,
    compute_spectrum,
    resolve_size,
    restore_linear_reduction,
)


@final
@dataclass(frozen=True)
class PCAReducer(MomentReducer):
    """Projects inputs and outputs on their leading principal components.

    Equations take z = V_in^T (x - mean_x), whose columns are named z0, z1, ..., and give u, from which
    y = V_out u + mean_y. With a linear part, y = b + W z is fitted first, and V_out holds the components of its
    residual.

    Attributes:
        k_in: number of input components, or a share of the variance like ``"95%"``; None keeps the inputs.
        k_out: number of output components, or a share of the variance; None keeps the outputs.
        linear: whether a linear part is fitted first.
        ridge: ridge of the linear part, as a share of the mean variance of z.

    >>> X = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    >>> reduction = PCAReducer(k_in=2).fit(X, X[:, :1], variable_names=["a", "b", "c", "d", "e", "f"])
    >>> reduction.reduce_inputs(X).shape
    torch.Size([100, 2])
    >>> reduction.summary()
    '2 of 6 inputs (44.1% of the variance)'
    """

    name: ClassVar[str] = "pca"
    k_in: Size = None
    k_out: Size = None
    linear: bool = False
    ridge: float = 1e-9

    def __post_init__(self) -> None:
        self.at_least(0, "ridge")
        self.flags("linear")
        for option in ("k_in", "k_out"):
            check_size(option, getattr(self, option))

    def from_moments(self, moments: Moments, variable_names: Sequence[str], dtype: torch.dtype) -> Reduction:
        variances = compute_spectrum(moments.xx)
        k_in = resolve_size("k_in", self.k_in, variances)
        return build_linear_reduction(
            moments,
            variable_names,
            dtype,
            down=None if k_in is None else compute_principal_axes(moments.xx, k_in).T,
            k_out=self.k_out,
            linear=self.linear,
            ridge=self.ridge,
            kept_in=compute_kept_share(variances, k_in),
        )

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        return restore_linear_reduction(shape)
