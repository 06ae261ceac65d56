"""Loadings: what a reduction's linear maps are made of, by name."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from symtorch_core.components.checks import check_choice
from symtorch_core.errors import SelectionError
from symtorch_core.reduction.reducer import Reduction

Side = Literal["inputs", "outputs"]
_PROBES = 8


@final
@dataclass(frozen=True)
class AffineMap:
    """The map x -> weight @ x + bias: ``weight`` has shape (k, d), ``bias`` (k,), both in float64 on the CPU."""

    weight: Tensor
    bias: Tensor


def read_map(module: nn.Module, width: int, what: str) -> AffineMap:
    """Return a map of a reduction as numbers.

    Args:
        module: maps (..., width) to (..., k).
        width: number of its inputs.
        what: the map, for messages.

    Raises:
        SelectionError: the map is not linear.
    """
    if isinstance(module, nn.Identity):
        return AffineMap(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))
    if isinstance(module, nn.Linear):
        weight = module.weight.detach().double().cpu()
        bias = torch.zeros(len(weight)) if module.bias is None else module.bias.detach()
        return AffineMap(weight, bias.double().cpu())
    probe = copy.deepcopy(module).double().cpu()
    draw = torch.Generator().manual_seed(0)
    scales = 10.0 ** torch.linspace(-3, 3, _PROBES, dtype=torch.float64)[:, None]
    rows = scales * torch.randn(_PROBES, width, generator=draw, dtype=torch.float64)
    with torch.no_grad():
        bias = probe(torch.zeros(1, width, dtype=torch.float64))[0]
        found = AffineMap((probe(torch.eye(width, dtype=torch.float64)) - bias).T, bias)
        if torch.allclose(probe(rows), rows @ found.weight.T + bias, rtol=1e-6):
            return found
    raise SelectionError(f"{what} is not linear, so it has no loadings and cannot be written out")


@final
@dataclass(frozen=True)
class Loadings:
    """Weights of the block's inputs in each variable of the equations, or of each equation in the block's outputs.

    Attributes:
        names: k names of the reduced columns.
        columns: d names of the block's.
        weights: shape (k, d), float64.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    weights: Tensor

    def describe(self, row: int, most: int = 4) -> str:
        """Return the largest weights of one reduced column as text, with their share of the sum of squares."""
        weights = self.weights[row]
        order = weights.abs().argsort(descending=True, stable=True)[:most].tolist()
        parts = ", ".join(f"{float(weights[i]):+.3g} {self.columns[i]}" for i in order if weights[i] != 0)
        total = float(weights.square().sum())
        share = float(weights[order].square().sum()) / total if total > 0 else 1.0
        whole = len(order) == len(weights) or share > 1 - 1e-9
        return parts or "nothing" if whole else f"{parts}, ... ({share:.0%} of its weight)"

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each reduced column (needs pandas)."""
        import pandas  # optional, only here

        return pandas.DataFrame(self.weights.numpy(), index=list(self.names), columns=list(self.columns))


def read_loadings(
    reduction: Reduction,
    side: Side,
    variables: Sequence[str],
    outputs: Sequence[str],
    equations: Sequence[str],
) -> Loadings:
    """Return the loadings of a reduction.

    Args:
        reduction: the maps.
        side: ``"inputs"`` for the variables z of the equations; ``"outputs"`` for the equations f, of which the outputs
            are made.
        variables: names of the columns that are mapped to z.
        outputs: names of the columns that f is mapped to.
        equations: names of the equations.

    Raises:
        SelectionError: there is no such side, nothing is reduced there, or the map is not linear.
    """
    check_choice("side", side, ("inputs", "outputs"), SelectionError)
    module = reduction.down if side == "inputs" else reduction.up
    if isinstance(module, nn.Identity):
        raise SelectionError(
            f"the {side} are not reduced, so there are no loadings: each equation "
            + ("takes the inputs themselves" if side == "inputs" else "is one output")
        )
    if side == "inputs":
        read = read_map(module, len(variables), "the map from the inputs to the equations' variables")
        return Loadings(tuple(reduction.variable_names), tuple(variables), read.weight)
    read = read_map(module, len(equations), "the map from the equations to the outputs")
    return Loadings(tuple(equations), tuple(outputs), read.weight.T)
