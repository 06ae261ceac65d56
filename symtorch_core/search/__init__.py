"""What a search is asked, who answers, and the fronts that come out; what backends are built from."""

from symtorch_core.search.constants import one_thread, refit_constants
from symtorch_core.search.front import Candidate, ParetoFront, SelectionRule, Unrunnable
from symtorch_core.search.front_builder import build_front
from symtorch_core.search.losses import LOSSES, RESIDUAL, Loss, custom_loss, loss_named
from symtorch_core.search.regressor import OutputwiseRegressor, Problem, Regressor
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
    "custom_loss",
    "loss_named",
    "one_thread",
    "refit_constants",
]
