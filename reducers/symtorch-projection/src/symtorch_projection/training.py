"""Maps trained with a small network between them, which is then thrown away."""

from __future__ import annotations

import itertools
import math
from typing import final

import torch
from torch import Tensor, nn

_VALIDATION = 0.1
_BATCH = 512


@final
class _Bottleneck(nn.Module):
    """y = W z + U net(z), z = D x, on centred and scaled data."""

    def __init__(
        self, down: Tensor, up: Tensor | None, d_out: int, hidden: int, linear: bool, seed: int
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        k_in = len(down)
        sizes = [k_in, hidden, hidden, d_out if up is None else up.shape[1]]
        self.down = nn.Parameter(down.clone())
        self.up = None if up is None else nn.Parameter(up.clone())
        self.linear = nn.Parameter(torch.zeros(d_out, k_in)) if linear else None
        self.weights = nn.ParameterList(
            torch.randn(b, a, generator=generator) / math.sqrt(a) for a, b in itertools.pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes[1:])

    def forward(self, x: Tensor) -> Tensor:
        z = x @ self.down.T
        h = z
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = nn.functional.linear(h, weight, bias)
            if number < len(self.weights) - 1:
                h = nn.functional.silu(h)
        y = h if self.up is None else h @ self.up.T
        return y if self.linear is None else y + z @ self.linear.T


def trained_maps(
    X: Tensor,
    Y: Tensor,
    *,
    down: Tensor,
    up: Tensor | None,
    linear: bool,
    weights: Tensor | None,
    metric: Tensor | None,
    hidden: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> tuple[Tensor, Tensor | None]:
    """Input and output directions that leave least, when the best network of some size stands between them.

    Args:
        X: inputs, shape (n, d_in), centred and of unit variance.
        Y: outputs, shape (n, d_out), centred, on a common scale.
        down: where to start, shape (k_in, d_in).
        up: where to start, shape (d_out, k_out); None keeps all outputs.
        linear: whether a linear map of z stands beside the network.
        weights: shape (n,) or None.
        metric: what errors cost, shape (d_out, d_out), or None.
        hidden: units of each of the network's two hidden layers.
        epochs: passes over the rows; the best one on a tenth of them, held out, counts.
        learning_rate: the largest of a one-cycle schedule (Adam).
        seed: of the network and the order of the rows; the global generator is left alone.

    Returns:
        The trained ``down`` and ``up``.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(X), generator=generator)
    held = order[: int(_VALIDATION * len(X))]
    fitted = order[len(held) :]
    judged = held if len(held) else fitted
    share = torch.ones(len(X)) if weights is None else weights.float() / weights.mean()
    network = _Bottleneck(down, up, Y.shape[1], hidden, linear, seed).to(X.device)

    def loss_on(rows: Tensor) -> Tensor:
        error = network(X[rows]) - Y[rows]
        cost = error.square().sum(1) if metric is None else ((error @ metric) * error).sum(1)
        return (share[rows.to(share.device)].to(cost) * cost).mean()

    batches = max(1, math.ceil(len(fitted) / _BATCH))
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=learning_rate, total_steps=epochs * batches + 1
    )
    best, lowest = (down, up), math.inf
    for _ in range(epochs):
        shuffled = fitted[torch.randperm(len(fitted), generator=generator)]
        for rows in shuffled.split(_BATCH):
            with torch.enable_grad():
                optimizer.zero_grad()
                loss_on(rows).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            now = float(loss_on(judged))
        if now < lowest:
            lowest = now
            best = (
                network.down.detach().clone(),
                None if network.up is None else network.up.detach().clone(),
            )
    return best
