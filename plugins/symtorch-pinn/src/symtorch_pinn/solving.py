"""One problem, once: two networks are trained, distilled and checked."""

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
from symtorch_pinn.checks import Checked, checked
from symtorch_pinn.problem import Problem
from symtorch_pinn.training import Settings, Trained, train


@final
@dataclass(frozen=True)
class Scale:
    """How much is done.

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
class Solver:
    """One network of a run and what was found in it.

    Attributes:
        trained: the network.
        mse, mse_beyond: of the network, against the true solution, on the grid and on its continuation.
        result: its distillation.
        checked: its chosen equation.
    """

    trained: Trained
    mse: float
    mse_beyond: float
    result: Distillation
    checked: Checked


@final
@dataclass(frozen=True, eq=False)
class Run:
    """One problem with one seed: the network that knows the equation, and the control that does not."""

    problem: Problem
    seed: int
    pinn: Solver
    control: Solver


def solve(
    problem: Problem,
    scale: Scale,
    regressor: str,
    seed: int,
    folder: Path,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """One problem with one seed."""
    pinn, control = _solvers(problem, scale, regressor, seed, folder, callbacks)
    return Run(problem, seed, pinn, control)


def _solvers(
    problem: Problem, scale: Scale, regressor: str, seed: int, folder: Path, callbacks: Sequence[Callback]
) -> Iterator[Solver]:
    for physics in (True, False):
        trained = train(
            problem, scale.training, seed=seed, physics=physics, folder=folder, callbacks=callbacks
        )
        found = distill(
            trained.network,
            problem.inside(scale.rows, seed + 2),
            regressor=regressor,
            variable_names=problem.variables,
            output_names=["u"],
            search=problem.search(
                niterations=scale.niterations,
                timeout_in_seconds=scale.timeout,
                parsimony=scale.parsimony if regressor == "pysr" else 0.0,
            ),
            seed=seed,
            resume=folder / "searches",
            callbacks=callbacks,
            progress=False,
        )
        result = require_finished(found)
        yield Solver(
            trained,
            network_mse(trained.network, problem, problem.grid()),
            network_mse(trained.network, problem, problem.beyond()),
            result,
            checked(result.chosen()[0], problem),
        )


def network_mse(network: nn.Module, problem: Problem, points: torch.Tensor) -> float:
    """Mean squared error against the true solution at points (n, d)."""
    with torch.no_grad():
        return float((network(points) - problem.truth(points)).square().mean())
