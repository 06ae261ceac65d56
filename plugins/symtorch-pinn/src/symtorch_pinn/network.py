"""The network of the paper, and what a differential equation sees of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

HIDDEN = (32, 32, 32)
"""Widths of the hidden layers, with tanh (SymTorch paper, F)."""


@final
class Rescale(nn.Module):
    """Each variable from its range to 0..1; nothing, where that is its range."""

    low: Tensor
    span: Tensor

    def __init__(self, ranges: Mapping[str, tuple[float, float]], dtype: torch.dtype) -> None:
        super().__init__()
        low, high = torch.tensor(list(ranges.values()), dtype=dtype).T
        self.register_buffer("low", low)
        self.register_buffer("span", high - low)

    def forward(self, points: Tensor) -> Tensor:
        return (points - self.low) / self.span


def build_network(
    ranges: Mapping[str, tuple[float, float]], seed: int, dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    """Build a network (n, d) -> (n, 1) of rescaled variables and three hidden layers, initialised from its own seed.

    float64, because the line search of L-BFGS stalls on the rounding of float32.
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [Rescale(ranges, dtype)]
    for wide, narrow in pairwise((len(ranges), *HIDDEN, 1)):
        layer = nn.Linear(wide, narrow, dtype=dtype)
        bound = 1 / math.sqrt(wide)  # torch's own default, drawn from a generator of ours
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def compute_derivatives(
    network: nn.Module, points: Tensor, wanted: Iterable[tuple[str, ...]], variables: Sequence[str]
) -> dict[tuple[str, ...], Tensor]:
    """Return the network's output and its derivatives at points, by the variables of the derivative.

    Args:
        network: (n, d) -> (n, 1), row by row.
        points: shape (n, d).
        wanted: tuples of variables; ``()`` is the output itself.
        variables: d names, of the columns.

    Returns:
        For each wanted tuple and its beginnings, values of shape (n,), differentiable in the network's parameters.
    """
    points = points.detach().clone().requires_grad_()
    values: dict[tuple[str, ...], Tensor] = {(): network(points)[:, 0]}
    for by in sorted({names[:length] for names in wanted for length in range(1, len(names) + 1)}, key=len):
        if by in values:
            continue
        (gradient,) = torch.autograd.grad(values[by[:-1]].sum(), points, create_graph=True)
        for name, column in zip(variables, gradient.unbind(1), strict=True):
            values[(*by[:-1], name)] = column
    return values
