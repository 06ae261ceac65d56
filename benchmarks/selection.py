"""How well each rule chooses the law from a front, for networks that learned known laws from noisy data.

    python benchmarks/selection.py search [--backends torchgp,operon] [--noise 0,0.01,0.05,0.2]
                                         [--halves first,second] [--limit 15]
    python benchmarks/selection.py judge [--backends torchgp,operon]

``search`` trains a network of widths 64-64 on noisy rows of each law and distills it once with each backend. It keeps
networks and fronts in a folder, so that it may be stopped and repeated. ``judge`` applies every rule to these fronts
and prints a table for each half of the laws: the rules were designed on the first half (every second law), and are
judged on the second.

An equation *is the law* if, with its constants refitted to true values, it equals the law on a box 1.3 times as wide
as that of the data (NMSE below 1e-8), and its complexity exceeds that of the law by at most 4, so that a law with
ripples of the network added to it does not count. A law is *hidden* if the front has an equation at most as complex
that is closer to the truth than the network is: by the network, nobody can tell such an equation from the law. Errors
are against the truth, on rows of the box of the data, in units of the error of the network itself.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final, get_args

import torch
from law import fit_network, stretch_range
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from symtorch_core import Candidate, ExpressionError, ParetoFront, SearchSpace, distill
from symtorch_core.expressions import evaluate, parse, simplify
from symtorch_core.search import LOSSES, SelectionRule, refit_constants
from symtorch_core.studies import fork_seed

FEYNMAN = Path(os.environ.get("SYMTORCH_DATA", "../shared/data")) / "feynman" / "equations.csv"
ROWS, CAPTURED, TESTED = 5_000, 2_000, 2_000
EPOCHS, BATCH, PATIENCE_ROWS = 40, 64, 1_000
SEARCH = SearchSpace(
    binary_operators=("+", "-", "*", "/"),
    unary_operators=("square", "sqrt", "exp", "log", "sin", "cos"),
    complexity_of_operators=dict.fromkeys(("sqrt", "exp", "log", "sin", "cos"), 3),
)
WIDER = 1.3
MOST_COMPLEX = 18
"""Laws from the Feynman database have at most this complexity, and six variables."""
OTHERS = ("tanh", "arcsin")
"""Functions that the search does not have."""
MORE_COMPLEX = 4
"""Complexity by which an equation may exceed that of the law: a factor and a summand."""
EXACT = 1e-8
PHYSICS = {
    "known law": ("x0^2 + 3*sin(x4) - 4", {f"x{i}": (-2.0, 2.0) for i in range(5)}),
    "pendulum": ("-9.8*sin(theta)/L", {"theta": (-3.0, 3.0), "L": (0.5, 2.0)}),
    "damped pendulum": (
        "-9.8*sin(theta)/L - 0.5*omega",
        {"theta": (-3.0, 3.0), "omega": (-3.0, 3.0), "L": (0.5, 2.0)},
    ),
    "driven oscillator": (
        "-4*x - 0.3*v + 2*cos(1.5*t)",
        {"x": (-2.0, 2.0), "v": (-2.0, 2.0), "t": (0.0, 4.0)},
    ),
    "Duffing": ("x - x^3 - 0.2*v", {"x": (-1.5, 1.5), "v": (-1.5, 1.5)}),
    "Van der Pol": ("1.5*(1 - x^2)*v - x", {"x": (-2.0, 2.0), "v": (-2.0, 2.0)}),
    "Lorenz": ("x*(28 - z) - y", {"x": (-15.0, 15.0), "y": (-20.0, 20.0), "z": (5.0, 45.0)}),
    "predator and prey": ("1.1*u - 0.4*u*w", {"u": (0.5, 6.0), "w": (0.5, 6.0)}),
    "logistic growth": ("0.8*n*(1 - n/K)", {"n": (0.5, 10.0), "K": (5.0, 15.0)}),
    "Michaelis-Menten": ("V*s/(0.7 + s)", {"V": (0.5, 3.0), "s": (0.1, 5.0)}),
    "Arrhenius": ("5*exp(-E/T)", {"E": (0.5, 3.0), "T": (0.5, 3.0)}),
    "drag": ("9.8 - 0.25*v^2/m", {"v": (0.0, 8.0), "m": (1.0, 5.0)}),
    "Lennard-Jones": ("4*(1/r^12 - 1/r^6)", {"r": (0.98, 2.0)}),
    "lens": ("a*b/(a + b)", {"a": (1.0, 5.0), "b": (1.0, 5.0)}),
}


@final
@dataclass(frozen=True)
class Law:
    """A law to learn and to find again.

    Attributes:
        name: its name.
        text: the law, in the names of its variables.
        box: range of each variable.
    """

    name: str
    text: str
    box: dict[str, tuple[float, float]]

    def sample(self, rows: int, seed: int, width: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return inputs (rows, d) on a box so many times as wide, signs of its ends kept, and true values (rows,)."""
        generator = torch.Generator().manual_seed(seed)
        columns = []
        for low, high in self.box.values():
            bottom, top = stretch_range(low, high, width)
            share = torch.rand(2 * rows, generator=generator, dtype=torch.float64)
            columns.append(bottom + (top - bottom) * share)
        X = torch.stack(columns, 1)
        y = self.evaluate(X)
        return X[y.isfinite()][:rows], y[y.isfinite()][:rows]

    def evaluate(self, X: Tensor) -> Tensor:
        """Return the true values of rows, shape (n,)."""
        return evaluate(parse(self.text, tuple(self.box)), dict(zip(self.box, X.T, strict=True)))

    @property
    def complexity(self) -> int:
        """Complexity of the law in its short form."""
        return SEARCH.rules.count(simplify(parse(self.text, tuple(self.box))))


def make_laws() -> list[Law]:
    """Return the laws: those of physics above, and every second one of the Feynman database that is not too long."""
    physics = [Law(name, text, box) for name, (text, box) in PHYSICS.items()]
    return physics + list(_read_feynman())[::2]


def split_laws() -> dict[str, list[Law]]:
    """Return the two halves of the laws: rules are designed on the first, and judged on the second."""
    laws = make_laws()
    return {"first": laws[::2], "second": laws[1::2]}


def _read_feynman() -> Iterator[Law]:
    with FEYNMAN.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            names = [row[f"v{i}_name"] for i in range(1, int(row["# variables"]) + 1) if row[f"v{i}_name"]]
            box = {
                name: (float(row[f"v{i}_low"]), float(row[f"v{i}_high"])) for i, name in enumerate(names, 1)
            }
            law = Law(row["Filename"], row["Formula"].replace("**", "^"), box)
            try:
                short = law.complexity
            except ExpressionError:  # another function, or a variable that the table lacks
                continue
            if short <= MOST_COMPLEX and len(box) <= 6 and not any(name in law.text for name in OTHERS):
                yield law


@final
class Scaled(nn.Module):
    """A network of widths 64-64 between fixed scalings of inputs and outputs to mean 0 and spread 1."""

    def __init__(self, X: Tensor, y: Tensor) -> None:
        super().__init__()
        for name, value in {
            "shift": X.mean(0),
            "scale": X.std(0),
            "mean": y.mean(),
            "spread": y.std(),
        }.items():
            self.register_buffer(name, value.float())
        self.layers = nn.Sequential(
            *(nn.Linear(X.shape[1], 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.layers((x - self.shift) / self.scale)
        return scaled * self.spread + self.mean


def train(law: Law, noise: float, seed: int) -> tuple[Scaled, Tensor]:
    """Return a network trained on noisy rows of the law, and the inputs of these rows, shape (n, d)."""
    X, y = law.sample(ROWS, seed)
    generator = torch.Generator().manual_seed(seed)
    y = y + noise * y.std() * torch.randn(len(y), generator=generator, dtype=torch.float64)
    X, y = X.float(), y.float()
    with fork_seed(seed):
        network = Scaled(X, y)
    held_out = slice(PATIENCE_ROWS)

    def judge() -> float:
        return float(nn.functional.mse_loss(network(X[held_out])[:, 0], y[held_out]))

    rest = slice(PATIENCE_ROWS, None)
    fit_network(network, X[rest], y[rest], generator, epochs=EPOCHS, batch=BATCH, judge=judge)
    return network.eval(), X


@final
@dataclass(frozen=True)
class Case:
    """A front found in a network that learned a law.

    Attributes:
        law: the law.
        noise: standard deviation of the noise, relative to that of the law.
        backend: the backend that searched.
        front: what it found.
        network_error: error of the network against the truth, as NMSE on the box of the data.
        seconds: wall-clock time of the distillation.
    """

    law: Law
    noise: float
    backend: str
    front: ParetoFront
    network_error: float
    seconds: float


def search(
    console: Console,
    folder: Path,
    laws: Sequence[Law],
    backends: Sequence[str],
    noises: Sequence[float],
    limit: float,
    seed: int,
) -> None:
    """Train and search what the folder lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [
        (law, noise, backend)
        for backend in backends
        for noise in noises
        for law in laws
        if not _locate(folder, law, noise, backend, seed).exists()
    ]
    for law, noise, backend in track(todo, "searching", console=console):
        kept = folder / f"{law.name} {noise:g} {seed}.pt"
        network, X = train(law, noise, seed) if not kept.exists() else _load_network(kept, law, seed)
        torch.save(network.state_dict(), kept)
        truth_X, truth = law.sample(TESTED, seed + 1)
        with torch.no_grad():
            error = _nmse(network(truth_X.float())[:, 0].double(), truth)
        start = time.perf_counter()
        result = distill(
            network,
            X[:CAPTURED],
            regressor=backend,
            search=replace(SEARCH, timeout_in_seconds=limit),
            variable_names=list(law.box),
            out_of_range=False,
            seed=seed,
            progress=False,
        )
        seconds = time.perf_counter() - start
        entry = {"front": result.front().to_json(), "network_error": error, "seconds": seconds}
        _locate(folder, law, noise, backend, seed).write_text(json.dumps(entry), encoding="utf-8")


def _locate(folder: Path, law: Law, noise: float, backend: str, seed: int) -> Path:
    return folder / f"{law.name} {noise:g} {seed} {backend}.json"


def _load_network(path: Path, law: Law, seed: int) -> tuple[Scaled, Tensor]:
    X, y = law.sample(ROWS, seed)
    network = Scaled(X.float(), y.float())
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval(), X.float()


def load_cases(folder: Path, backend: str, noises: Sequence[float], seed: int) -> list[Case]:
    """Return what the folder holds of a backend, in the order of the laws."""
    cases = []
    for law in make_laws():
        for noise in noises:
            path = _locate(folder, law, noise, backend, seed)
            if path.exists():
                entry = json.loads(path.read_text(encoding="utf-8"))
                front = ParetoFront.from_json(entry["front"], tuple(law.box))
                cases.append(Case(law, noise, backend, front, entry["network_error"], entry["seconds"]))
    return cases


def is_law(candidate: Candidate, law: Law, seed: int) -> bool:
    """Return whether an equation, its constants refitted to true values on a wider box, is the law."""
    if candidate.complexity > law.complexity + MORE_COMPLEX:
        return False
    X, y = law.sample(TESTED, seed + 2, WIDER)
    columns = dict(zip(law.box, X.T, strict=True))
    exact = refit_constants(candidate.expression, columns, y, None, LOSSES["mse"])
    return _nmse(evaluate(exact, columns).expand_as(y), y) < EXACT


def measure_error(candidate: Candidate, law: Law, seed: int) -> float:
    """Return the NMSE of an equation against the truth, on the box of the data."""
    X, y = law.sample(TESTED, seed + 1)
    return _nmse(evaluate(candidate.expression, dict(zip(law.box, X.T, strict=True))).expand_as(y), y)


def _nmse(prediction: Tensor, truth: Tensor) -> float:
    error = float((prediction - truth).square().mean() / truth.var(correction=0))
    return error if math.isfinite(error) else math.inf


def judge(
    console: Console, folder: Path, backends: Sequence[str], noises: Sequence[float], seed: int
) -> None:
    """Print, for each backend and each half of the laws, what each rule chose."""
    titles = {"first": "first half (rules were designed on it)", "second": "second half (judged)"}
    for backend in backends:
        for half, laws in split_laws().items():
            names = {law.name for law in laws}
            cases = [case for case in load_cases(folder, backend, noises, seed) if case.law.name in names]
            console.print(tabulate(cases, f"{backend}, {titles[half]}", seed))


def tabulate(cases: Sequence[Case], title: str, seed: int) -> Table:
    """Return a table of how often each rule chose the law, with a column for each noise."""
    noises = sorted({case.noise for case in cases})
    groups = {noise: [_judge_case(case, seed) for case in cases if case.noise == noise] for noise in noises}
    table = Table(title=f"{title}: the law chosen (median error in units of the network's)")
    table.add_column("rule")
    for noise in noises:
        table.add_column(f"noise {noise:.0%}", justify="right")
    counts = {
        "laws": lambda group: len(group),
        "hidden": lambda group: sum(entry.hidden for entry in group),
        "on the front": lambda group: sum(bool(entry.right) for entry in group),
    }
    for name, count in counts.items():
        table.add_row(name, *(str(count(group)) for group in groups.values()))
    table.add_section()
    for rule in get_args(SelectionRule):
        table.add_row(rule, *(_summarize(rule, group) for group in groups.values()))
    return table


@final
@dataclass(frozen=True)
class Judged:
    """A front, and what its equations are worth.

    Attributes:
        front: the front.
        right: complexities of the equations that are the law.
        errors: error of each equation against the truth, in units of the network's, by complexity.
        hidden: whether an equation at most as complex as the law is closer to the truth than the network is.
    """

    front: ParetoFront
    right: set[int]
    errors: dict[int, float]
    hidden: bool


def _judge_case(case: Case, seed: int) -> Judged:
    law, front = case.law, case.front
    right = {c.complexity for c in front if is_law(c, law, seed)}
    errors = {c.complexity: measure_error(c, law, seed) / case.network_error for c in front}
    hidden = not right and any(errors[c.complexity] < 1 for c in front if c.complexity <= law.complexity)
    return Judged(front, right, errors, hidden)


def _summarize(rule: SelectionRule, group: Sequence[Judged]) -> str:
    chosen = [entry.front.select(rule).complexity for entry in group]
    right = sum(c in entry.right for c, entry in zip(chosen, group, strict=True))
    error = statistics.median(entry.errors[c] for c, entry in zip(chosen, group, strict=True))
    return f"{right} ({error:.2g})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["search", "judge"])
    parser.add_argument("--backends", default="torchgp,operon")
    parser.add_argument(
        "--noise", default="0,0.01,0.05,0.2", help="standard deviations, relative to that of the law"
    )
    parser.add_argument("--halves", default="first,second", help="halves of the laws to search")
    parser.add_argument("--limit", type=float, default=15.0, help="seconds for a search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("build/selection"))
    arguments = parser.parse_args()
    console = Console(width=140)
    torch.set_num_threads(1)
    console.print(
        f"{len(make_laws())} laws, seed {arguments.seed}, {platform.machine()}, torch {torch.__version__}"
    )
    backends, noises = arguments.backends.split(","), [float(text) for text in arguments.noise.split(",")]
    if arguments.task == "search":
        laws = [law for half in arguments.halves.split(",") for law in split_laws()[half]]
        search(console, arguments.folder, laws, backends, noises, arguments.limit, arguments.seed)
    else:
        judge(console, arguments.folder, backends, noises, arguments.seed)


if __name__ == "__main__":
    main()
