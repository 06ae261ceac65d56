"""Training a graph network on simulated accelerations (SymTorch paper, arXiv 2602.21307, appendix E.2).

The loss of a batch is, per node, the sum of the absolute errors of the two components of the acceleration, plus the
variant's penalty summed over all edges, divided by the number of nodes and once more by the number of particles in a
graph: the scaling of both reference implementations, divided by the particles as a whole. Adam's weight decay is the
L2 term. In every batch all positions are shifted by one random vector, so that the network cannot rely on where the
origin is.

A batch is rows of two tensors, not a torch-geometric ``DataLoader``: all graphs are alike, so one ``edge_index`` serves
all batches, while collating graph objects takes 20 microseconds a graph, about as long as the training step itself at
laptop scale.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from symtorch_core import FileFormatError, OutputPruner, SearchError, SymbolicModel, wrap
from symtorch_core.events import Callback, StageAdvanced, StageFinished, StageStarted, notify
from symtorch_core.studies import compute_learning_rate, write_whole
from symtorch_gnn.network import ParticleNetwork, fully_connected
from symtorch_gnn.simulation import Trajectories

CHECKPOINT: Final = "training.pt"
_SCHEMA: Final = 1
_RANKINGS: Final = 200  # of a training with pruning; each runs the edge model on a sample
_RANKED_EDGES: Final = 4096
_PRUNED_BY: Final = 0.65


@final
@dataclass(frozen=True)
class Settings:
    """Of a training.

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


SCALES: Final[Mapping[str, Settings]] = MappingProxyType(
    {
        "paper": Settings(),
        # Smooth units and a third of the paper's shift learn more per second; many simulations seen few times,
        # because rare near encounters are otherwise learned by heart.
        "laptop": Settings(
            simulations=8000,
            epochs=4,
            batch=256,
            hidden=64,
            activation="silu",
            learning_rate=5e-3,
            warmup=0.1,
            shift=1.0,
        ),
        # As wide as in the paper, batches that fill a GPU, about as many steps as at laptop scale.
        "gpu": Settings(
            simulations=8000,
            epochs=32,
            batch=2048,
            activation="silu",
            learning_rate=2e-3,
            warmup=0.05,
            shift=1.0,
        ),
        "tiny": Settings(
            simulations=50, epochs=2, batch=128, hidden=32, activation="silu", learning_rate=5e-3, warmup=0.1
        ),
    }
)


@final
@dataclass(frozen=True)
class Training:
    """What a training gave.

    Attributes:
        losses: mean absolute error per node, components added up, over each epoch's batches, shape (epochs,).
        seconds: it took, however often it was stopped; what was done after the last checkpoint is done again.
    """

    losses: Tensor
    seconds: float


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
) -> Training:
    """Train a network, in place; it ends in evaluation mode on ``device``.

    Where the variant prunes, the edge model is wrapped (:func:`symtorch_core.wrap`) if it is not yet.

    Args:
        network: to be trained.
        trajectories: to learn from.
        settings: how.
        seed: of the order of samples and of all noise.
        callbacks: told of the stage ``"train"``, step by step.
        device: to train on.
        folder: for a checkpoint, every ``keep_every`` steps; where one of the same training is there, it goes on, and
            ends as if it had never been stopped.
        keep_every: steps.

    Raises:
        SearchError: there are fewer samples than one batch.
        FileFormatError: the folder holds another training's checkpoint.
    """
    callbacks, began, device = tuple(callbacks), time.perf_counter(), torch.device(device)
    states, targets = (part.to(device) for part in trajectories.samples())
    per_epoch = len(states) // settings.batch
    if per_epoch < 1 or settings.epochs < 1:
        raise SearchError(f"{len(states)} samples do not fill one batch of {settings.batch}")
    steps = per_epoch * settings.epochs
    network.to(device).train()
    prune = _pruning(network, states, steps, seed)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    generator = torch.Generator(device).manual_seed(seed)
    losses = torch.zeros(settings.epochs, device=device)
    run = _Run(network, optimizer, generator, losses, _told(network, trajectories, settings, seed))
    first, earlier = (0, 0.0) if folder is None else run.restore(Path(folder) / CHECKPOINT, steps)
    edges = fully_connected(settings.batch, states.shape[1], device)
    every = max(1, steps // 500)
    notify(callbacks, StageStarted("train", steps))
    notify(callbacks, StageAdvanced("train", first))
    order = torch.empty(0)
    for step in range(first, steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == first:
            order = _order(len(states), seed, epoch).to(device)
        rows = order[place * settings.batch : (place + 1) * settings.batch]
        for group in optimizer.param_groups:
            group["lr"] = compute_learning_rate(
                step, steps, highest=settings.learning_rate, warmup=settings.warmup
            )
        prune(step)
        loss = _step(network, optimizer, states[rows], targets[rows], edges, settings.shift, generator)
        losses[epoch] += loss / per_epoch
        if folder is not None and (step + 1) % keep_every == 0:
            run.keep(Path(folder) / CHECKPOINT, step + 1, earlier + time.perf_counter() - began)
        if (step + 1) % every == 0 or step + 1 == steps:
            notify(callbacks, StageAdvanced("train", (step % every) + 1))
    network.eval()
    seconds = time.perf_counter() - began
    if folder is not None and first < steps:
        run.keep(Path(folder) / CHECKPOINT, steps, earlier + seconds)
    notify(callbacks, StageFinished("train", seconds))
    return Training(losses.cpu(), earlier + (seconds if first < steps else 0.0))


def prediction_error(network: ParticleNetwork, trajectories: Trajectories, batch: int = 4096) -> float:
    """Mean absolute error of a component of the acceleration, in evaluation mode; flags are left as they were."""
    states, targets = trajectories.samples()
    device = next(network.node_model.parameters()).device
    total, training = 0.0, network.training
    network.eval()
    with torch.no_grad():
        for x, y in zip(states.split(batch), targets.split(batch), strict=True):
            edges = fully_connected(len(x), x.shape[1], device)
            predicted = network(x.flatten(0, 1).to(device), edges)
            total += float((predicted - y.flatten(0, 1).to(device)).abs().double().sum())
    network.train(training)
    return total / targets.numel()


def _step(
    network: ParticleNetwork,
    optimizer: torch.optim.Optimizer,
    states: Tensor,
    targets: Tensor,
    edges: Tensor,
    shift: float,
    generator: torch.Generator,
) -> Tensor:
    """One step on a batch of states (B, particles, 6); gives the mean absolute error per node."""
    x, y, particles = states.flatten(0, 1), targets.flatten(0, 1), states.shape[1]
    moved = shift * torch.randn(2, generator=generator, device=x.device)
    x[:, :2] += moved  # rows were gathered for this batch: nobody else's
    predicted, penalty = network.with_penalty(x, edges, generator)
    error = (predicted - y).abs().sum() / len(x)
    optimizer.zero_grad()
    (error + penalty / (len(x) * particles)).backward()
    optimizer.step()
    return error.detach()


def _pruning(network: ParticleNetwork, states: Tensor, steps: int, seed: int) -> Callable[[int], None]:
    """What to call before each step: prunes the edge model's outputs on its schedule, where the variant does."""
    target = network.variant.pruned_to
    if target is None:
        return lambda step: None
    block = network.edge_model
    if not isinstance(block, SymbolicModel):
        block = wrap(network, "edge_model")
    spacing = max(1, steps // _RANKINGS)
    pruner = OutputPruner(block, target, total_steps=steps // spacing, end_fraction=_PRUNED_BY)
    graphs = _order(len(states), seed, -1)[: _RANKED_EDGES // 12]
    sample = states[graphs.to(states.device)]
    rows = network.edge_rows(
        sample.flatten(0, 1), fully_connected(len(sample), sample.shape[1], states.device)
    )

    def prune(step: int) -> None:
        if step % spacing == 0 and not pruner.done:
            pruner.steps_taken = step // spacing  # so that a training that goes on finds its place
            pruner.step(rows)

    return prune


def _order(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of the samples in an epoch, a function of both numbers alone."""
    mixed = int(np.random.SeedSequence([seed, epoch + 1]).generate_state(1)[0])
    return torch.randperm(samples, generator=torch.Generator().manual_seed(mixed))


def _told(network: ParticleNetwork, trajectories: Trajectories, settings: Settings, seed: int) -> str:
    """Settings and data of a training as text: what a checkpoint must agree with."""
    # Of the bytes: a sum would depend on the number of threads that added it up.
    data = hashlib.sha256(trajectories.accelerations.contiguous().numpy().tobytes()).hexdigest()
    told = {"settings": asdict(settings), "variant": asdict(network.variant), "seed": seed, "data": data}
    return json.dumps(told, sort_keys=True)


@final
@dataclass(frozen=True)
class _Run:
    """What changes as training goes on, to and from a file."""

    network: ParticleNetwork
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    losses: Tensor
    told: str

    def keep(self, file: Path, step: int, seconds: float) -> None:
        state: dict[str, Any] = {
            "schema": _SCHEMA,
            "told": self.told,
            "step": step,
            "seconds": seconds,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "losses": self.losses,
        }
        with write_whole(file) as unfinished:
            torch.save(state, unfinished)

    def restore(self, file: Path, steps: int) -> tuple[int, float]:
        """Of so many steps, those done, and seconds spent; none where there is no file."""
        if not file.exists():
            return 0, 0.0
        state = torch.load(file, map_location=self.losses.device, weights_only=True)
        if state.get("schema") != _SCHEMA or state.get("told") != self.told:
            raise FileFormatError(
                f"{file} is a checkpoint of another training: give another folder, or remove it"
            )
        noise = state["generator"].cpu()
        if state["step"] < steps and noise.shape != self.generator.get_state().shape:
            raise FileFormatError(
                f"{file} was trained on another kind of device, whose random numbers cannot be gone on with on "
                f"{self.generator.device}: go on there, or give another folder"
            )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["step"] < steps:  # a finished training can be read anywhere
            self.generator.set_state(noise)
        self.losses.copy_(state["losses"])
        return int(state["step"]), float(state["seconds"])
