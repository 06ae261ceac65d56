"""Baselines: other modules in the place of an MLP, which cost as much as equations or less.

Each is first fitted to the MLP's outputs, and then tuned by the same steps as equations
(:func:`symtorch_llm.fitting.tuning.tune`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from torch import Tensor, nn
from torch.nn import functional

from symtorch_core import Activations, load
from symtorch_core.studies import fork_seed
from symtorch_llm.fitting.outputs import fit_outputs
from symtorch_llm.fitting.rows import RIDGES, Rows, compute_stop_loss


@final
@dataclass(frozen=True)
class Sizes:
    """Limits to the size of a baseline.

    Attributes:
        multiply_adds: largest number for a token.
        k_in, k_out: dimensions of the maps in and out, for baselines that have such maps.
    """

    multiply_adds: int
    k_in: int
    k_out: int


@final
class Constant(nn.Module):
    """The same vector for every token."""

    def __init__(self, vector: Tensor) -> None:
        super().__init__()
        self.vector = nn.Parameter(vector.clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d) to (..., d)."""
        return self.vector.to(x.dtype).expand_as(x)


@final
class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)), the MLP of Llama and its kind, narrower; computed in float32."""

    def __init__(self, d_in: int, d_out: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(d_in, hidden)
        self.up = nn.Linear(d_in, hidden)
        self.down = nn.Linear(hidden, d_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d_in) to (..., d_out)."""
        work = x.float()
        result: Tensor = self.down(functional.silu(self.gate(work)) * self.up(work))
        return result.to(x.dtype)


@final
class LinearMap(nn.Module):
    """Linear maps one after the other, computed in float32."""

    def __init__(self, *maps: nn.Module) -> None:
        super().__init__()
        self.maps = nn.Sequential(*maps)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d_in) to (..., d_out)."""
        result: Tensor = self.maps(x.float())
        return result.to(x.dtype)


@final
class BetweenMaps(nn.Module):
    """y = W z + U net(z), z = D x, with one hidden layer in net: a network in the place of equations."""

    def __init__(self, d_in: int, d_out: int, k_in: int, k_out: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(d_in, k_in)
        self.linear = nn.Linear(k_in, d_out)
        self.net = nn.Sequential(nn.Linear(k_in, hidden), nn.SiLU(), nn.Linear(hidden, k_out))
        self.out = nn.Linear(k_out, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape (..., d_in) to (..., d_out)."""
        z = self.into(x.float())
        result: Tensor = self.linear(z) + self.out(self.net(z))
        return result.to(x.dtype)


Baseline = Callable[[Rows, Sizes, int], nn.Module]
"""From an MLP's rows, sizes and a seed to a module in its place, fitted to the rows."""


def build_constant(rows: Rows, sizes: Sizes, seed: int) -> nn.Module:
    """Return the mean output as a module."""
    return Constant(rows.fit.outputs.mean(0))


def build_linear(rows: Rows, sizes: Sizes, seed: int) -> nn.Module:
    """Fit the best linear map that costs no more (reduced-rank regression)."""
    d_in, d_out = rows.fit.inputs.shape[1], rows.fit.outputs.shape[1]
    return fit_linear_map(rows, max(1, min(d_in, d_out, sizes.multiply_adds // (d_in + d_out))))


def build_full_linear(rows: Rows, sizes: Sizes, seed: int) -> nn.Module:
    """Fit the best linear map, whatever it costs."""
    return fit_linear_map(rows)


def fit_linear_map(rows: Rows, rank: int | None = None, ridges: Sequence[float] = RIDGES) -> LinearMap:
    """Fit the best linear map of a rank, as two maps; without a rank, as one map.

    Of several ridges, the one with the least error on the rows to stop by is taken.
    """
    return _fit_by_ridge(rows, rank, ridges)[1]


def choose_ridge(rows: Rows, rank: int | None, ridges: Sequence[float] = RIDGES) -> float:
    """Return the ridge with which a linear map of a rank has the least error on the rows to stop by."""
    return _fit_by_ridge(rows, rank, ridges)[0]


def _fit_by_ridge(rows: Rows, rank: int | None, ridges: Sequence[float]) -> tuple[float, LinearMap]:
    made = [(ridge, _fit_linear_map(rows.fit, rank, ridge)) for ridge in ridges]
    return min(made, key=lambda pair: compute_stop_loss(pair[1], rows))


def _fit_linear_map(rows: Activations, rank: int | None, ridge: float) -> LinearMap:
    reducer = load("reducers", "projection").with_options({"k_in": rank, "ridge": ridge})
    reduction = reducer.fit(rows.inputs, rows.outputs, variable_names=rows.input_names)
    assert reduction.linear is not None
    return LinearMap(reduction.linear) if rank is None else LinearMap(reduction.down, reduction.linear)


def build_network(rows: Rows, sizes: Sizes, seed: int) -> nn.Module:
    """Train a network between maps as wide as the equations', with a linear part, that costs no more."""
    d_in, d_out = rows.fit.inputs.shape[1], rows.fit.outputs.shape[1]
    maps = sizes.k_in * (d_in + d_out) + sizes.k_out * d_out
    hidden = max(1, (sizes.multiply_adds - maps) // (sizes.k_in + sizes.k_out))
    with fork_seed(seed):
        made = BetweenMaps(d_in, d_out, sizes.k_in, sizes.k_out, hidden)
    return _fit(made, rows, seed)


def build_swiglu(rows: Rows, sizes: Sizes, seed: int) -> nn.Module:
    """Train a gated MLP, narrow enough to cost no more."""
    d_in, d_out = rows.fit.inputs.shape[1], rows.fit.outputs.shape[1]
    hidden = max(1, sizes.multiply_adds // (2 * d_in + d_out))
    with fork_seed(seed):
        made = GatedMLP(d_in, d_out, hidden)
    return _fit(made, rows, seed)


BASELINES: Final[Mapping[str, Baseline]] = MappingProxyType(
    {
        "constant": build_constant,
        "linear of equal cost": build_linear,
        "full linear": build_full_linear,
        "network between maps": build_network,
        "narrow SwiGLU": build_swiglu,
    }
)


def _fit(module: nn.Module, rows: Rows, seed: int) -> nn.Module:
    fit_outputs(module, rows, list(module.parameters()), seed=seed)
    return module.requires_grad_(False)
