"""The messages of a trained network, and whether they are linear images of the force.

SymTorch paper (arXiv 2602.21307), section 4.2; the check is that of Cranmer et al. 2020 (arXiv 2006.11287).

The data determine messages only up to what the node model can undo, and it knows the receiver: a message may be the
force times any function of the receiver's mass. Where the force is proportional to that mass (r1, r2), networks tend to
send the force over the mass, since the sum of those is the acceleration. So messages are compared with both,
:func:`compute_forces` and :func:`compute_forces_per_mass`; :mod:`symtorch_gnn.laws` judges equations for each receiver
separately.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from symtorch_core import SearchError
from symtorch_gnn.forces import Force, compute_pair_forces
from symtorch_gnn.network import FEATURES, ParticleNetwork, SampledMessages, compute_divergence, connect_all
from symtorch_gnn.simulation import Trajectories

TRIM: Final = 0.1
_ROUNDS: Final = 20


def sample_edges(trajectories: Trajectories, edges: int, seed: int = 0) -> Tensor:
    """Draw random edges at random moments, shape (edges, 12): features of the receiver, then of the sender.

    Raises:
        SearchError: there are fewer edges than that.
    """
    states, _ = trajectories.samples()
    pairs = connect_all(1, states.shape[1])
    total = len(states) * pairs.shape[1]
    if edges > total:
        raise SearchError(
            f"{edges} edges are wanted, but the simulations have {total}: ask for fewer, or simulate more"
        )
    chosen = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:edges]
    moment, pair = chosen // pairs.shape[1], chosen % pairs.shape[1]
    sender, receiver = pairs[:, pair]
    return torch.cat([states[moment, receiver], states[moment, sender]], dim=1)


def compute_messages(network: ParticleNetwork, rows: Tensor, batch: int = 50_000) -> Tensor:
    """Return the messages (E, message_dim) of edge rows (E, 12), on the CPU; means where training samples them."""
    device = next(network.node_model.parameters()).device
    with torch.no_grad():
        parts = [network.edge_model(part.to(device)).cpu() for part in rows.split(batch)]
    return torch.cat(parts)


def compute_forces(force: Force, rows: Tensor) -> Tensor:
    """Return the true force on the receiver of each edge row (E, 12), shape (E, 2)."""
    return compute_pair_forces(force, rows[:, :FEATURES], rows[:, FEATURES:])


def compute_forces_per_mass(force: Force, rows: Tensor) -> Tensor:
    """Return the true force over the receiver's mass, for edge rows (E, 12), shape (E, 2)."""
    return compute_forces(force, rows) / rows[:, FEATURES - 1 : FEATURES]


def rank_by_std(messages: Tensor) -> Tensor:
    """Rank the columns of messages (E, d) by standard deviation, the largest first, shape (d,)."""
    return messages.double().std(dim=0, correction=0).argsort(descending=True, stable=True)


def rank_by_kl(network: ParticleNetwork, rows: Tensor) -> Tensor:
    """Rank the columns of sampled messages by mean divergence from the standard normal, the largest first, shape (d,).

    Raises:
        SearchError: the network's messages are not sampled.
    """
    model = network.edge_model
    if not isinstance(model, SampledMessages):
        raise SearchError(
            f"messages of the variant {network.variant.name!r} are not sampled: use rank_by_std"
        )
    device = next(network.node_model.parameters()).device
    with torch.no_grad():
        mean, log_variance = model.distribution(rows.to(device))
    return compute_divergence(mean, log_variance).mean(0).cpu().argsort(descending=True, stable=True)


@final
@dataclass(frozen=True)
class TrimmedFit:
    """A least trimmed squares regression.

    Attributes:
        slopes: shape (inputs,); float64.
        intercept: one number.
        r2: of the kept rows.
        kept: mask of the kept rows, shape (n,), boolean.
    """

    slopes: Tensor
    intercept: float
    r2: float
    kept: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the fitted values, shape (n,), for inputs (n, inputs)."""
        return inputs.double() @ self.slopes + self.intercept


def fit_trimmed(inputs: Tensor, output: Tensor, trim: float = TRIM) -> TrimmedFit:
    """Fit a linear regression that ignores the worst rows.

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


def fit_messages(messages: Tensor, forces: Tensor, trim: float = TRIM) -> tuple[TrimmedFit, ...]:
    """Fit each message by the two components of the true force: is it a linear image of the force?

    Args:
        messages: shape (n, d).
        forces: :func:`compute_forces` or :func:`compute_forces_per_mass`, shape (n, 2).
        trim: share of rows that each regression drops.
    """
    return tuple(fit_trimmed(forces, column, trim) for column in messages.T)


def _least_squares(x: Tensor, y: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]
    return solution
