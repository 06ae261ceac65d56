"""Reducers, which make a wide block narrow enough for a search, and the parts that they are built from."""

from symtorch_core.activations.rows import BlockFunction
from symtorch_core.reduction.linear import (
    IdentityReducer,
    Size,
    build_linear_reduction,
    check_size,
    compute_kept_share,
    resolve_size,
    restore_linear_reduction,
)
from symtorch_core.reduction.moments import (
    Moments,
    compute_principal_axes,
    compute_pseudo_inverse,
    compute_spectrum,
    compute_square_roots,
)
from symtorch_core.reduction.reducer import MomentReducer, Reducer, Reduction, read_variable_names
from symtorch_core.reduction.sweep import Sweep, SweepRow, measure_overall_r2, sweep_reducers

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
    "build_linear_reduction",
    "check_size",
    "compute_kept_share",
    "compute_principal_axes",
    "compute_pseudo_inverse",
    "compute_spectrum",
    "compute_square_roots",
    "measure_overall_r2",
    "read_variable_names",
    "resolve_size",
    "restore_linear_reduction",
    "sweep_reducers",
]
