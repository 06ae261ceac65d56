"""Forward times of the fused surrogate, of one function per output, and of the MLP that they replace.

    python benchmarks/surrogate.py [--seed 0] [--seconds 1.0] [--no-compile]

"Per output" is one ``sympy.lambdify`` function (to torch) for each output, called in a Python loop on the input columns
and stacked. All are timed in turns in one run; the table has medians and ratios of medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import sympy as sp
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from symtorch_core import TorchSurrogate, Transforms, load
from symtorch_core.expressions import Call, Constant, Expression, Variable, simplify, to_sympy

INPUTS = 32
NAMES = [f"x{i}" for i in range(INPUTS)]


def draw_equation(generator: np.random.Generator, terms: int = 3) -> Expression:
    """Draw a sum of typical terms of a search: c x, c x y, c sin(...), c exp(...), c / (...)."""

    def draw_variable() -> Expression:
        return Variable(NAMES[generator.integers(INPUTS)])

    def draw_number() -> Expression:
        return Constant(round(float(generator.normal()), 3) or 1.0)

    def draw_term() -> Expression:
        match generator.integers(5):
            case 0:
                inner = draw_variable()
            case 1:
                inner = Call("*", draw_variable(), draw_variable())
            case 2:
                inner = Call("sin", Call("+", Call("*", draw_number(), draw_variable()), draw_number()))
            case 3:
                inner = Call("exp", Call("*", Constant(-0.1), Call("*", draw_variable(), draw_variable())))
            case _:
                inner = Call("inv", Call("+", Call("*", draw_variable(), draw_variable()), Constant(20.0)))
        return Call("*", draw_number(), inner)

    result = draw_term()
    for _ in range(terms - 1):
        result = Call("+", result, draw_term())
    return simplify(Call("+", result, draw_number()))


def build_per_output(equations: Sequence[Expression]) -> Callable[[Tensor], Tensor]:
    """Return a function that calls one lambdified function for each output."""
    functions = []
    for equation in equations:
        expression = to_sympy(equation)
        used = sorted(expression.free_symbols, key=lambda s: NAMES.index(s.name))
        columns = [NAMES.index(symbol.name) for symbol in used]
        functions.append((sp.lambdify(used, expression, modules=[torch]), columns))

    def forward(x: Tensor) -> Tensor:
        return torch.stack([function(*(x[:, i] for i in columns)) for function, columns in functions], dim=1)

    return forward


def measure_times(
    functions: dict[str, Callable[[Tensor], Tensor]], x: Tensor, seconds: float
) -> dict[str, float]:
    """Return the median seconds of each function, called in turns for about ``seconds`` each."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    with torch.no_grad():
        for function in functions.values():
            for _ in range(3):
                function(x)
        end = time.perf_counter() + seconds * len(functions)
        while time.perf_counter() < end or len(samples[next(iter(samples))]) < 5:
            for name, function in functions.items():
                start = time.perf_counter()
                function(x)
                samples[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    console = Console(width=130)
    console.print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, "
        f"seed {arguments.seed}, float32"
    )
    table = Table(title="forward time, ms (and per-output / fused)")
    for heading in (
        "outputs",
        "rows",
        "MLP 32-128-128",
        "per output",
        "fused",
        "ratio",
        "fused compiled",
        "ratio",
    ):
        table.add_column(heading, justify="right")
    for outputs in (8, 32, 100):
        generator = np.random.default_rng(arguments.seed)
        equations = [draw_equation(generator) for _ in range(outputs)]
        reduction = load("reducers", "identity").restore({"variable_names": NAMES})
        fused = TorchSurrogate.build(equations, Transforms.none(NAMES), reduction)
        with torch.random.fork_rng():
            torch.manual_seed(arguments.seed)
            mlp = nn.Sequential(
                nn.Linear(INPUTS, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, outputs)
            )
        for rows in (1_024, 65_536):
            x = torch.randn(rows, INPUTS, generator=torch.Generator().manual_seed(arguments.seed))
            functions: dict[str, Callable[[Tensor], Tensor]] = {
                "mlp": mlp,
                "per output": build_per_output(equations),
                "fused": fused,
            }
            if not arguments.no_compile:
                torch.compiler.reset()
                functions["compiled"] = torch.compile(fused, fullgraph=True)
            assert torch.allclose(functions["per output"](x), fused(x), rtol=1e-3, atol=1e-4)
            median = measure_times(functions, x, arguments.seconds)
            base = median["per output"]
            compiled = (
                [f"{1e3 * median['compiled']:.2f}", f"{base / median['compiled']:.1f}x"]
                if "compiled" in median
                else ["-", "-"]
            )
            table.add_row(
                str(outputs),
                f"{rows:,}",
                f"{1e3 * median['mlp']:.2f}",
                f"{1e3 * base:.2f}",
                f"{1e3 * median['fused']:.2f}",
                f"{base / median['fused']:.1f}x",
                *compiled,
            )
    console.print(table)


if __name__ == "__main__":
    main()
