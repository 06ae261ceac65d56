"""Training of the maps, with a small network between them that is then discarded."""

from __future__ import annotations

import itertools
import math
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core.studies import descend

_VALIDATION = 0.1
_BATCH = 512


@final
class _Bottleneck(nn.Module):
    """Maps x to W z + U net(z), z = D x, on centred and scaled data."""

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


def train_maps(
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
    """Train input and output directions together with a network between them, and return the directions.

    Args:
        X: inputs, shape (n, d_in), centred and of unit variance.
        Y: outputs, shape (n, d_out), centred, on a common scale.
        down: input directions to start from, shape (k_in, d_in).
        up: output directions to start from, shape (d_out, k_out); None keeps all outputs.
        linear: whether a linear map of z stands beside the network.
        weights: of the rows, shape (n,), or None.
        metric: the cost of errors, shape (d_out, d_out), or None.
        hidden: units of each of the network's two hidden layers.
        epochs: passes over the rows; the epoch with the lowest loss on a held-out tenth of them is kept.
        learning_rate: the highest of a one-cycle schedule (Adam).
        seed: of the network and the order of the rows; torch's global generator is left alone.

    Returns:
        The trained ``down`` and ``up``.

    Raises:
        KeyboardInterrupt: the user stopped the training.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(X), generator=generator)
    held = order[: int(_VALIDATION * len(X))]
    rest = order[len(held) :]
    share = torch.ones(len(X)) if weights is None else weights.float() / weights.mean()
    network = _Bottleneck(down, up, Y.shape[1], hidden, linear, seed).to(X.device)

    def compute_loss(rows: Tensor) -> Tensor:
        error = network(X[rows]) - Y[rows]
        cost = error.square().sum(1) if metric is None else ((error @ metric) * error).sum(1)
        return (share[rows.to(share.device)].to(cost) * cost).mean()

    def shuffle(epoch: int) -> tuple[Tensor, ...]:
        return rest[torch.randperm(len(rest), generator=generator)].split(_BATCH)

    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    steps = epochs * max(1, math.ceil(len(rest) / _BATCH))
    done = descend(
        compute_loss,
        network.parameters(),
        shuffle,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps + 1),
        epochs=epochs,
        judge=lambda: float(compute_loss(held if len(held) else rest)),
    )
    if done.interrupted:  # half-trained maps are no basis for a search
        raise KeyboardInterrupt
    return network.down.detach(), None if network.up is None else network.up.detach()
