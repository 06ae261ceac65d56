"""The reducer that keeps every input and every output, perhaps with a linear part taken off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch

from symtorch_core.maps import linear_reduction, restore_linear
from symtorch_core.moments import Moments
from symtorch_core.reducer import MomentReducer, Reduction, names_from


@final
@dataclass(frozen=True)
class IdentityReducer(MomentReducer):
    """Keeps every input and every output as it is.

    Attributes:
        linear: fit y = b + W x first; the equations explain what it leaves.
        ridge: for the linear part, as a share of the inputs' mean variance.
    """

    name: ClassVar[str] = "identity"
    linear: bool = False
    ridge: float = 1e-9

    def from_moments(self, moments: Moments, variable_names: Sequence[str], dtype: torch.dtype) -> Reduction:
        return linear_reduction(moments, variable_names, dtype, linear=self.linear, ridge=self.ridge)

    @classmethod
    def restore(cls, shape: Mapping[str, Any]) -> Reduction:
        names = names_from(shape)  # all that is needed, where there is no linear part
        return restore_linear({"d_in": len(names), "d_out": 1, **shape})
