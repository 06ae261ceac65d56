"""What a trained network sends along its edges, and whether it is a linear image of the force.

SymTorch paper (arXiv 2602.21307), section 4.2; the check is that of Cranmer et al. 2020 (arXiv 2006.11287).

Messages are determined by the data only up to what the node model can undo, and it knows the receiver: a force may come
times any function of the receiver's mass. Where the force is proportional to that mass (r1, r2), networks tend to
send the force over it, since its sum is the acceleration already. So there are two things to compare with,
``forces_on`` and ``pulls_on``; :mod:`symtorch_gnn.laws` judges equations for each receiver apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_gnn.forces import Force, pair_forces
from symtorch_gnn.network import FEATURES, ParticleNetwork, SampledMessages, divergence, fully_connected
from symtorch_gnn.simulation import Trajectories

TRIM: Final = 0.1
_ROUNDS: Final = 20


def edge_rows(trajectories: Trajectories, edges: int, seed: int = 0) -> Tensor:
    """Random edges of random moments, shape (edges, 12): features of the receiver, then of the sender.

    Raises:
        SearchError: there are not so many.
    """
    states, _ = trajectories.samples()
    pairs = fully_connected(1, states.shape[1])
    total = len(states) * pairs.shape[1]
    if edges > total:
        raise SearchError(f"{edges} edges are wanted, but the simulations have {total}")
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:edges]
    moment, pair = chosen // pairs.shape[1], chosen % pairs.shape[1]
    sender, receiver = pairs[:, pair]
    return torch.cat([states[moment, receiver], states[moment, sender]], dim=1)


def messages_of(network: ParticleNetwork, rows: Tensor, batch: int = 50_000) -> Tensor:
    """Messages (E, message_dim) of edge rows (E, 12), on the CPU; means where they are sampled in training."""
    device = next(network.node_model.parameters()).device
    with torch.no_grad():
        parts = [network.edge_model(part.to(device)).cpu() for part in rows.split(batch)]
    return torch.cat(parts)


def forces_on(force: Force, rows: Tensor) -> Tensor:
    """The true force on the receiver of each edge row (E, 12), shape (E, 2)."""
    return pair_forces(force, rows[:, :FEATURES], rows[:, FEATURES:])


def pulls_on(force: Force, rows: Tensor) -> Tensor:
    """The true force over the receiver's mass, its part of the acceleration, of edge rows (E, 12), shape (E, 2)."""
    return forces_on(force, rows) / rows[:, FEATURES - 1 : FEATURES]


def by_std(messages: Tensor) -> Tensor:
    """Columns of messages (E, d), those of the largest standard deviation first, shape (d,)."""
    return messages.double().std(dim=0, correction=0).argsort(descending=True, stable=True)


def by_kl(network: ParticleNetwork, rows: Tensor) -> Tensor:
    """Columns of sampled messages, those of the largest mean divergence from the standard normal first, shape (d,).

    Raises:
        SearchError: the network's messages are not sampled.
    """
    model = network.edge_model
    if not isinstance(model, SampledMessages):
        raise SearchError(
            f"messages of the variant {network.variant.name!r} are not sampled: rank them by_std"
        )
    device = next(network.node_model.parameters()).device
    with torch.no_grad():
        mean, log_variance = model.distribution(rows.to(device))
    return divergence(mean, log_variance).mean(0).cpu().argsort(descending=True, stable=True)


@final
@dataclass(frozen=True)
class TrimmedFit:
    """A least trimmed squares regression.

    Attributes:
        slopes: shape (inputs,); float64.
        intercept: one number.
        r2: of the kept rows.
        kept: which rows those are, shape (n,), boolean.
    """

    slopes: Tensor
    intercept: float
    r2: float
    kept: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Shape (n,), of inputs (n, inputs)."""
        return inputs.double() @ self.slopes + self.intercept


def trimmed_fit(inputs: Tensor, output: Tensor, trim: float = TRIM) -> TrimmedFit:
    """A linear regression that looks away from the worst rows.

    It fits, drops the share ``trim`` of all rows with the largest residuals, fits the others, and goes on dropping the
    worst of all rows under the new fit until they stay the same (20 rounds at most). R2 is that of the rows kept last.

    Args:
        inputs: shape (n, inputs); an intercept is added.
        output: shape (n,).
        trim: share of the rows that is dropped, 0 to less than 1.
    """
    x = torch.cat([inputs.double(), inputs.new_ones(len(inputs), 1).double()], dim=1)
    y = output.double()
    count = len(y) - int(trim * len(y))
    kept = torch.ones(len(y), dtype=torch.bool)
    coefficients = _least_squares(x, y)
    for _ in range(_ROUNDS if count < len(y) else 0):
        before, kept = kept, torch.zeros_like(kept)
        kept[(y - x @ coefficients).abs().argsort(stable=True)[:count]] = True
        if torch.equal(before, kept):
            break
        coefficients = _least_squares(x[kept], y[kept])
    rest, spread = (y - x @ coefficients)[kept], y[kept] - y[kept].mean()
    total = float(spread.square().sum())
    r2 = 1 - float(rest.square().sum()) / total if total > 0 else float("nan")
    return TrimmedFit(coefficients[:-1], float(coefficients[-1]), r2, kept)


def linearity(messages: Tensor, forces: Tensor, trim: float = TRIM) -> tuple[TrimmedFit, ...]:
    """Each message regressed on the two components of the true force: is it a linear image of it?

    Args:
        messages: shape (n, d).
        forces: :func:`forces_on` or :func:`pulls_on`, shape (n, 2).
        trim: share of rows that each regression drops.
    """
    return tuple(trimmed_fit(forces, column, trim) for column in messages.T)


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    return solution
