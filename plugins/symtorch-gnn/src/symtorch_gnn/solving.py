"""One force, one network: simulate, train, see which messages carry the force, distill them, judge."""

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
from symtorch_gnn.laws import EDGE_NAMES, TRANSFORMS, Verdict, matches_law
from symtorch_gnn.messages import (
    TrimmedFit,
    by_kl,
    by_std,
    edge_rows,
    forces_on,
    linearity,
    messages_of,
    pulls_on,
)
from symtorch_gnn.network import DIMENSIONS, ParticleNetwork, Variant, build
from symtorch_gnn.simulation import Trajectories, cached
from symtorch_gnn.training import Settings, prediction_error, train

EDGES: Final = 5_000
"""Edges that an equation is fitted to and judged on (SymTorch paper, E.3)."""

Carrier = Literal["messages", "components"]
"""What is distilled: the messages that vary most (the paper's choice), or the principal components of all of them."""


@final
@dataclass(frozen=True)
class Scale:
    """How much is done.

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
    """What was found in the messages of a network.

    Attributes:
        carrier: messages or components.
        columns: which messages; none for components.
        over_mass: whether the two are closer to images of the force over the receiver's mass than of the force.
        true: whichever of these it is, on the edges, shape (edges, 2).
        linear: of each of the two, regressed on that.
        values: the two, shape (edges, 2).
        result: their distillation.
        verdicts: of the two chosen equations.
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
        seconds: of training, whenever that was.
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


def solve(
    force: Force,
    variant: Variant,
    scale: Scale,
    regressor: str,
    seed: int,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    device: str = "cpu",
) -> Model:
    """Train one network and distill its messages."""
    data = cached(folder / "simulations", force, scale.training.simulations, seed)
    test = cached(folder / "simulations", force, scale.test_simulations, seed + 1_000)
    network = build(variant, scale.training.hidden, scale.training.activation, seed)
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
    rows = edge_rows(test, EDGES, seed)
    laws = _laws(network, force, rows, test, scale, regressor, seed, folder, callbacks)
    return Model(
        force=force,
        variant=variant,
        seed=seed,
        seconds=training.seconds,
        error=prediction_error(network, test),
        drift=float(torch.cat([data.drift, test.drift]).max()),
        laws=tuple(laws),
    )


def forces_search(scale: Scale) -> SearchSpace:
    """The paper's search space for messages (E.3), with mean absolute errors, which heavy tails do not rule."""
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


def carrying(network: ParticleNetwork, rows: Tensor) -> tuple[int, ...]:
    """The two messages that carry the force by the paper's choice: those left, or the largest by KL or by deviation."""
    block = network.edge_model
    if isinstance(block, SymbolicModel) and block.output_mask is not None:
        return tuple(int(column) for column in block.output_mask.nonzero()[:, 0])
    order = by_kl(network, rows) if network.variant.kl else by_std(messages_of(network, rows))
    return tuple(sorted(int(column) for column in order[:DIMENSIONS]))


def components(messages: Tensor) -> Tensor:
    """The two leading principal components of messages (n, d), shape (n, 2)."""
    centred = messages.double() - messages.double().mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:DIMENSIONS].T


def _laws(
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
    messages, columns = messages_of(network, rows), carrying(network, rows)
    block = network.edge_model
    if not isinstance(block, SymbolicModel):
        block = wrap(network, "edge_model")
    # Where two messages are left, their components are the same plane.
    carriers: tuple[Carrier, ...] = ("messages",) if _narrow(network.variant) else ("messages", "components")
    for carrier in carriers:
        chosen: dict[str, Any] = (
            {"outputs": columns}
            if carrier == "messages"
            else {"reducer": "pca", "reducer_options": {"k_out": DIMENSIONS}}
        )
        values = messages[:, list(columns)] if carrier == "messages" else components(messages)
        found = block.distill(
            rows,
            regressor=regressor,
            variable_names=EDGE_NAMES,
            transforms=TRANSFORMS,
            search=forces_search(scale),
            seed=seed,
            resume=folder / "searches",
            callbacks=callbacks,
            progress=False,
            **chosen,
        )
        result = require_finished(found)
        block.switch_to_symbolic()
        error = prediction_error(network, test)
        block.switch_to_block()
        over_mass, true, linear = _linear(values, force, rows)
        yield Law(
            carrier=carrier,
            columns=columns if carrier == "messages" else (),
            over_mass=over_mass,
            true=true,
            linear=linear,
            values=values,
            result=result,
            verdicts=tuple(matches_law(candidate.expression, force) for candidate in result.chosen()),
            error=error,
        )


def _linear(values: Tensor, force: Force, rows: Tensor) -> tuple[bool, Tensor, tuple[TrimmedFit, ...]]:
    """Both regressed on the force, or on the force over the mass, whichever is the closer."""
    true = forces_on(force, rows), pulls_on(force, rows)
    fits = [linearity(values, each) for each in true]
    over_mass = sum(fit.r2 for fit in fits[1]) > sum(fit.r2 for fit in fits[0])
    return over_mass, true[int(over_mass)], fits[int(over_mass)]


def _narrow(variant: Variant) -> bool:
    return variant.message_dim == DIMENSIONS or variant.pruned_to == DIMENSIONS
