"""Search spaces, losses, regressors and Pareto fronts: what a search takes, who runs it and what it returns."""

from symtorch_core.search.constants import one_thread, refit_constants
from symtorch_core.search.front import Candidate, ParetoFront, SelectionRule, Unrunnable
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.losses import LOSSES, RESIDUAL, Loss, get_loss, make_loss, weighted_median
from symtorch_core.search.precision import fits_single, is_constant
from symtorch_core.search.regressor import OutputwiseRegressor, Problem, Regressor, read_start
from symtorch_core.search.space import SearchSpace

__all__ = [
    "LOSSES",
    "RESIDUAL",
    "Candidate",
    "Loss",
    "OutputwiseRegressor",
    "ParetoFront",
    "Problem",
    "Regressor",
    "SearchSpace",
    "SelectionRule",
    "Unrunnable",
    "build_front",
    "fits_single",
    "get_loss",
    "is_constant",
    "make_loss",
    "one_thread",
    "read_start",
    "refit_constants",
    "weighted_median",
]
