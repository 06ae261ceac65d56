"""Recovery of a known law from a network that was trained on noisy data of it.

    python benchmarks/law.py [--backends torchgp,operon] [--seeds 3] [--limit 60]

The law is y = x0^2 + 3 sin(x4) - 4, on 10,000 rows of five inputs uniform on [-2, 2], with 5 % noise. A network of
widths 64-64-64 is trained for 20 epochs and distilled as a whole with the default search. The seed decides data,
training and search. "True structure" means that the chosen equation has exactly the law's terms: one square of x0, one
sine of x4 alone, one constant.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable

import numpy as np
import sympy as sp
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from symtorch_core import distill
from symtorch_core.studies import compute_learning_rate, descend, fork_seed

ROWS = 10_000
NOISE = 0.05
EPOCHS = 20
BATCH = 128
LEARNING_RATE = 3e-3


def make_law_data(seed: int) -> tuple[Tensor, Tensor]:
    """Return inputs, shape (10000, 5), uniform on [-2, 2], and noisy values of the law, shape (10000,)."""
    generator = np.random.default_rng(seed)
    X = generator.uniform(-2, 2, (ROWS, 5))
    y = X[:, 0] ** 2 + 3 * np.sin(X[:, 4]) - 4
    y += NOISE * y.std() * generator.normal(size=ROWS)
    return torch.from_numpy(X).float(), torch.from_numpy(y).float()


def train_network(X: Tensor, y: Tensor, seed: int) -> nn.Sequential:
    """Return a network of widths 64-64-64 that was trained on the data.

    Args:
        X: inputs, shape (n, 5).
        y: targets, shape (n,).
        seed: of the first weights and of the order of the rows.
    """
    with fork_seed(seed):
        network = nn.Sequential(
            *(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()),
            nn.Linear(64, 1),
        )
    fit_network(network, X, y, torch.Generator().manual_seed(seed), epochs=EPOCHS, batch=BATCH)
    return network.eval()


def fit_network(
    network: nn.Module,
    X: Tensor,
    y: Tensor,
    generator: torch.Generator,
    *,
    epochs: int,
    batch: int,
    judge: Callable[[], float] | None = None,
) -> None:
    """Train a network by Adam on mean squares.

    Args:
        network: maps inputs (n, d) to outputs (n, 1).
        X: inputs, shape (n, d).
        y: targets, shape (n,).
        generator: of the order of the rows.
        epochs: number of passes.
        batch: rows of a step.
        judge: returns a held-out loss, whose best state is kept; None keeps the last one.
    """
    steps = epochs * math.ceil(len(X) / batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    descend(
        lambda rows: nn.functional.mse_loss(network(X[rows])[:, 0], y[rows]),
        network.parameters(),
        lambda epoch: torch.randperm(len(X), generator=generator).split(batch),
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: compute_learning_rate(step, steps, highest=1.0, warmup=0.0)
        ),
        epochs=epochs,
        judge=judge,
    )


def stretch_range(low: float, high: float, width: float) -> tuple[float, float]:
    """Return a range so many times as wide, with the same middle and the same sign at its lower end."""
    middle, half = (low + high) / 2, width * (high - low) / 2
    return max(middle - half, low * 0.5) if low >= 0 else middle - half, middle + half


def is_law(equation: sp.Expr) -> bool:
    """Return whether an equation is a x0^2 + b sin(c x4) + d."""
    a, b, c, d = (sp.Wild(name, exclude=list(equation.free_symbols)) for name in "abcd")
    x0, x4 = sp.symbols("x0 x4")
    found = sp.expand(equation).match(a * x0**2 + b * sp.sin(c * x4) + d)
    return found is not None and all(found[number] != 0 for number in (a, b, c, d))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backends", default="torchgp,operon")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a search")
    arguments = parser.parse_args()
    console = Console(width=140)
    console.print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    table = Table(title="the law in a network of noisy data, chosen by 'score'")
    for heading in ("backend", "seed", "seconds", "held-out R2", "true structure", "on the front", "chosen"):
        table.add_column(heading)
    for seed in range(arguments.seeds):
        X, y = make_law_data(seed)
        network = train_network(X, y, seed)
        for backend in arguments.backends.split(","):
            start = time.perf_counter()
            result = distill(
                network, X, regressor=backend, seed=seed, select="score", timeout_in_seconds=arguments.limit
            )
            seconds = time.perf_counter() - start
            chosen = result.chosen()[0]
            held_out = result.fidelity[0].held_out
            assert held_out is not None
            table.add_row(
                backend,
                str(seed),
                f"{seconds:.0f}",
                f"{held_out.r2:.5f}",
                "yes" if is_law(chosen.equation) else "no",
                "yes" if any(is_law(candidate.equation) for candidate in result.front()) else "no",
                chosen.text(),
            )
    console.print(table)


if __name__ == "__main__":
    main()
