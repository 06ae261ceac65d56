"""Prune a bottleneck during its training, then distill both halves of the network (SymTorch paper, section 4.2).

    python docs/examples/pruning.py

A network learns the law y = 2.5 x0^2 - 1.3 sin(x4) through a bottleneck of 32 outputs, of which two are left at the
end. Each of these is a mixture of the law's terms, and the second half separates them again. The equations of both
halves compose to the law.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import symtorch_core as st

SETTINGS = {"regressor": "torchgp", "timeout_in_seconds": 20.0, "select": "best", "progress": False}


class Bottleneck(nn.Module):
    """A network of five inputs and one output, with 32 outputs in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 32)
        )
        self.second = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.first(x))
        return result


def compute_law(x: Tensor) -> Tensor:
    """Return the law's values, shape (n, 1), for inputs of shape (n, 5)."""
    return (2.5 * x[:, 0].square() - 1.3 * torch.sin(x[:, 4]))[:, None]


def train(steps: int, seed: int) -> tuple[Bottleneck, st.SymbolicModel, Tensor]:
    """Train and prune a network; return it with its wrapped first half and the inputs, shape (10000, 5)."""
    torch.manual_seed(seed)
    X = torch.randn(10_000, 5)
    y = compute_law(X)
    model = Bottleneck()
    first = st.wrap(model, "first")
    pruner = st.OutputPruner(first, target_dim=2, total_steps=steps)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(X), (512,))
        loss = nn.functional.mse_loss(model(X[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        pruner.step(X[rows])
    return model, first, X


def distill(model: Bottleneck, first: st.SymbolicModel, X: Tensor) -> st.SymbolicModel:
    """Distill both halves, switch them to equations, and return the wrapped second half."""
    first.distill(X, parent=model, unary_operators=("sin", "square"), **SETTINGS)
    second = st.wrap(model, "second")
    active = [f"x{i}" for i in range(32) if i not in first.pruned_outputs]
    second.distill(
        X, parent=model, transforms={name: name for name in active}, unary_operators=("square",), **SETTINGS
    )
    first.switch_to_symbolic()
    second.switch_to_symbolic()
    return second


def measure_error(model: nn.Module, seed: int = 1) -> float:
    """Return the root mean square error on new inputs, relative to the law's standard deviation."""
    X = torch.randn(5_000, 5, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return float((model(X) - compute_law(X)).square().mean().sqrt() / compute_law(X).std())


def main(steps: int = 3000, seed: int = 0) -> float:
    """Train, prune, distill and compose; return the relative error of the composed equations."""
    out = sys.stdout
    model, first, X = train(steps, seed)
    pruned = len(first.pruned_outputs)
    out.write(f"pruned {pruned} of 32 outputs; relative error of the network {measure_error(model):.4f}\n")
    second = distill(model, first, X)
    for block in (first, second):
        for name, expression in zip(
            block.distillation.equation_names, block.surrogate.expressions(), strict=True
        ):
            out.write(f"{block.name} {name} = {st.Candidate(expression, 0, 0.0).text()}\n")
    composed = measure_error(model)
    out.write(f"relative error of the composed equations {composed:.4f}\n")
    return composed


if __name__ == "__main__":
    main()
