"""Training of a network on a few values of a solution, with or without its differential equation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core import parse_derivative
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, notify
from symtorch_core.expressions import Expression, evaluate, parse, variables
from symtorch_core.studies import Checkpoint, Store, descend, make_key
from symtorch_pinn.network import build_network, compute_derivatives
from symtorch_pinn.problem import Problem

_PART = 50
"""Iterations between two checkpoints."""


@final
@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        adam_steps, learning_rate: of Adam, on all points at once.
        lbfgs_steps: at most, afterwards; 0 for none.
        collocation_points: number of points at which the equation and the conditions count; they need no data. 0 for
            the data points alone, as in the paper.
        weight_equation, weight_conditions: relative to the data (SymTorch paper, F: 1 and 5).
    """

    adam_steps: int = 2_000
    learning_rate: float = 1e-3
    lbfgs_steps: int = 2_000
    collocation_points: int = 200
    weight_equation: float = 1.0
    weight_conditions: float = 5.0


@final
@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained network.

    Attributes:
        network: (n, d) -> (n, 1), float64, in evaluation mode.
        constants: of the differential equation, as learned; empty without the equation.
        loss: at the end of the training.
        seconds: of training, however often it was stopped.
    """

    network: nn.Module
    constants: Mapping[str, float]
    loss: float
    seconds: float


def train(
    problem: Problem,
    settings: Settings,
    *,
    seed: int,
    physics: bool,
    folder: Path,
    callbacks: Sequence[Callback] = (),
) -> TrainedNetwork:
    """Train by Adam, then by L-BFGS, on the data points and, with ``physics``, on the equation and its conditions.

    Args:
        problem: what to solve.
        settings: how to train.
        seed: of the points and of the network.
        physics: whether the loss has the equation and the conditions; without them, this is the paper's control.
        folder: for checkpoints, from which a stopped training goes on, and for the finished network.
        callbacks: told of the steps.
    """
    kind = "pinn" if physics else "network"
    stage = f"train {'PINN' if physics else 'network'} ({problem.name})"
    network = build_network(problem.ranges, seed)
    constants = nn.ParameterDict(
        {
            name: nn.Parameter(torch.tensor(value, dtype=torch.float64))
            for name, value in (problem.start if physics else {}).items()
        }
    )
    module = nn.ModuleDict({"network": network, "constants": constants})
    key = make_key([asdict(problem), asdict(settings), seed, physics])
    store, name = Store(folder), f"{problem.name}-{kind}-{key}"
    kept = store.read_tensors(name)
    if kept is None:
        loss = _build_loss(problem, settings, network, constants, seed, physics)
        seconds = _descend(loss, module, settings, folder / name, key, stage, callbacks)
        about = {"loss": float(loss().detach()), "seconds": seconds}
        if store.write_tensors(name, module.state_dict(), about):
            for checkpoint in _checkpoints(folder / name):
                checkpoint.unlink(missing_ok=True)
    else:
        notify(callbacks, StageStarted(stage, 1))
        state, about = kept
        module.load_state_dict(state)
        notify(callbacks, StageAdvanced(stage))
        notify(callbacks, StageFinished(stage, 0.0))
    learned = {name: float(value.detach()) for name, value in constants.items()}
    return TrainedNetwork(network.eval(), learned, about["loss"], about["seconds"])


def _build_loss(
    problem: Problem,
    settings: Settings,
    network: nn.Module,
    constants: nn.ParameterDict,
    seed: int,
    physics: bool,
) -> Callable[[], Tensor]:
    points, values = problem.sample_data(seed)
    if not physics:
        return lambda: nn.functional.mse_loss(network(points), values)
    count = settings.collocation_points
    inside = problem.sample_inside(count, seed + 1) if count else points
    return build_physics_loss(problem, settings, network, dict(constants.items()), points, values, inside)


def _descend(
    loss: Callable[[], Tensor],
    module: nn.Module,
    settings: Settings,
    path: Path,
    key: str,
    stage: str,
    callbacks: Sequence[Callback],
) -> float:
    """Train by Adam, then by L-BFGS; return the seconds, however often the training was stopped."""
    parameters = list(module.parameters())
    adam_file, lbfgs_file = _checkpoints(path)
    adam = descend(
        lambda batch: loss(),
        parameters,
        lambda epoch: range(settings.adam_steps),
        optimizer=torch.optim.Adam(parameters, lr=settings.learning_rate),
        checkpoint=Checkpoint(adam_file, module, key, every=_PART),
        stage=stage,
        callbacks=callbacks,
    )
    lbfgs = torch.optim.LBFGS(
        parameters,
        max_iter=_PART,
        history_size=50,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )
    starts = range(0, settings.lbfgs_steps, _PART)

    def limit_iterations(part: int) -> None:
        lbfgs.param_groups[0]["max_iter"] = min(_PART, settings.lbfgs_steps - starts[part])

    # A step of this optimizer is up to 50 iterations, the part of a training between two checkpoints.
    polished = descend(
        lambda batch: loss(),
        parameters,
        lambda epoch: starts,
        optimizer=lbfgs,
        before_step=limit_iterations,
        checkpoint=Checkpoint(lbfgs_file, module, key, every=1),
        stage=f"{stage}, L-BFGS",
        callbacks=callbacks,
    )
    return adam.seconds + polished.seconds


def _checkpoints(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-adam.pt"), path.with_name(f"{path.name}-lbfgs.pt")


def build_physics_loss(
    problem: Problem,
    settings: Settings,
    network: nn.Module,
    constants: Mapping[str, Tensor],
    points: Tensor,
    values: Tensor,
    inside: Tensor,
) -> Callable[[], Tensor]:
    """Return the loss: weighted mean squares of data, equation and conditions (SymTorch paper, F).

    The conditions count at the collocation points, moved to the boundary. Those that fix the same variable share one
    weight: the two ends of a rod are one boundary.
    """
    equation = _Residual(problem, problem.equation)
    shares = Counter(tuple(condition.at) for condition in problem.conditions)
    conditions = []
    for condition in problem.conditions:
        edge = problem.move_to_boundary(condition, inside)
        edge = edge[:1] if len(condition.at) == len(problem.variables) else edge  # a corner is one point
        weight = settings.weight_conditions / shares[tuple(condition.at)]
        conditions.append((weight, _Residual(problem, condition.equation), edge))

    def loss() -> Tensor:
        total = nn.functional.mse_loss(network(points), values)
        total = total + settings.weight_equation * equation(network, inside, constants).square().mean()
        for weight, residual, edge in conditions:
            total = total + weight * residual(network, edge, constants).square().mean()
        return total

    return loss


@final
class _Residual:
    """The residual of an equation with a network as the unknown; its text is parsed once."""

    def __init__(self, problem: Problem, equation: str) -> None:
        self._problem = problem
        self._expression: Expression = parse(equation)
        found = {name: parse_derivative(name, "u", problem.variables) for name in variables(self._expression)}
        self._by = {
            name: by for name, by in found.items() if by is not None and name not in problem.variables
        }

    def __call__(self, network: nn.Module, points: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
        values = compute_derivatives(network, points, self._by.values(), self._problem.variables)
        known = {name: values[by] for name, by in self._by.items()}
        return evaluate(self._expression, {**self._problem.split_columns(points), **known, **constants})
