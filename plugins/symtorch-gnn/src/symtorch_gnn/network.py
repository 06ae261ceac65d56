"""The graph network: messages from an edge model, summed, and turned into accelerations by a node model.

SymTorch paper (arXiv 2602.21307), section 4.2 and appendix E.2; Cranmer et al. 2020 (arXiv 2006.11287). A node is a
particle with features x, y, vx, vy, charge, mass. An edge row is (receiver, sender): the 6 features of the particle
that gets the message, then the 6 of the one that sends it. Messages are added up, as forces are. So a network that may
send only a few numbers learns a linear image of the force.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, final

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from symtorch_core import check_choice
from symtorch_core.studies import fork_seed

FEATURES: Final = 6
DIMENSIONS: Final = 2
ACTIVATIONS: Final[Mapping[str, type[nn.Module]]] = MappingProxyType(
    {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "tanh": nn.Tanh, "softplus": nn.Softplus}
)


@final
@dataclass(frozen=True)
class Variant:
    """How a network is made to send few numbers (SymTorch paper, E.2).

    Attributes:
        name: of the variant.
        message_dim: numbers in a message.
        l1: weight of the messages' absolute values.
        kl: weight of the divergence of the messages, sampled in training, from the standard normal.
        pruned_to: outputs of the edge model that pruning leaves; None: no pruning.
    """

    name: str
    message_dim: int = 100
    l1: float = 0.0
    kl: float = 0.0
    pruned_to: int | None = None


VARIANTS: Final[Mapping[str, Variant]] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            Variant("standard"),
            Variant("bottleneck", message_dim=DIMENSIONS),
            Variant("l1", l1=1e-2),
            Variant("kl", kl=1.0),
            Variant("pruning", pruned_to=DIMENSIONS),
        )
    }
)


def build_perceptron(inputs: int, outputs: int, hidden: int, activation: str) -> nn.Sequential:
    """Build a multi-layer perceptron with three hidden layers.

    Raises:
        SearchError: there is no such activation.
    """
    check_choice("activation", activation, ACTIVATIONS)
    bend = ACTIVATIONS[activation]
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        bend(),
        nn.Linear(hidden, hidden),
        bend(),
        nn.Linear(hidden, hidden),
        bend(),
        nn.Linear(hidden, outputs),
    )


@final
class SampledMessages(nn.Module):
    """An edge model whose messages are normal variables: a call gives means, :meth:`distribution` variances too.

    So whatever wraps the edge model sees the means, (E, 12) to (E, message_dim), as with any other edge model.
    """

    def __init__(self, message_dim: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.layers = build_perceptron(2 * FEATURES, 2 * message_dim, hidden, activation)

    def distribution(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and logarithms of the variances, each of shape (E, message_dim)."""
        mean, log_variance = self.layers(rows).chunk(2, dim=-1)
        return mean, log_variance

    def forward(self, rows: Tensor) -> Tensor:
        """Return the means, shape (E, message_dim), for edge rows (E, 12)."""
        return self.distribution(rows)[0]


@final
class ParticleNetwork(MessagePassing):
    """Accelerations of particles from their states.

    Weights come from torch's own seed, unless :func:`build_network` makes the network.

    Args:
        variant: of :data:`VARIANTS`.
        hidden: units of each hidden layer, of which both models have three.
        activation: of :data:`ACTIVATIONS`; ReLU in the paper.
    """

    edge_model: nn.Module
    """Edge rows (E, 12), receiver first, to messages (E, message_dim): the block that equations replace."""
    node_model: nn.Module
    """A particle's features and the sum of its messages, (N, 6 + message_dim), to its acceleration (N, 2)."""

    def __init__(self, variant: Variant, hidden: int = 300, activation: str = "relu") -> None:
        super().__init__(aggr="add")
        self.variant = variant
        width = variant.message_dim
        self.edge_model = (
            SampledMessages(width, hidden, activation)
            if variant.kl
            else build_perceptron(2 * FEATURES, width, hidden, activation)
        )
        self.node_model = build_perceptron(FEATURES + width, DIMENSIONS, hidden, activation)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return accelerations, shape (N, 2).

        Args:
            x: states of all particles of all graphs, shape (N, 6).
            edge_index: senders and receivers, shape (2, E), as torch-geometric has it.
        """
        return self._accelerations(x, edge_index, self.edge_model(self.gather_edge_rows(x, edge_index)))

    def forward_with_penalty(
        self, x: Tensor, edge_index: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return accelerations, shape (N, 2), in training, and the variant's penalty on the messages: its weight times

        - L1: the sum of their absolute values,
        - KL: the sum of (variance + mean^2 - 1 - log variance) / 2, their divergence from the standard normal,

        over all edges, one number; 0 for the other variants.

        Args:
            x, edge_index: as in :meth:`forward`.
            generator: of the noise of sampled messages, on the device of ``x``.
        """
        rows = self.gather_edge_rows(x, edge_index)
        if not self.variant.kl:
            messages = self.edge_model(rows)
            penalty = self.variant.l1 * messages.abs().sum() if self.variant.l1 else messages.new_zeros(())
        else:
            mean, log_variance = self.edge_model.distribution(rows)  # type: ignore[operator]
            penalty = self.variant.kl * compute_divergence(mean, log_variance).sum()
            noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            messages = mean + noise * (log_variance / 2).exp()
        return self._accelerations(x, edge_index, messages), penalty

    def gather_edge_rows(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return the features of receiver and sender of every edge, shape (E, 12)."""
        rows: Tensor = self.edge_updater(edge_index, x=x)
        return rows

    def edge_update(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        """Concatenate the features of receivers and senders, each of shape (E, 6); torch-geometric calls this."""
        return torch.cat([x_i, x_j], dim=-1)

    def message(self, messages: Tensor) -> Tensor:
        """Return what is summed over the edges of a receiver, shape (E, message_dim); torch-geometric calls this."""
        return messages

    def _accelerations(self, x: Tensor, edge_index: Tensor, messages: Tensor) -> Tensor:
        total = self.propagate(edge_index, messages=messages, size=(len(x), len(x)))
        result: Tensor = self.node_model(torch.cat([x, total], dim=-1))
        return result


def build_network(variant: Variant, hidden: int, activation: str, seed: int) -> ParticleNetwork:
    """Build a network whose first weights depend on ``seed`` alone; torch's own random state stays as it is."""
    with fork_seed(seed):
        return ParticleNetwork(variant, hidden, activation)


def compute_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the divergence from a normal variable to the standard one, in nats, elementwise."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance)


def connect_all(graphs: int, particles: int, device: torch.device | str = "cpu") -> Tensor:
    """Return senders and receivers, shape (2, E), of all edges without self-loops, sorted by receiver.

    E is graphs x particles x (particles - 1).
    """
    order = torch.arange(particles, device=device)
    receiver, sender = torch.cartesian_prod(order, order).T
    one = torch.stack([sender, receiver])[:, sender != receiver]
    offsets = particles * torch.arange(graphs, device=device)
    return (one[:, None] + offsets[:, None]).flatten(1)
