"""SymTorch: wrap a trained PyTorch block, fit equations to what it computes, and run the equations in its place.

>>> import symtorch_core as st
>>> sorted(record.name for record in st.available("reducers"))  # doctest: +ELLIPSIS
['identity'...]
"""

from symtorch_core.activations import Activations
from symtorch_core.capture import Capture, HookCapture, capture
from symtorch_core.distillation import Distillation
from symtorch_core.errors import (
    BackendError,
    CaptureError,
    DuplicateComponentError,
    ExpressionError,
    FileFormatError,
    MissingDependencyError,
    SearchError,
    SelectionError,
    SwitchError,
    SymTorchError,
    UnknownComponentError,
)
from symtorch_core.fidelity import Fidelity
from symtorch_core.front import Candidate, ParetoFront, Unrunnable
from symtorch_core.hookspecs import Component, hookimpl
from symtorch_core.identity import IdentityReducer
from symtorch_core.model import SymbolicModel
from symtorch_core.moments import Moments
from symtorch_core.pipeline import distill
from symtorch_core.pruning import OutputPruner, Ranking, importance_ranking
from symtorch_core.reducer import MomentReducer, Reducer, Reduction
from symtorch_core.registry import available, load
from symtorch_core.regressor import OutputwiseRegressor, Problem, Regressor
from symtorch_core.residuals import Residual, identify_constants, residual_check
from symtorch_core.search import SearchSpace
from symtorch_core.surrogate import Surrogate, TorchSurrogate
from symtorch_core.sweep import Sweep, reduction_sweep
from symtorch_core.transforms import Transforms
from symtorch_core.tuning import Refinement, refine
from symtorch_core.wrapping import wrap

__all__ = [
    "Activations",
    "BackendError",
    "Candidate",
    "Capture",
    "CaptureError",
    "Component",
    "Distillation",
    "DuplicateComponentError",
    "ExpressionError",
    "Fidelity",
    "FileFormatError",
    "HookCapture",
    "IdentityReducer",
    "MissingDependencyError",
    "MomentReducer",
    "Moments",
    "OutputPruner",
    "OutputwiseRegressor",
    "ParetoFront",
    "Problem",
    "Ranking",
    "Reducer",
    "Reduction",
    "Refinement",
    "Regressor",
    "Residual",
    "SearchError",
    "SearchSpace",
    "SelectionError",
    "Surrogate",
    "Sweep",
    "SwitchError",
    "SymTorchError",
    "SymbolicModel",
    "TorchSurrogate",
    "Transforms",
    "UnknownComponentError",
    "Unrunnable",
    "available",
    "capture",
    "distill",
    "hookimpl",
    "identify_constants",
    "importance_ranking",
    "load",
    "reduction_sweep",
    "refine",
    "residual_check",
    "wrap",
]
