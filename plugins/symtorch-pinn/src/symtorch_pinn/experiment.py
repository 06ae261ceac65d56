"""One problem with one seed: two networks are trained, distilled and checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import nn

from symtorch_core import Distillation, distill
from symtorch_core.events import Callback
from symtorch_core.studies import require_finished
from symtorch_pinn.checks import EquationCheck, check_equation
from symtorch_pinn.problem import Problem
from symtorch_pinn.training import Settings, TrainedNetwork, train


@final
@dataclass(frozen=True)
class Scale:
    """Amount of work at one scale.

    Attributes:
        training: settings of both networks.
        rows: points on which the networks are distilled; they fill every variable's range independently.
        niterations, timeout: of each search.
        parsimony: of each search with PySR; other backends have none, or weigh it otherwise.
    """

    training: Settings
    rows: int
    niterations: int
    timeout: float | None
    parsimony: float = 0.0


@final
@dataclass(frozen=True, eq=False)
class NetworkResult:
    """One network of a run and the equation found in it.

    Attributes:
        trained: the network.
        mse, mse_beyond: of the network, against the true solution, on the grid and on its continuation.
        result: its distillation.
        check: of its chosen equation.
    """

    trained: TrainedNetwork
    mse: float
    mse_beyond: float
    result: Distillation
    check: EquationCheck


@final
@dataclass(frozen=True, eq=False)
class Run:
    """One problem with one seed: the network that knows the equation, and the control that does not."""

    problem: Problem
    seed: int
    pinn: NetworkResult
    control: NetworkResult


def run_experiment(
    problem: Problem,
    scale: Scale,
    regressor: str,
    seed: int,
    folder: Path,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Solve one problem with one seed, with and without its equation."""
    pinn, control = _train_and_distill(problem, scale, regressor, seed, folder, callbacks)
    return Run(problem, seed, pinn, control)


def _train_and_distill(
    problem: Problem, scale: Scale, regressor: str, seed: int, folder: Path, callbacks: Sequence[Callback]
) -> Iterator[NetworkResult]:
    for physics in (True, False):
        trained = train(
            problem, scale.training, seed=seed, physics=physics, folder=folder, callbacks=callbacks
        )
        found = distill(
            trained.network,
            problem.sample_inside(scale.rows, seed + 2),
            regressor=regressor,
            variable_names=problem.variables,
            output_names=["u"],
            search=problem.build_search_space(
                niterations=scale.niterations,
                timeout_in_seconds=scale.timeout,
                parsimony=scale.parsimony if regressor == "pysr" else 0.0,
            ),
            select="score",
            seed=seed,
            resume=folder / "searches",
            callbacks=callbacks,
            progress=False,
        )
        result = require_finished(found)
        yield NetworkResult(
            trained,
            measure_mse(trained.network, problem, problem.build_grid()),
            measure_mse(trained.network, problem, problem.build_grid_beyond()),
            result,
            check_equation(result.chosen()[0], problem),
        )


def measure_mse(network: nn.Module, problem: Problem, points: torch.Tensor) -> float:
    """Return the mean squared error against the true solution at points (n, d)."""
    with torch.no_grad():
        return float((network(points) - problem.compute_solution(points)).square().mean())
