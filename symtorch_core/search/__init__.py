"""Search spaces, losses, regressors and Pareto fronts: what a search takes, who runs it and what it returns."""

from symtorch_core.search.constants import one_thread, refit_constants
from symtorch_core.search.deadline import AT_ONCE, NEVER, Deadline, reserve_for_front
from symtorch_core.search.front import Candidate, ParetoFront, Unrunnable
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.functions import Function, list_functions
from symtorch_core.search.losses import LOSSES, RESIDUAL, Loss, get_loss, make_loss, weighted_median
from symtorch_core.search.precision import fits_single, is_constant
from symtorch_core.search.problem import Problem, make_problems
from symtorch_core.search.regressor import OutputwiseRegressor, Regressor, read_start
from symtorch_core.search.selection import SelectionRule
from symtorch_core.search.space import SearchSpace
from symtorch_core.search.thresholds import SWITCHING
from symtorch_core.search.workers import end_with_parent

__all__ = [
    "AT_ONCE",
    "LOSSES",
    "NEVER",
    "RESIDUAL",
    "SWITCHING",
    "Candidate",
    "Deadline",
    "Function",
    "Loss",
    "OutputwiseRegressor",
    "ParetoFront",
    "Problem",
    "Regressor",
    "SearchSpace",
    "SelectionRule",
    "Unrunnable",
    "build_front",
    "end_with_parent",
    "fits_single",
    "get_loss",
    "is_constant",
    "list_functions",
    "make_loss",
    "make_problems",
    "one_thread",
    "read_start",
    "refit_constants",
    "reserve_for_front",
    "weighted_median",
]
