"""Layers and widths: what the model loses when layers are replaced or narrowed, before any search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core import Reducer, Reduction, SearchError, load
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, Stopwatch, notify
from symtorch_llm.fitting.baselines import fit_linear_map
from symtorch_llm.fitting.recipes import fit_rebuilding_map
from symtorch_llm.fitting.rows import Rows


@final
@dataclass(frozen=True)
class LayerCost:
    """Scores of the model with one layer's MLP replaced: by zeros, and by its best linear map of some rank."""

    layer: int
    path: str
    zero: float
    linear: float


Score = Callable[[Mapping[str, nn.Module]], float]
"""The score of the model with these modules in place, by path."""


def scan_layers(
    rows: Mapping[str, Rows],
    layers: Mapping[str, int],
    score: Score,
    *,
    rank: int,
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> list[LayerCost]:
    """Rank layers by what their replacement costs, the cheapest first.

    The cost of a layer is the score that its best linear map of a rank leaves: quick to compute, and near the score of
    equations that see as many dimensions.

    Args:
        rows: of the MLPs, by path.
        layers: the layer's number, by path.
        score: of the model with modules in place, on text by which layers may be chosen.
        rank: of the linear map.
        device: of the model.
        callbacks: told of the stage ``"scan"``.
    """
    watch, found = Stopwatch(), []
    notify(callbacks, StageStarted("scan", len(rows)))
    for path, some in rows.items():
        linear = fit_linear_map(some, rank).to(device)
        found.append(LayerCost(layers[path], path, score({path: Zero()}), score({path: linear})))
        notify(callbacks, StageAdvanced("scan"))
    notify(callbacks, StageFinished("scan", watch.seconds()))
    return sorted(found, key=lambda cost: cost.linear)


@final
@dataclass(frozen=True)
class LayerChoice:
    """Layers that were chosen within a budget.

    Attributes:
        paths: of their MLPs.
        costs: of all layers, the cheapest first.
        rises: of the score, with the first one, two... of these replaced; the last one may exceed the budget.
        budget: largest allowed rise of the score.
    """

    paths: tuple[str, ...]
    costs: tuple[LayerCost, ...]
    rises: tuple[float, ...]
    budget: float


def choose_layers(
    costs: Sequence[LayerCost], score: Callable[[Sequence[str]], float], limit: float
) -> tuple[list[str], list[float]]:
    """Choose as many of the cheapest layers as can be replaced within a limit.

    Args:
        costs: the cheapest first.
        score: of the model with the MLPs at these paths replaced.
        limit: of the score.

    Returns:
        Their paths, and the scores with one, two... layers replaced, the first one over the limit included.
    """
    chosen: list[str] = []
    scores: list[float] = []
    for cost in costs:
        scores.append(score([*chosen, cost.path]))
        if not scores[-1] <= limit:
            break
        chosen.append(cost.path)
    return chosen, scores


@final
@dataclass(frozen=True)
class Replaced:
    """The score with a number of layers replaced by one kind of module, the cheapest layers first."""

    kind: str
    layers: int
    score: float


def trace_frontier(
    paths: Sequence[str],
    kinds: Mapping[str, Callable[[str], nn.Module]],
    score: Score,
    *,
    callbacks: Sequence[Callback] = (),
) -> list[Replaced]:
    """Measure the score with one, two, ... all layers replaced, for each kind of module.

    Args:
        paths: of the MLPs, the one that is replaced first at first.
        kinds: name -> function from a path to the module in its place; called once for each path.
        score: of the model with modules in place.
        callbacks: told of the stage ``"frontier"``.
    """
    watch, found = Stopwatch(), []
    notify(callbacks, StageStarted("frontier", len(kinds) * len(paths)))
    for kind, make in kinds.items():
        modules: dict[str, nn.Module] = {}
        for path in paths:
            modules[path] = make(path)
            found.append(Replaced(kind, len(modules), score(modules)))
            notify(callbacks, StageAdvanced("frontier"))
    notify(callbacks, StageFinished("frontier", watch.seconds()))
    return found


@final
@dataclass(frozen=True)
class Sensitivity:
    """The score with the exact MLPs between a reducer's maps; infinite or NaN where the size does not fit."""

    reducer: str
    k_in: int
    k_out: int
    score: float


def measure_sensitivity(
    mlps: Mapping[str, nn.Module],
    rows: Mapping[str, Rows],
    score: Score,
    *,
    reducers: Sequence[str] = ("pca", "projection"),
    k_in: Sequence[int] = (4, 8, 16, 32),
    k_out: Sequence[int] = (4, 8, 16),
    device: torch.device,
    callbacks: Sequence[Callback] = (),
) -> list[Sensitivity]:
    """Measure how narrow maps may be, with the exact MLPs between them (SymTorch paper, figure 4).

    Inputs are narrowed and rebuilt by their best linear estimate; outputs are narrowed and widened. All MLPs are
    replaced together.

    Args:
        mlps: by path.
        rows: inputs and outputs of these, by path.
        score: of the model with modules in place.
        reducers: by name.
        k_in, k_out: dimensions; those above the model's width are left out.
        device: of the model.
        callbacks: told of the stage ``"sweep"``.
    """
    width = next(iter(rows.values())).fit.inputs.shape[1]
    grid = [
        (name, a, b) for name, a, b in itertools.product(reducers, k_in, k_out) if a <= width and b <= width
    ]
    watch, found = Stopwatch(), []
    notify(callbacks, StageStarted("sweep", len(grid)))
    for name, a, b in grid:
        try:
            between = build_between(mlps, rows, name, a, b, device)
        except SearchError:
            found.append(Sensitivity(name, a, b, math.nan))
        else:
            found.append(Sensitivity(name, a, b, score(between)))
        notify(callbacks, StageAdvanced("sweep"))
    notify(callbacks, StageFinished("sweep", watch.seconds()))
    return found


def build_between(
    mlps: Mapping[str, nn.Module],
    rows: Mapping[str, Rows],
    name: str,
    k_in: int,
    k_out: int,
    device: torch.device,
) -> dict[str, nn.Module]:
    """Return the exact MLPs between the maps of a reducer, by path; see :func:`measure_sensitivity`.

    Raises:
        SearchError: the sizes do not fit the rows.
    """
    # Without a linear part, which would bypass the MLP.
    reducer = load("reducers", name).with_options({"k_in": k_in, "k_out": k_out, "linear": False})
    return {path: _build_between(mlps[path], reducer, some, device) for path, some in rows.items()}


def _build_between(mlp: nn.Module, reducer: Reducer, rows: Rows, device: torch.device) -> nn.Module:
    some = rows.fit
    reduction = reducer.fit(some.inputs, some.outputs, variable_names=some.input_names)
    return Between(mlp, fit_rebuilding_map(reduction, some.inputs), reduction).to(device)


@final
class Zero(nn.Module):
    """A module that returns zeros: nothing is added to the residual stream."""

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d) to (..., d)."""
        return torch.zeros_like(x)


@final
class Between(nn.Module):
    """An exact MLP on narrowed inputs, with narrowed outputs."""

    def __init__(self, mlp: nn.Module, projector: nn.Linear, reduction: Reduction) -> None:
        super().__init__()
        self.mlp = mlp
        self.projector = projector
        self.reduction = reduction

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d) to (..., d)."""
        work = x.float()
        exact = self.mlp(self.projector(work).to(x.dtype)).float()
        z = self.reduction.reduce_inputs(work)
        return self.reduction.restore_outputs(self.reduction.reduce_targets(exact, z), z).to(x.dtype)
