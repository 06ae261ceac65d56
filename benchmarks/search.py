"""Search backends side by side: which laws are recovered, how fast.

    python benchmarks/search.py [--backends torchgp,operon] [--tasks 'heat;spring'] [--seeds 5] [--limit 60]

Solved means: some equation of the front has NMSE < 1e-8 or relative MAE < 1e-4 on ALL rows and, unless --no-form is
given, on fresh rows from a range 1.5 times as wide, which approximants fail. Noisy tasks are judged, less strictly,
against the noise-free law. Seconds are wall clock of ``Regressor.fit``, in turns within this run; every backend gets
the same rows and search space.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from symtorch_core import Candidate, ParetoFront, SearchSpace, load
from symtorch_core.expression import evaluate

ROWS = 5_000
PAPER = SearchSpace()
FORCES = SearchSpace(binary_operators=("+", "-", "*"), unary_operators=("inv", "exp", "log"), loss="mae")
NGUYEN = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "cos", "exp", "log"))
FEYNMAN = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "exp", "sqrt"))


@final
@dataclass(frozen=True)
class Task:
    """A law to recover.

    Attributes:
        names: of the variables.
        sample: (rows, generator, width) to inputs; width 1 is the range of the fit.
        law: inputs to the true value.
        search: the search space.
        noise: standard deviation added, in units of that of the law.
    """

    names: tuple[str, ...]
    sample: Callable[[int, torch.Generator, float], Tensor]
    law: Callable[[Tensor], Tensor]
    search: SearchSpace
    noise: float = 0.0


def uniform(*ranges: tuple[float, float]) -> Callable[[int, torch.Generator, float], Tensor]:
    """Independent uniform columns; a wider range grows around its middle, and never changes sign of its ends."""

    def sample(rows: int, generator: torch.Generator, width: float) -> Tensor:
        columns = []
        for low, high in ranges:
            middle, half = (low + high) / 2, width * (high - low) / 2
            bottom = max(middle - half, low * 0.5) if low > 0 else middle - half
            if low == 0:
                bottom = 0.0
            columns.append(bottom + (middle + half - bottom) * torch.rand(rows, generator=generator))
        return torch.stack(columns, 1)

    return sample


def particles(least: float) -> Callable[[int, torch.Generator, float], Tensor]:
    """dx, dy, r, q1, q2, m1, m2 of pairs of particles at standard normal places, r at least ``least``."""

    def sample(rows: int, generator: torch.Generator, width: float) -> Tensor:
        kept: list[Tensor] = []
        while sum(map(len, kept)) < rows:
            d = width * (
                torch.randn(rows, 2, generator=generator) - torch.randn(rows, 2, generator=generator)
            )
            r = d.norm(dim=1, keepdim=True) + 0.01
            q = 2.0 * torch.randint(0, 2, (rows, 2), generator=generator) - 1
            m = torch.randn(rows, 2, generator=generator).exp()
            kept.append(torch.cat([d, r, q, m], 1)[(r > least)[:, 0]])
        return torch.cat(kept)[:rows]

    return sample


def force(kind: str, a: float = 0.7, b: float = -0.4) -> Callable[[Tensor], Tensor]:
    """A linear image a fx + b fy of a pair force."""

    def law(X: Tensor) -> Tensor:
        dx, dy, r, q1, q2, _, m2 = X.unbind(1)
        size = {"spring": 1 - 1 / r, "r1": m2 / r**2, "r2": m2 / r**3, "charge": q1 * q2 / r**3}[kind]
        return size * (a * dx + b * dy)

    return law


PAIR = ("dx", "dy", "r", "q1", "q2", "m1", "m2")


def pair(kind: str, least: float = 0.0, noise: float = 0.0) -> Task:
    """The task of one pair force."""
    return Task(PAIR, particles(least), force(kind), FORCES, noise)


def tasks() -> dict[str, Task]:
    """All tasks by name."""

    def polynomial(X: Tensor) -> Tensor:
        return sum((X[:, 0] ** power for power in range(2, 7)), X[:, 0])

    return {
        "heat": Task(
            ("x", "t"),
            uniform((0, 1), (0, 1)),
            lambda X: torch.exp(-(math.pi**2) * 0.2 * X[:, 1]) * torch.sin(math.pi * X[:, 0]),
            PAPER,
        ),
        "spring": pair("spring"),
        "r1": pair("r1"),
        "r2": pair("r2"),
        "charge": pair("charge"),
        "r1, r > 0.1": pair("r1", 0.1),
        "r2, r > 0.1": pair("r2", 0.1),
        "charge, r > 0.1": pair("charge", 0.1),
        "r2, r > 0.1, noise": pair("r2", 0.1, 0.05),
        "Nguyen-4": Task(("x",), uniform((-1, 1)), polynomial, NGUYEN),
        "Nguyen-7": Task(
            ("x",), uniform((0, 2)), lambda X: torch.log(X[:, 0] + 1) + torch.log(X[:, 0] ** 2 + 1), NGUYEN
        ),
        "Nguyen-10": Task(
            ("x", "y"), uniform((0, 1), (0, 1)), lambda X: 2 * torch.sin(X[:, 0]) * torch.cos(X[:, 1]), NGUYEN
        ),
        "I.6.2a": Task(
            ("theta",),
            uniform((1, 3)),
            lambda X: torch.exp(-(X[:, 0] ** 2) / 2) / math.sqrt(2 * math.pi),
            FEYNMAN,
        ),
        "I.12.11": Task(
            ("q", "Ef", "B", "v", "theta"),
            uniform(*[(1, 5)] * 5),
            lambda X: X[:, 0] * (X[:, 1] + X[:, 2] * X[:, 3] * torch.sin(X[:, 4])),
            PAPER,
        ),
        "law": Task(
            tuple(f"x{i}" for i in range(5)),
            uniform(*[(-2, 2)] * 5),
            lambda X: X[:, 0] ** 2 + 3 * torch.sin(X[:, 4]) - 4,
            PAPER,
            0.05,
        ),
    }


def data(task: Task, seed: int) -> tuple[Tensor, Tensor]:
    """Rows of a task: inputs and (noisy) targets."""
    generator = torch.Generator().manual_seed(seed)
    X = task.sample(ROWS, generator, 1.0)
    y = task.law(X)
    return X, y + task.noise * y.std() * torch.randn(ROWS, generator=generator)


def agrees(front: ParetoFront, task: Task, X: Tensor, form: bool, seed: int) -> bool:
    """Whether some equation of the front is the law: on the rows, and on wider ones if the form counts."""
    wide = task.sample(ROWS, torch.Generator().manual_seed(seed + 10_000), 1.5)
    tight = (1e-8, 1e-4) if task.noise == 0 else (1e-3, 1e-1)
    return any(
        all(_close(candidate, task, rows, *tight) for rows in ((X, wide) if form else (X,)))
        for candidate in front
    )


def _close(candidate: Candidate, task: Task, X: Tensor, nmse: float, mae: float) -> bool:
    columns = dict(zip(task.names, X.double().unbind(1), strict=True))
    truth = task.law(X.double())
    error = evaluate(candidate.expression, columns) - truth
    relative = float(error.abs().mean() / (truth - truth.median()).abs().mean())
    return float(error.square().mean() / truth.var()) < nmse or relative < mae


def _summary(runs: list[tuple[bool, float]]) -> str:
    seconds = [seconds for _, seconds in runs]
    solved = sum(solved for solved, _ in runs)
    return f"{solved}/{len(runs)} in {statistics.median(seconds):.1f} ({max(seconds):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", default="torchgp,operon")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one search")
    parser.add_argument("--form", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    console = Console(width=140)
    console.print(
        f"{ROWS} rows, {arguments.seeds} seeds, limit {arguments.limit:.0f} s, {torch.get_num_threads()} threads, "
        f"{platform.machine()}, torch {torch.__version__}"
    )
    backends = {name: load("regressors", name)() for name in arguments.backends.split(",")}
    chosen = [t.strip() for t in arguments.tasks.split(";")] if arguments.tasks else list(tasks())
    table = Table(title="solved, and wall-clock seconds: median (largest)")
    table.add_column("task")
    for name in backends:
        table.add_column(name, justify="right")
    for label in chosen:
        task = tasks()[label]
        cells: dict[str, list[tuple[bool, float]]] = {name: [] for name in backends}
        for seed in range(arguments.seeds):
            X, y = data(task, seed)
            for name, regressor in backends.items():
                space = replace(task.search, timeout_in_seconds=arguments.limit)
                start = time.perf_counter()
                (front,) = regressor.fit(X, y[:, None], search=space, variable_names=task.names, seed=seed)
                seconds = time.perf_counter() - start
                solved = agrees(front, task, X, arguments.form, seed)
                cells[name].append((solved, seconds))
                best = front[-1].text()
                verdict = "solved" if solved else "NOT solved"
                console.print(
                    f"[dim]{label}, {name}, seed {seed}: {verdict} in {seconds:.1f} s: {best}[/dim]"
                )
        table.add_row(
            label,
            *(_summary(runs) for runs in cells.values()),
        )
    console.print(table)


if __name__ == "__main__":
    main()
