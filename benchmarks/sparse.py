"""Times of the regressor ``sparse`` on wide data, fronts included.

python benchmarks/sparse.py
"""

from __future__ import annotations

import time

import torch

import symtorch_core as st
from symtorch_sparse.regressor import SparseRegressor

ROWS, INPUTS, OUTPUTS, NOISE = 100_000, 16, 8, 0.1


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(ROWS, INPUTS, generator=generator)
    laws = [2 * X[:, i] * X[:, i + 1] - 0.5 * X[:, i + 2] + torch.sin(X[:, i + 3]) for i in range(OUTPUTS)]
    Y = torch.stack(laws, dim=1) + NOISE * torch.randn(ROWS, OUTPUTS, generator=generator)
    sizes = f"{INPUTS} inputs, {OUTPUTS} outputs, {ROWS:,} rows"
    print(f"{sizes}, noise {NOISE}, seed 0, {torch.get_num_threads()} threads\n")
    print("| maxsize | seconds | law chosen | equation of output 0 |")
    print("| --- | --- | --- | --- |")
    for maxsize in (30, 60, 100):
        started = time.monotonic()
        fronts = SparseRegressor().fit(
            X, Y, search=st.SearchSpace(maxsize=maxsize), variable_names=[f"x{i}" for i in range(INPUTS)]
        )
        seconds = time.monotonic() - started
        chosen = [front.select("score") for front in fronts]
        right = sum(candidate.loss < 1.01 * NOISE**2 and candidate.complexity <= 16 for candidate in chosen)
        print(f"| {maxsize} | {seconds:.1f} | {right}/{OUTPUTS} | {chosen[0]} |", flush=True)


if __name__ == "__main__":
    main()
