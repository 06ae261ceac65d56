"""Comparison of search backends: recovered laws and times, many outputs at once, speed of the tensors.

    python benchmarks/search.py [--parts tasks,many,speed] [--backends torchgp:5,operon:2,gplearn:1]
                                [--tasks 'heat;spring'] [--limit 30]

A law is solved if an equation of the front has NMSE < 1e-8 or relative MAE < 1e-4 on ALL rows and on new rows from a
range 1.5 times as wide, on which approximations fail. With noise, it is solved if an equation of the front becomes
exact on noise-free rows after a refit of its constants there, and is hardly more complex than the law. The number after
a backend is that of its seeds. Seconds are wall-clock times of ``Regressor.fit``, with backends in turns. All backends
get the same rows and search space.
"""

from __future__ import annotations

import argparse
import cProfile
import math
import platform
import pstats
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from law import make_law_data, stretch_range, train_network
from rich.console import Console
from rich.table import Table
from torch import Tensor

from symtorch_core import Candidate, ParetoFront, Regressor, SearchSpace, load
from symtorch_core.expressions import evaluate, parse, simplify
from symtorch_core.search import LOSSES, one_thread, refit_constants
from symtorch_torchgp.data.rows import Rows
from symtorch_torchgp.fitting.scaling import score
from symtorch_torchgp.programs.primitives import Primitives
from symtorch_torchgp.variation.sampler import Sampler

ROWS = 5_000
REPORTED_SEEDS = 2
"""Seeds of the tasks without a target."""
MORE_COMPLEX = 3
"""Complexity by which an equation for noisy data may exceed that of the law."""
PAPER = SearchSpace()
FORCES = SearchSpace(binary_operators=("+", "-", "*"), unary_operators=("inv", "exp", "log"), loss="mae")
NGUYEN = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "cos", "exp", "log"))
FEYNMAN = SearchSpace(binary_operators=("+", "-", "*", "/"), unary_operators=("sin", "exp", "sqrt"))
HARD = SearchSpace(
    binary_operators=("+", "-", "*", "/"), unary_operators=("cos", "square", "sqrt", "inv"), maxsize=40
)


@final
@dataclass(frozen=True)
class Task:
    """A law to recover.

    Attributes:
        names: names of the variables.
        sample: maps (rows, generator, width) to inputs; width 1 is the range of the fit.
        law: maps inputs to true values.
        search: the search space.
        noise: standard deviation of the noise, relative to that of the law.
        form: the law as text, if the targets are not exact; its constants do not matter.
        through_network: whether the targets come from a network that was trained on the noisy law.
        target: the target of issue 3: solved seeds of five, and seconds.
    """

    names: tuple[str, ...]
    sample: Callable[[int, torch.Generator, float], Tensor]
    law: Callable[[Tensor], Tensor]
    search: SearchSpace
    noise: float = 0.0
    form: str = ""
    through_network: bool = False
    target: str = "-"


def make_uniform(*ranges: tuple[float, float]) -> Callable[[int, torch.Generator, float], Tensor]:
    """Return a sampler of independent uniform columns; wider ranges keep their middle and the signs of their ends."""

    def sample(rows: int, generator: torch.Generator, width: float) -> Tensor:
        columns = []
        for low, high in ranges:
            bottom, top = stretch_range(low, high, width)
            columns.append(bottom + (top - bottom) * torch.rand(rows, generator=generator))
        return torch.stack(columns, 1)

    return sample


def make_particles(least: float) -> Callable[[int, torch.Generator, float], Tensor]:
    """Return a sampler of dx, dy, r, q1, q2, m1, m2 of pairs of normally distributed particles, r above ``least``."""

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


def make_force(kind: str, a: float = 0.7, b: float = -0.4) -> Callable[[Tensor], Tensor]:
    """Return the linear combination a fx + b fy of a pair force."""

    def law(X: Tensor) -> Tensor:
        dx, dy, r, q1, q2, _, m2 = X.unbind(1)
        size = {"spring": 1 - 1 / r, "r1": m2 / r**2, "r2": m2 / r**3, "charge": q1 * q2 / r**3}[kind]
        return size * (a * dx + b * dy)

    return law


PAIR = ("dx", "dy", "r", "q1", "q2", "m1", "m2")


def make_pair_task(kind: str, target: str, least: float = 0.0, noise: float = 0.0, form: str = "") -> Task:
    """Return the task of one pair force."""
    return Task(PAIR, make_particles(least), make_force(kind), FORCES, noise, form, target=target)


def compute_gravity(X: Tensor) -> Tensor:
    """Return Feynman I.9.18: gravity between two points in space."""
    G, m1, m2, x1, x2, y1, y2, z1, z2 = X.unbind(1)
    return G * m1 * m2 / ((x2 - x1).square() + (y2 - y1).square() + (z2 - z1).square())


def compute_interference(X: Tensor) -> Tensor:
    """Return Feynman I.29.16."""
    x1, x2, t1, t2 = X.unbind(1)
    return (x1.square() + x2.square() - 2 * x1 * x2 * torch.cos(t1 - t2)).sqrt()


def compute_dipole(X: Tensor) -> Tensor:
    """Return Feynman II.6.15a."""
    epsilon, p, r, x, y, z = X.unbind(1)
    return p / (4 * math.pi * epsilon) * 3 * z / r**5 * (x.square() + y.square()).sqrt()


def make_tasks() -> dict[str, Task]:
    """Return all tasks by name."""

    def polynomial(X: Tensor) -> Tensor:
        return sum((X[:, 0] ** power for power in range(2, 7)), X[:, 0])

    noisy_law = {
        "names": tuple(f"x{i}" for i in range(5)),
        "sample": make_uniform(*[(-2, 2)] * 5),
        "law": lambda X: X[:, 0] ** 2 + 3 * torch.sin(X[:, 4]) - 4,
        "search": PAPER,
        "noise": 0.05,
        "form": "x0*x0 + 3*sin(x4) - 4",
    }
    nine = ("G", "m1", "m2", "x1", "x2", "y1", "y2", "z1", "z2")
    return {
        "heat": Task(
            ("x", "t"),
            make_uniform((0, 1), (0, 1)),
            lambda X: torch.exp(-(math.pi**2) * 0.2 * X[:, 1]) * torch.sin(math.pi * X[:, 0]),
            PAPER,
            target="5/5 in 10",
        ),
        "r1": make_pair_task("r1", "5/5 in 10"),
        "r1, r > 0.1": make_pair_task("r1", "5/5 in 10", 0.1),
        "r2": make_pair_task("r2", "5/5 in 10"),
        "r2, r > 0.1": make_pair_task("r2", "5/5 in 10", 0.1),
        "spring": make_pair_task("spring", "5/5 in 20"),
        "charge": make_pair_task("charge", "5/5 in 20"),
        "charge, r > 0.1": make_pair_task("charge", "5/5 in 20", 0.1),
        "r2, r > 0.1, noise": make_pair_task("r2", "4/5 in 30", 0.1, 0.05, "0.7*m2*(dx - 0.6*dy)*inv(r*r*r)"),
        "I.6.2a": Task(
            ("theta",),
            make_uniform((1, 3)),
            lambda X: torch.exp(-(X[:, 0] ** 2) / 2) / math.sqrt(2 * math.pi),
            FEYNMAN,
            target="5/5 in 10",
        ),
        "I.12.11": Task(
            ("q", "Ef", "B", "v", "theta"),
            make_uniform(*[(1, 5)] * 5),
            lambda X: X[:, 0] * (X[:, 1] + X[:, 2] * X[:, 3] * torch.sin(X[:, 4])),
            PAPER,
            target="5/5 in 10",
        ),
        "Nguyen-10": Task(
            ("x", "y"),
            make_uniform((0, 1), (0, 1)),
            lambda X: 2 * torch.sin(X[:, 0]) * torch.cos(X[:, 1]),
            NGUYEN,
            target="5/5 in 10",
        ),
        "Nguyen-4": Task(("x",), make_uniform((-1, 1)), polynomial, NGUYEN, target="4/5 in 30"),
        "Nguyen-7": Task(
            ("x",),
            make_uniform((0, 2)),
            lambda X: torch.log(X[:, 0] + 1) + torch.log(X[:, 0] ** 2 + 1),
            NGUYEN,
            target="4/5 in 30",
        ),
        "noisy law": Task(**noisy_law),
        "MLP of the noisy law": Task(**noisy_law, through_network=True, target="5/5 in 30"),
        "I.9.18": Task(nine, make_uniform(*[(1, 2)] * 3, *[(1, 2), (3, 4)] * 3), compute_gravity, HARD),
        "I.29.16": Task(("x1", "x2", "t1", "t2"), make_uniform(*[(1, 5)] * 4), compute_interference, HARD),
        "II.6.15a": Task(
            ("epsilon", "p", "r", "x", "y", "z"), make_uniform(*[(1, 3)] * 6), compute_dipole, HARD
        ),
    }


def make_data(task: Task, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows of a task: inputs, shape (n, d), and (noisy) targets, shape (n,)."""
    if task.through_network:
        X, y = make_law_data(seed)
        network = train_network(X, y, seed)
        with torch.no_grad():
            return X[:ROWS], network(X[:ROWS])[:, 0]
    generator = torch.Generator().manual_seed(seed)
    X = task.sample(ROWS, generator, 1.0)
    y = task.law(X)
    return X, y + task.noise * y.std() * torch.randn(ROWS, generator=generator)


def contains_law(front: ParetoFront, task: Task, X: Tensor, seed: int) -> bool:
    """Return whether an equation of the front is the law."""
    wide = task.sample(ROWS, torch.Generator().manual_seed(seed + 10_000), 1.5)
    if not task.form:
        return any(all(_is_close(c, task, rows) for rows in (X, wide)) for c in front)
    rules = task.search.rules
    most = rules.count(simplify(parse(task.form, task.names))) + MORE_COMPLEX
    return any(c.complexity <= most and _is_close(_refit(c, task, wide), task, wide) for c in front)


def _refit(candidate: Candidate, task: Task, X: Tensor) -> Candidate:
    columns = dict(zip(task.names, X.double().unbind(1), strict=True))
    exact = refit_constants(candidate.expression, columns, task.law(X.double()), None, LOSSES["mse"])
    return replace(candidate, expression=exact)


def _is_close(candidate: Candidate, task: Task, X: Tensor) -> bool:
    columns = dict(zip(task.names, X.double().unbind(1), strict=True))
    truth = task.law(X.double())
    error = evaluate(candidate.expression, columns) - truth
    relative = float(error.abs().mean() / (truth - truth.median()).abs().mean())
    return float(error.square().mean() / truth.var()) < 1e-8 or relative < 1e-4


def compare(console: Console, backends: dict[str, int], labels: list[str], limit: float) -> None:
    """Print the results of all backends on all tasks."""
    table = Table(title="solved, and wall-clock seconds: median (largest)")
    table.add_column("task")
    table.add_column("target for torchgp")
    for name in backends:
        table.add_column(name, justify="right")
    for label in labels:
        task = make_tasks()[label]
        cells: dict[str, list[tuple[bool, float]]] = {name: [] for name in backends}
        for seed in range(min(max(backends.values()), REPORTED_SEEDS if task.search is HARD else 100)):
            X, y = make_data(task, seed)
            space = replace(task.search, timeout_in_seconds=limit)
            for name in (name for name, seeds in backends.items() if seed < seeds):
                start = time.perf_counter()
                (front,) = load("regressors", name)().fit(
                    X, y[:, None], search=space, variable_names=task.names, seed=seed
                )
                seconds = time.perf_counter() - start
                solved = contains_law(front, task, X, seed)
                cells[name].append((solved, seconds))
                verdict = "solved" if solved else "NOT solved"
                text = front.select("score").text() if task.form else front[-1].text()
                console.print(
                    f"[dim]{label}, {name}, seed {seed}: {verdict} in {seconds:.1f} s: {text}[/dim]"
                )
        table.add_row(label, task.target, *(_summarize(runs) for runs in cells.values()))
    console.print(table)


def _summarize(runs: list[tuple[bool, float]]) -> str:
    seconds = [seconds for _, seconds in runs]
    solved = sum(solved for solved, _ in runs)
    return f"{solved}/{len(runs)} in {statistics.median(seconds):.1f} ({max(seconds):.1f})"


def compare_many_outputs(console: Console, limit: float) -> None:
    """Print times for 24 outputs in one search and one by one, with laws in common and without."""
    table = Table(title="24 outputs: solved, CPU seconds (wall-clock seconds)")
    for heading in ("laws", "together", "one by one", "CPU ratio"):
        table.add_column(heading)
    for title, laws in (
        ("shared: 6 linear images of each force", _make_shared_laws()),
        ("unrelated", _make_unrelated_laws()),
    ):
        tasks_ = [Task(PAIR, make_particles(0.0), law, FORCES) for law in laws]
        X = tasks_[0].sample(ROWS, torch.Generator().manual_seed(1), 1.0)
        Y = torch.stack([task.law(X) for task in tasks_], 1)
        space = replace(FORCES, timeout_in_seconds=limit)
        engine = load("regressors", "torchgp")()
        together = _time_fit(engine, X, Y, space, tasks_)
        single = [_time_fit(engine, X, Y[:, [i]], space, [task]) for i, task in enumerate(tasks_)]
        solved, cpu, wall = (sum(figures) for figures in zip(*single, strict=True))
        table.add_row(
            title,
            f"{together[0]}/24, {together[1]:.0f} ({together[2]:.0f})",
            f"{solved}/24, {cpu:.0f} ({wall:.0f})",
            f"{together[1] / cpu:.2f}",
        )
    console.print(table)


def _time_fit(
    engine: Regressor, X: Tensor, Y: Tensor, space: SearchSpace, of: list[Task]
) -> tuple[int, float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    fronts = engine.fit(X, Y, search=space, variable_names=PAIR, seed=0)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return sum(contains_law(front, task, X, 0) for front, task in zip(fronts, of, strict=True)), cpu, wall


def _make_shared_laws() -> list[Callable[[Tensor], Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        make_force(kind, *torch.randn(2, generator=generator).tolist())
        for kind in ("spring", "r1", "r2", "charge")
        for _ in range(6)
    ]


def _make_unrelated_laws() -> list[Callable[[Tensor], Tensor]]:
    """Return 24 laws of the same inputs, each of other parts."""

    def law(first: int, second: int, kind: int) -> Callable[[Tensor], Tensor]:
        def value(X: Tensor) -> Tensor:
            a, b = X[:, first], X[:, second]
            return (a * b / X[:, 2], a / (1 + b.square()), a * torch.exp(-0.5 * b.square()), a + b.square())[
                kind
            ]

        return value

    pairs = [(0, 1), (0, 5), (1, 6), (5, 6), (6, 0), (5, 1)]
    return [law(first, second, kind) for first, second in pairs for kind in range(4)]


def measure_speed(console: Console) -> None:
    """Print the programs scored per second, and the shares of a search's time."""
    names = tuple(f"x{i}" for i in range(5))
    primitives = Primitives.of(PAPER, names, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    programs = Sampler(primitives, PAPER.maxsize, generator, torch.device("cpu")).draw_trees(4_096)
    length = float(programs.size.float().mean())
    console.print(
        f"programs scored per second, one thread, batches of 4,096 programs of mean length {length:.1f}:"
    )
    table = Table()
    for heading in ("rows", "programs/s"):
        table.add_column(heading, justify="right")
    with one_thread():
        for count in (256, 1_000, 5_000):
            X, y = torch.randn(count, 5, generator=generator), torch.randn(count, 1, generator=generator)
            rows = Rows.of(X, y, torch.ones(1, count))
            score(programs, primitives, rows)
            seconds = []
            for _ in range(5):
                start = time.perf_counter()
                score(programs, primitives, rows)
                seconds.append(time.perf_counter() - start)
            table.add_row(f"{count:,}", f"{len(programs) / statistics.median(seconds):,.0f}")
    console.print(table)
    task = make_tasks()["Nguyen-4"]
    X, y = make_data(task, 0)
    profile = cProfile.Profile()
    profile.enable()
    space = replace(task.search, timeout_in_seconds=15)
    load("regressors", "torchgp")().fit(X, y[:, None], search=space, variable_names=task.names, seed=0)
    profile.disable()
    spent = pstats.Stats(profile).get_stats_profile().func_profiles
    total = spent["fit"].cumtime
    console.print("share of time in a search for Nguyen-4, under the profiler:")
    table = Table()
    for heading in ("stage", "share"):
        table.add_column(heading)
    for function, stage in STAGES.items():
        table.add_row(stage, f"{100 * spent[function].cumtime / total:.0f} %")
    console.print(table)


STAGES = {
    "match_subtrees": "children by matching",
    "vary": "children by variation",
    "score": "scoring (that of fitted children included)",
    "fit_constants": "constants",
    "_select_survivors": "survival",
    "build_front": "fronts: simplify, refit, measure on all rows",
    "build_schedule": "of all these: sorting the nodes of programs",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default="tasks,many,speed")
    parser.add_argument("--backends", default="torchgp:5,operon:2,gplearn:1", help="name:seeds, ...")
    parser.add_argument("--tasks", default="")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds for the search of one output")
    arguments = parser.parse_args()
    console = Console(width=140)
    console.print(
        f"{ROWS} rows, limit {arguments.limit:.0f} s, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"torch {torch.__version__}"
    )
    parts = arguments.parts.split(",")
    if "tasks" in parts:
        backends = {name: int(seeds) for name, seeds in (b.split(":") for b in arguments.backends.split(","))}
        chosen = [t.strip() for t in arguments.tasks.split(";")] if arguments.tasks else list(make_tasks())
        compare(console, backends, chosen, arguments.limit)
    if "many" in parts:
        compare_many_outputs(console, arguments.limit)
    if "speed" in parts:
        measure_speed(console)


if __name__ == "__main__":
    main()
