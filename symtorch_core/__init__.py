"""SymTorch: wrap a trained PyTorch block, fit equations to its function, and run the equations in its place.

>>> import symtorch_core as st
>>> sorted(record.name for record in st.available("reducers"))  # doctest: +ELLIPSIS
['identity'...]
"""

from typing import TYPE_CHECKING, Any

from symtorch_core.activations.block_function import restore_form
from symtorch_core.activations.hooks import DEFAULT_MAX_ROWS, Capture, HookCapture, capture, find_block
from symtorch_core.activations.rows import Activations, as_real_tensor
from symtorch_core.activations.tensor_paths import Selector
from symtorch_core.components.checks import check_choice
from symtorch_core.components.habits import OF_PACKAGE, explain_attribute
from symtorch_core.components.hookspecs import Component, hookimpl
from symtorch_core.components.options import Finding
from symtorch_core.components.registry import available, load
from symtorch_core.errors import (
    ArgumentError,
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
from symtorch_core.model.checkpoints import from_pretrained, restore
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

if TYPE_CHECKING:
    from symtorch_core.estimator.symbolic_regressor import SymbolicRegressor

__all__ = [
    "DEFAULT_MAX_ROWS",
    "Activations",
    "ArgumentError",
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
    "SymbolicRegressor",
    "TorchSurrogate",
    "Transforms",
    "UnknownComponentError",
    "as_real_tensor",
    "available",
    "capture",
    "check_choice",
    "did_you_mean",
    "distill",
    "find_block",
    "from_pretrained",
    "hookimpl",
    "identify_constants",
    "load",
    "merge",
    "parse_derivative",
    "plot_slice",
    "rank_outputs",
    "refine",
    "residual_check",
    "restore",
    "restore_form",
    "sweep_reducers",
    "wrap",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # for a type checker, the package would have every name

    def __getattr__(name: str) -> Any:
        """Return the estimator, whose base classes are scikit-learn's: slow to import, and few need them."""
        if name == "SymbolicRegressor":
            from symtorch_core.estimator.symbolic_regressor import SymbolicRegressor

            return SymbolicRegressor
        raise AttributeError(explain_attribute("symtorch_core", name, OF_PACKAGE))
