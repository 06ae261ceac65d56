"""Training of a graph network on simulated accelerations (SymTorch paper, arXiv 2602.21307, appendix E.2).

The loss of a batch is, per node, the sum of the absolute errors of the two components of the acceleration, plus the
variant's penalty summed over all edges, divided by the number of nodes and once more by the number of particles in a
graph: the scaling of both reference implementations, divided by the number of particles. Adam's weight decay is the
L2 term. In every batch all positions are shifted by one random vector, so that the network cannot depend on the
origin.

A batch is rows of two tensors, not from a torch-geometric ``DataLoader``: all graphs are alike, so one ``edge_index``
serves all batches. Collating graph objects takes 20 microseconds a graph, about as long as a training step at laptop
scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import OutputPruner, SearchError, SymbolicModel, wrap
from symtorch_core.events import Callback
from symtorch_core.studies import Checkpoint, Descent, compute_learning_rate, descend, make_key
from symtorch_gnn.network import ParticleNetwork, connect_all
from symtorch_gnn.simulation import Trajectories

CHECKPOINT: Final = "training.pt"
_RANKINGS: Final = 200  # of a training with pruning; each runs the edge model on a sample
_RANKED_EDGES: Final = 4096
_PRUNED_BY: Final = 0.65


@final
@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Attributes:
        simulations: to learn from, of 200 samples each.
        epochs: passes over all samples.
        batch: samples (graphs) in a step.
        hidden, activation: of both models of the network.
        learning_rate: at its highest; it falls to 0 on a cosine.
        warmup: share of the steps in which it rises linearly from 0.
        weight_decay: of Adam, added to the gradient: an L2 term of half that weight.
        shift: standard deviation of the vector by which positions are shifted.
    """

    simulations: int = 5000
    epochs: int = 100
    batch: int = 64
    hidden: int = 300
    activation: str = "relu"
    learning_rate: float = 1e-3
    warmup: float = 0.0
    weight_decay: float = 1e-8
    shift: float = 3.0


def train(
    network: ParticleNetwork,
    trajectories: Trajectories,
    settings: Settings,
    seed: int = 0,
    *,
    callbacks: Iterable[Callback] = (),
    device: torch.device | str = "cpu",
    folder: Path | str | None = None,
    keep_every: int = 2000,
) -> Descent:
    """Train a network, in place; it ends in evaluation mode on ``device``.

    Where the variant prunes, the edge model is wrapped (:func:`symtorch_core.wrap`) if it is not yet.

    Args:
        network: to be trained.
        trajectories: to learn from.
        settings: how.
        seed: of the order of samples and of all noise.
        callbacks: told of the stage ``"train"``, step by step.
        device: to train on.
        folder: for a checkpoint, every ``keep_every`` steps. A training that was stopped goes on from there, and ends
            as if it had not been stopped.
        keep_every: steps.

    Returns:
        The losses of each epoch: mean absolute error per node, components and penalty added up, shape (epochs,); and
        the seconds, however often it was stopped. Work after the last checkpoint is done again.

    Raises:
        SearchError: there are fewer samples than one batch.
        FileFormatError: the folder holds another training's checkpoint.
    """
    device = torch.device(device)
    states, targets = (part.to(device) for part in trajectories.samples())
    steps = len(states) // settings.batch * settings.epochs
    if steps < 1:
        raise SearchError(f"{len(states)} samples do not fill one batch of {settings.batch}")
    network.to(device).train()
    prune = _schedule_pruning(network, states, steps, seed)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator(device).manual_seed(seed)
    edges = connect_all(settings.batch, states.shape[1], device)
    key = make_key([asdict(settings), asdict(network.variant), seed], [trajectories.accelerations])

    def draw_batches(epoch: int) -> list[Tensor]:
        whole = len(states) // settings.batch * settings.batch
        return list(_draw_order(len(states), seed, epoch).to(device)[:whole].split(settings.batch))

    done = descend(
        lambda rows: _compute_loss(network, states[rows], targets[rows], edges, settings.shift, generator),
        network.parameters(),
        draw_batches,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: compute_learning_rate(step, steps, highest=1.0, warmup=settings.warmup)
        ),
        epochs=settings.epochs,
        before_step=prune,
        generator=generator,
        checkpoint=None
        if folder is None
        else Checkpoint(Path(folder) / CHECKPOINT, network, key, keep_every),
        stage="train",
        callbacks=tuple(callbacks),
    )
    network.eval()
    return done


def measure_error(network: ParticleNetwork, trajectories: Trajectories, batch: int = 4096) -> float:
    """Return the mean absolute error of a component of the acceleration, in evaluation mode; flags stay as they are."""
    states, targets = trajectories.samples()
    device = next(network.node_model.parameters()).device
    total, training = 0.0, network.training
    network.eval()
    with torch.no_grad():
        for x, y in zip(states.split(batch), targets.split(batch), strict=True):
            edges = connect_all(len(x), x.shape[1], device)
            predicted = network(x.flatten(0, 1).to(device), edges)
            total += float((predicted - y.flatten(0, 1).to(device)).abs().double().sum())
    network.train(training)
    return total / targets.numel()


def _compute_loss(
    network: ParticleNetwork,
    states: Tensor,
    targets: Tensor,
    edges: Tensor,
    shift: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the loss of a batch of states (B, particles, 6)."""
    x, y, particles = states.flatten(0, 1), targets.flatten(0, 1), states.shape[1]
    moved = shift * torch.randn(2, generator=generator, device=x.device)
    x[:, :2] += moved  # the rows were gathered for this batch alone
    predicted, penalty = network.forward_with_penalty(x, edges, generator)
    return (predicted - y).abs().sum() / len(x) + penalty / (len(x) * particles)


def _schedule_pruning(
    network: ParticleNetwork, states: Tensor, steps: int, seed: int
) -> Callable[[int], None] | None:
    """Return what prunes the edge model's outputs before each step; None for a variant that does not prune."""
    target = network.variant.pruned_to
    if target is None:
        return None
    block = network.edge_model
    if not isinstance(block, SymbolicModel):
        block = wrap(network, "edge_model")
    spacing = max(1, steps // _RANKINGS)
    pruner = OutputPruner(block, target, total_steps=steps // spacing, end_fraction=_PRUNED_BY)
    graphs = _draw_order(len(states), seed, -1)[: _RANKED_EDGES // 12]
    sample = states[graphs.to(states.device)]
    rows = network.gather_edge_rows(
        sample.flatten(0, 1), connect_all(len(sample), sample.shape[1], states.device)
    )

    def prune(step: int) -> None:
        if step % spacing == 0 and not pruner.done:
            pruner.steps_taken = step // spacing  # so that a training that goes on finds its place
            pruner.step(rows)

    return prune


def _draw_order(samples: int, seed: int, epoch: int) -> Tensor:
    """Draw the order of the samples in an epoch, a function of both numbers alone."""
    mixed = int(np.random.SeedSequence([seed, epoch + 1]).generate_state(1)[0])
    return torch.randperm(samples, generator=torch.Generator().manual_seed(mixed))
