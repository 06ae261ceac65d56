"""Training a network on a few values of a solution, with or without its differential equation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from symtorch_core import parse_derivative
from symtorch_core.events import (
    Callback,
    StageAdvanced,
    StageFinished,
    StageStarted,
    StageTold,
    Stopwatch,
    notify,
)
from symtorch_core.expressions import Expression, evaluate, parse, variables
from symtorch_core.studies import write_whole
from symtorch_pinn.network import derivatives, tanh_network
from symtorch_pinn.problem import Problem

_PART = 50
"""Steps between two looks at the clock, the bar and the checkpoint."""


@final
@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        adam_steps, learning_rate: of Adam, on all points at once.
        lbfgs_steps: at most, afterwards; 0 for none.
        collocation_points: where the equation and the conditions are asked for; 0 for the data points alone, as in the
            paper. They need no data.
        weight_equation, weight_conditions: beside the data, whose weight is 1 (SymTorch paper, F: 1 and 5).
    """

    adam_steps: int = 2_000
    learning_rate: float = 1e-3
    lbfgs_steps: int = 2_000
    collocation_points: int = 200
    weight_equation: float = 1.0
    weight_conditions: float = 5.0


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network.

    Attributes:
        network: (n, d) -> (n, 1), float64, in evaluation mode.
        constants: of the differential equation, as learned; empty without the equation.
        loss: the last.
        seconds: of training, however often it was stopped in between.
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
) -> Trained:
    """Adam, then L-BFGS, on the problem's data points and, with ``physics``, on what the equation says.

    Args:
        problem: what to solve.
        settings: how to train.
        seed: of the points and of the network.
        physics: whether the equation and the conditions take part; without, it is the paper's control.
        folder: for the checkpoint, from which a stopped training goes on.
        callbacks: told of the steps.
    """
    stage = f"train {'PINN' if physics else 'network'} ({problem.name})"
    job = _Job(problem, settings, seed, physics)
    path = folder / f"{problem.name}-{'pinn' if physics else 'network'}-{job.digest}.pt"
    watch = Stopwatch()
    notify(callbacks, StageStarted(stage, settings.adam_steps + settings.lbfgs_steps))
    loss = float("nan")
    for steps, loss in job.run(path, watch):
        notify(callbacks, StageTold(stage, f"loss {loss:.2e}"))
        notify(callbacks, StageAdvanced(stage, steps))
    notify(callbacks, StageFinished(stage, watch.seconds()))
    constants = {name: float(value.detach()) for name, value in job.constants.items()}
    return Trained(job.network.eval(), constants, loss, job.seconds)


@final
class _Job:
    """One training: its network, its constants, its loss, and how far it is."""

    def __init__(self, problem: Problem, settings: Settings, seed: int, physics: bool) -> None:
        self._settings = settings
        self.seconds = 0.0
        self.network = tanh_network(problem.ranges, seed)
        start = problem.start if physics else {}
        self.constants = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(value, dtype=torch.float64)) for name, value in start.items()}
        )
        points, values = problem.data(seed)
        inside = (
            problem.inside(settings.collocation_points, seed + 1) if settings.collocation_points else points
        )
        self._loss = (
            physics_loss(
                problem, settings, self.network, dict(self.constants.items()), points, values, inside
            )
            if physics
            else lambda: nn.functional.mse_loss(self.network(points), values)
        )
        whole = [asdict(problem), asdict(settings), seed, physics]
        self.digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]

    def run(self, path: Path, watch: Stopwatch) -> Iterator[tuple[int, float]]:
        """Train, keep the state after every part, and give (steps, loss) of each."""
        parameters = [*self.network.parameters(), *self.constants.values()]
        settings = self._settings
        phases: tuple[tuple[torch.optim.Optimizer, int], ...] = (
            (torch.optim.Adam(parameters, lr=settings.learning_rate), settings.adam_steps),
            (_lbfgs(parameters), settings.lbfgs_steps),
        )
        state = _read(path)
        earlier = 0.0 if state is None else float(state["seconds"])
        self.seconds = earlier
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.constants.load_state_dict(state["constants"])
        for number, (optimizer, total) in enumerate(phases):
            done = 0
            if state is not None and state["phase"] >= number:
                done = total if state["phase"] > number else int(state["done"])
                if state["phase"] == number:
                    optimizer.load_state_dict(state["optimizer"])
                if done:
                    yield done, float(state["loss"])
            while done < total:
                steps = min(_PART, total - done)
                before = [parameter.detach().clone() for parameter in parameters]
                loss = self._part(optimizer, steps)
                stuck = all(torch.equal(a, b.detach()) for a, b in zip(before, parameters, strict=True))
                done = total if stuck else done + steps
                self.seconds = earlier + watch.seconds()
                self._write(path, number, done, optimizer, loss)
                yield steps, loss

    def _part(self, optimizer: torch.optim.Optimizer, steps: int) -> float:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss()
            loss.backward()
            return loss

        calls = steps
        if isinstance(optimizer, torch.optim.LBFGS):  # one call of it takes a whole part of steps
            optimizer.param_groups[0]["max_iter"], calls = steps, 1
        for _ in range(calls):
            optimizer.step(closure)  # type: ignore[arg-type]  # torch's own examples return the tensor
        return float(self._loss().detach())

    def _write(
        self, path: Path, phase: int, done: int, optimizer: torch.optim.Optimizer, loss: float
    ) -> None:
        state = {
            "network": self.network.state_dict(),
            "constants": self.constants.state_dict(),
            "optimizer": optimizer.state_dict(),
            "phase": phase,
            "done": done,
            "loss": loss,
            "seconds": self.seconds,
        }
        with write_whole(path) as unfinished:
            torch.save(state, unfinished)


def physics_loss(
    problem: Problem,
    settings: Settings,
    network: nn.Module,
    constants: Mapping[str, Tensor],
    points: Tensor,
    values: Tensor,
    inside: Tensor,
) -> Callable[[], Tensor]:
    """Mean squares of data, equation and conditions, weighted (SymTorch paper, F).

    The conditions are asked for at the collocation points, moved to the boundary. Those that fix the same variable
    share one weight: the two ends of a rod are one boundary.
    """
    equation = _Residual(problem, problem.equation)
    shares = Counter(tuple(condition.at) for condition in problem.conditions)
    conditions = []
    for condition in problem.conditions:
        edge = problem.on_boundary(condition, inside)
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
    """What is left of an equation, read once, with a network as the unknown."""

    def __init__(self, problem: Problem, equation: str) -> None:
        self._problem = problem
        self._expression: Expression = parse(equation)
        found = {name: parse_derivative(name, "u", problem.variables) for name in variables(self._expression)}
        self._by = {
            name: by for name, by in found.items() if by is not None and name not in problem.variables
        }

    def __call__(self, network: nn.Module, points: Tensor, constants: Mapping[str, Tensor]) -> Tensor:
        values = derivatives(network, points, self._by.values(), self._problem.variables)
        known = {name: values[by] for name, by in self._by.items()}
        return evaluate(self._expression, {**self._problem.columns(points), **known, **constants})


def _lbfgs(parameters: list[nn.Parameter]) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(
        parameters,
        max_iter=_PART,
        history_size=50,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )


def _read(path: Path) -> dict[str, Any] | None:
    return torch.load(path, weights_only=True) if path.is_file() else None
