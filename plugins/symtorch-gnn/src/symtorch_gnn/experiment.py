"""One force and one network: simulate, train, find the messages that carry the force, distill and judge them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

import torch
from torch import Tensor

from symtorch_core import Distillation, SearchSpace, SymbolicModel, wrap
from symtorch_core.events import Callback
from symtorch_core.studies import require_finished
from symtorch_gnn.forces import Force
from symtorch_gnn.laws import EDGE_NAMES, TRANSFORMS, Verdict, compare_with_law
from symtorch_gnn.messages import (
    TrimmedFit,
    compute_forces,
    compute_forces_per_mass,
    compute_messages,
    fit_messages,
    rank_by_kl,
    rank_by_std,
    sample_edges,
)
from symtorch_gnn.network import DIMENSIONS, ParticleNetwork, Variant, build_network
from symtorch_gnn.simulation import Trajectories, load_or_simulate
from symtorch_gnn.training import Settings, measure_error, train

EDGES: Final = 5_000
"""Edges that an equation is fitted to and judged on (SymTorch paper, E.3)."""

Carrier = Literal["messages", "components"]
"""What is distilled: the messages that vary most (as in the paper), or the principal components of all messages."""


@final
@dataclass(frozen=True)
class Scale:
    """Amount of work at one scale.

    Attributes:
        training: of the networks.
        test_simulations: for the test error and the edges.
        niterations, timeout: of the search, for each equation.
    """

    training: Settings
    test_simulations: int
    niterations: int
    timeout: float | None


@final
@dataclass(frozen=True, eq=False)
class Law:
    """Equations found in the messages of a network.

    Attributes:
        carrier: messages or components.
        columns: of the messages; empty for components.
        over_mass: whether both carriers are closer to images of the force over the receiver's mass than of the force.
        true: the closer of these, on the edges, shape (edges, 2).
        linear: linear fits of each carrier by ``true``.
        values: the two carriers, shape (edges, 2).
        result: their distillation.
        verdicts: on the two chosen equations.
        error: the network's test error with the equations in it.
    """

    carrier: Carrier
    columns: tuple[int, ...]
    over_mass: bool
    true: Tensor
    linear: tuple[TrimmedFit, ...]
    values: Tensor
    result: Distillation
    verdicts: tuple[Verdict, ...]
    error: float


@final
@dataclass(frozen=True, eq=False)
class Model:
    """A trained network and its laws.

    Attributes:
        force, variant, seed: what was trained.
        seconds: of training, however often it was stopped.
        error: mean absolute test error of a component of the acceleration.
        drift: the largest relative energy drift of the simulations.
        laws: one for each carrier.
    """

    force: Force
    variant: Variant
    seed: int
    seconds: float
    error: float
    drift: float
    laws: tuple[Law, ...]


def run_experiment(
    force: Force,
    variant: Variant,
    scale: Scale,
    regressor: str,
    seed: int,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    device: str = "cpu",
) -> Model:
    """Train one network, distill its messages and compare the equations with the law."""
    data = load_or_simulate(folder / "simulations", force, scale.training.simulations, seed)
    test = load_or_simulate(folder / "simulations", force, scale.test_simulations, seed + 1_000)
    network = build_network(variant, scale.training.hidden, scale.training.activation, seed)
    training = train(
        network,
        data,
        scale.training,
        seed,
        callbacks=callbacks,
        device=device,
        folder=folder / f"{force.name}-{variant.name}-{seed}",
    )
    network.to("cpu")
    rows = sample_edges(test, EDGES, seed)
    laws = _find_laws(network, force, rows, test, scale, regressor, seed, folder, callbacks)
    return Model(
        force=force,
        variant=variant,
        seed=seed,
        seconds=training.seconds,
        error=measure_error(network, test),
        drift=float(torch.cat([data.drift, test.drift]).max()),
        laws=tuple(laws),
    )


def build_search_space(scale: Scale) -> SearchSpace:
    """Return the paper's search space for messages (E.3), with mean absolute errors because of heavy tails."""
    return SearchSpace(
        binary_operators=("+", "-", "*"),
        unary_operators=("inv", "exp", "log"),
        complexity_of_operators={"exp": 3, "log": 3},
        constraints={"exp": (1,), "log": (1,)},
        maxsize=25,
        loss="mae",
        niterations=scale.niterations,
        timeout_in_seconds=scale.timeout,
    )


def choose_messages(network: ParticleNetwork, rows: Tensor) -> tuple[int, ...]:
    """Choose the two messages that carry the force, as in the paper: those left, or the largest by KL or deviation."""
    block = network.edge_model
    if isinstance(block, SymbolicModel) and block.output_mask is not None:
        return tuple(int(column) for column in block.output_mask.nonzero()[:, 0])
    order = rank_by_kl(network, rows) if network.variant.kl else rank_by_std(compute_messages(network, rows))
    return tuple(sorted(int(column) for column in order[:DIMENSIONS]))


def compute_components(messages: Tensor) -> Tensor:
    """Return the two leading principal components of messages (n, d), shape (n, 2)."""
    centred = messages.double() - messages.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:DIMENSIONS].T


def _find_laws(
    network: ParticleNetwork,
    force: Force,
    rows: Tensor,
    test: Trajectories,
    scale: Scale,
    regressor: str,
    seed: int,
    folder: Path,
    callbacks: Sequence[Callback],
) -> Iterator[Law]:
    messages, columns = compute_messages(network, rows), choose_messages(network, rows)
    block = network.edge_model
    if not isinstance(block, SymbolicModel):
        block = wrap(network, "edge_model")
    # Two messages span the same plane as their components.
    carriers: tuple[Carrier, ...] = (
        ("messages",) if _sends_two(network.variant) else ("messages", "components")
    )
    for carrier in carriers:
        chosen: dict[str, Any] = (
            {"outputs": columns}
            if carrier == "messages"
            else {"reducer": "pca", "reducer_options": {"k_out": DIMENSIONS}}
        )
        values = messages[:, list(columns)] if carrier == "messages" else compute_components(messages)
        found = block.distill(
            rows,
            replace=True,
            regressor=regressor,
            variable_names=EDGE_NAMES,
            transforms=TRANSFORMS,
            search=build_search_space(scale),
            select="score",
            seed=seed,
            resume=folder / "searches",
            callbacks=callbacks,
            progress=False,
            **chosen,
        )
        result = require_finished(found)
        block.switch_to_symbolic()
        error = measure_error(network, test)
        block.switch_to_block()
        over_mass, true, linear = _fit_linear(values, force, rows)
        yield Law(
            carrier=carrier,
            columns=columns if carrier == "messages" else (),
            over_mass=over_mass,
            true=true,
            linear=linear,
            values=values,
            result=result,
            verdicts=tuple(compare_with_law(candidate.expression, force) for candidate in result.chosen()),
            error=error,
        )


def _fit_linear(values: Tensor, force: Force, rows: Tensor) -> tuple[bool, Tensor, tuple[TrimmedFit, ...]]:
    """Fit both by the force, and by the force over the mass; return the closer of the two."""
    true = compute_forces(force, rows), compute_forces_per_mass(force, rows)
    fits = [fit_messages(values, each) for each in true]
    over_mass = sum(fit.r2 for fit in fits[1]) > sum(fit.r2 for fit in fits[0])
    return over_mass, true[int(over_mass)], fits[int(over_mass)]


def _sends_two(variant: Variant) -> bool:
    return variant.message_dim == DIMENSIONS or variant.pruned_to == DIMENSIONS
