"""Maps that make a wide block narrow enough for a search, and what reducers are built from."""

from symtorch_core.activations.rows import BlockFunction
from symtorch_core.reduction.linear import (
    IdentityReducer,
    Size,
    kept_share,
    linear_reduction,
    resolved_size,
    restore_linear,
)
from symtorch_core.reduction.moments import Moments, principal_axes, pseudo_inverse, spectrum, square_roots
from symtorch_core.reduction.reducer import MomentReducer, Reducer, Reduction, names_from
from symtorch_core.reduction.sweep import Sweep, SweepRow, overall_r2, reduction_sweep

__all__ = [
    "BlockFunction",
    "IdentityReducer",
    "MomentReducer",
    "Moments",
    "Reducer",
    "Reduction",
    "Size",
    "Sweep",
    "SweepRow",
    "kept_share",
    "linear_reduction",
    "names_from",
    "overall_r2",
    "principal_axes",
    "pseudo_inverse",
    "reduction_sweep",
    "resolved_size",
    "restore_linear",
    "spectrum",
    "square_roots",
]
