"""SymTorch: wrap a trained PyTorch block, fit equations to its function, and run the equations in its place.

>>> import symtorch_core as st
>>> sorted(record.name for record in st.available("reducers"))  # doctest: +ELLIPSIS
['identity'...]
"""

from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, Capture, HookCapture, capture, find_block
from symtorch_core.activations.rows import Activations
from symtorch_core.activations.tensor_paths import Selector
from symtorch_core.components.hookspecs import Component, hookimpl
from symtorch_core.components.options import Finding
from symtorch_core.components.registry import available, load
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
    did_you_mean,
)
from symtorch_core.model.pruning import OutputPruner
from symtorch_core.model.ranking import rank_outputs
from symtorch_core.model.refinement import Refinement, refine
from symtorch_core.model.symbolic_model import SymbolicModel, wrap
from symtorch_core.pipeline.distill import distill
from symtorch_core.reduction.reducer import Reducer, Reduction
from symtorch_core.reduction.sweep import Sweep, sweep_reducers
from symtorch_core.results.distillation import Distillation, merge
from symtorch_core.search.fidelity import Fidelity
from symtorch_core.search.front import Candidate, ParetoFront
from symtorch_core.search.regressor import Regressor
from symtorch_core.search.space import SearchSpace
from symtorch_core.surrogates.surrogate import Surrogate, TorchSurrogate
from symtorch_core.surrogates.transforms import Transforms
from symtorch_core.verification.residuals import (
    Residual,
    identify_constants,
    parse_derivative,
    residual_check,
)
from symtorch_core.views.plots import plot_slice

__all__ = [
    "DEFAULT_MAX_ROWS",
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
    "Finding",
    "HookCapture",
    "MissingDependencyError",
    "OutputPruner",
    "ParetoFront",
    "Reducer",
    "Reduction",
    "Refinement",
    "Regressor",
    "Residual",
    "SearchError",
    "SearchSpace",
    "SelectionError",
    "Selector",
    "Surrogate",
    "Sweep",
    "SwitchError",
    "SymTorchError",
    "SymbolicModel",
    "TorchSurrogate",
    "Transforms",
    "UnknownComponentError",
    "available",
    "capture",
    "did_you_mean",
    "distill",
    "find_block",
    "hookimpl",
    "identify_constants",
    "load",
    "merge",
    "parse_derivative",
    "plot_slice",
    "rank_outputs",
    "refine",
    "residual_check",
    "sweep_reducers",
    "wrap",
]
