"""Does the pipeline find a known law in a network trained on noisy data of it?

    python benchmarks/law.py [--backends torchgp,operon] [--seeds 3] [--limit 60]

y = x0^2 + 3 sin(x4) - 4 on 10,000 x 5 inputs uniform on [-2, 2], 5 % noise; a 64-64-64 network trained for 20 epochs;
the whole network is distilled with the default search. The seed decides data, training and search. "True structure"
means that the chosen equation has exactly the law's terms: one square of x0, one sine of x4 alone, one constant.
"""

from __future__ import annotations

import argparse
import platform
import time

import sympy as sp
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from symtorch_core import distill
from symtorch_core.demo import law_data, mlp, train


def is_law(equation: sp.Expr) -> bool:
    """Whether an equation is a x0^2 + b sin(c x4) + d."""
    a, b, c, d = (sp.Wild(name, exclude=list(equation.free_symbols)) for name in "abcd")
    x0, x4 = sp.Symbol("x0", real=True), sp.Symbol("x4", real=True)
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
        X, y = law_data(seed)
        network = train(
            console, mlp([5, 64, 64, 64, 1], seed), X, y[:, None], nn.MSELoss(), epochs=20, seed=seed
        )
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
