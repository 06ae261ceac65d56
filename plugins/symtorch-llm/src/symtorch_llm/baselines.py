"""What equations have to beat: other things that may stand in an MLP's place, and cost as much or less.

Each is fitted to the MLP's outputs first, and is then to be tuned by the same steps as equations
(:func:`symtorch_llm.tuning.tune`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

from torch import Tensor, nn
from torch.nn import functional

from symtorch_core import Activations
from symtorch_core.studies import fork_seed
from symtorch_llm.fitting import fit_outputs
from symtorch_projection.reducer import ProjectionReducer


@final
@dataclass(frozen=True)
class Sizes:
    """How large a baseline may be.

    Attributes:
        multiply_adds: most of them for a token.
        k_in, k_out: dimensions of the maps in and out, where there are such.
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
        """Shape (..., d) to (..., d)."""
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
        """Shape (..., d_in) to (..., d_out)."""
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
        """Shape (..., d_in) to (..., d_out)."""
        result: Tensor = self.maps(x.float())
        return result.to(x.dtype)


@final
class BetweenMaps(nn.Module):
    """y = W z + U net(z), z = D x, net with one hidden layer: a network where equations would be."""

    def __init__(self, d_in: int, d_out: int, k_in: int, k_out: int, hidden: int) -> None:
        super().__init__()
        self.into = nn.Linear(d_in, k_in)
        self.linear = nn.Linear(k_in, d_out)
        self.net = nn.Sequential(nn.Linear(k_in, hidden), nn.SiLU(), nn.Linear(hidden, k_out))
        self.out = nn.Linear(k_out, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., d_in) to (..., d_out)."""
        z = self.into(x.float())
        result: Tensor = self.linear(z) + self.out(self.net(z))
        return result.to(x.dtype)


Baseline = Callable[[Activations, Sizes, int], nn.Module]
"""From an MLP's rows, sizes and a seed to a module in its place, fitted to the rows."""


def constant(rows: Activations, sizes: Sizes, seed: int) -> nn.Module:
    """The mean output."""
    return Constant(rows.outputs.mean(0))


def linear(rows: Activations, sizes: Sizes, seed: int) -> nn.Module:
    """The best linear map that costs no more (reduced-rank regression)."""
    d_in, d_out = rows.inputs.shape[1], rows.outputs.shape[1]
    return linear_map(rows, max(1, min(d_in, d_out, sizes.multiply_adds // (d_in + d_out))))


def full_linear(rows: Activations, sizes: Sizes, seed: int) -> nn.Module:
    """The best linear map, whatever it costs."""
    return linear_map(rows)


def linear_map(rows: Activations, rank: int | None = None) -> LinearMap:
    """The best linear map of some rank, as two maps; of any rank, as one."""
    reduction = ProjectionReducer(k_in=rank).fit(rows.inputs, rows.outputs, variable_names=rows.input_names)
    assert reduction.linear is not None
    return LinearMap(reduction.linear) if rank is None else LinearMap(reduction.down, reduction.linear)


def network(rows: Activations, sizes: Sizes, seed: int) -> nn.Module:
    """A trained network between maps as wide as the equations', with a linear part, that costs no more."""
    d_in, d_out = rows.inputs.shape[1], rows.outputs.shape[1]
    maps = sizes.k_in * (d_in + d_out) + sizes.k_out * d_out
    hidden = max(1, (sizes.multiply_adds - maps) // (sizes.k_in + sizes.k_out))
    with fork_seed(seed):
        made = BetweenMaps(d_in, d_out, sizes.k_in, sizes.k_out, hidden)
    return _fitted(made, rows, seed)


def swiglu(rows: Activations, sizes: Sizes, seed: int) -> nn.Module:
    """A trained gated MLP, narrow enough to cost no more."""
    d_in, d_out = rows.inputs.shape[1], rows.outputs.shape[1]
    hidden = max(1, sizes.multiply_adds // (2 * d_in + d_out))
    with fork_seed(seed):
        made = GatedMLP(d_in, d_out, hidden)
    return _fitted(made, rows, seed)


BASELINES: Final[Mapping[str, Baseline]] = MappingProxyType(
    {
        "constant": constant,
        "linear of equal cost": linear,
        "full linear": full_linear,
        "network between maps": network,
        "narrow SwiGLU": swiglu,
    }
)


def _fitted(module: nn.Module, rows: Activations, seed: int) -> nn.Module:
    fit_outputs(module, rows, list(module.parameters()), seed=seed)
    return module.requires_grad_(False)
