"""Tuning of modules in the place of MLPs, so that the model's outputs come back to the original ones.

Equations and baselines are tuned by the same steps: a report that tuned the equations alone would compare tunings, not
equations. The model's own weights stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel
from symtorch_core.events import Callback
from symtorch_core.studies import Descent, RelativeAdam, descend
from symtorch_llm.models.passages import Passages
from symtorch_llm.models.transformer import place_modules

_PRIME = 7919


@final
@dataclass(frozen=True)
class Tuning:
    """Settings of a tuning.

    Attributes:
        epochs: passes over the text, at most; 0 for no tuning.
        learning_rates: the highest, on a one-cycle schedule: the share of its size by which a number changes in a step.
            Of several, the one is taken that comes closest to the original on the text to stop by, in short trials.
        trial: steps of such a trial.
        clip: the gradient's largest norm.
        patience: checks without a smaller distance, after which the tuning stops.
        checks: how often the distance on other text is measured in each pass.
    """

    epochs: int = 3
    learning_rates: tuple[float, ...] = (0.03, 0.1, 0.3)
    trial: int = 32
    clip: float = 1.0
    patience: int = 3
    checks: int = 2


def tune(
    modules: Mapping[str, nn.Module],
    fit: Passages,
    stop: Passages,
    tuning: Tuning | None = None,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Descent:
    """Tune modules at these paths, in place, towards the outputs of the original model; its weights stay as they are.

    Of a wrapped block on equations, the constants and the maps around them are tuned. Gradients flow through the
    replaced layers and those above only. The best state on ``stop`` is kept, which may be the first: this text must
    not be among the rows that the modules were fitted to, or the state that fits these rows too closely looks best.
    Ctrl-C ends the tuning with the best state so far.

    Args:
        modules: by path.
        fit: text to tune on.
        stop: other text, which decides when to stop.
        tuning: settings.
        seed: of the order of batches.
        callbacks: told of the stage ``"tune"``.

    Returns:
        The distance on ``stop`` before and after, checks, seconds, and whether the user stopped it.

    Raises:
        SearchError: there is no text, or a setting is invalid.
    """
    tuning = tuning or Tuning()
    if not len(fit) or not len(stop) or tuning.epochs < 0 or tuning.checks < 1 or not tuning.learning_rates:
        raise SearchError(
            "tuning needs text to tune on, text to stop by, checks of at least 1 and a learning rate"
        )
    with _make_trainable(modules) as parameters:
        if not parameters or not tuning.epochs:
            return Descent(math.nan, math.nan, 0, torch.zeros(0), 0.0)
        best, *others = tuning.learning_rates
        if others:
            some = fit.take(range(min(tuning.trial, len(fit))))
            trial = replace(tuning, epochs=1, checks=1, patience=1)
            start = [parameter.detach().clone() for parameter in parameters]
            reached = {}
            for rate in tuning.learning_rates:
                done = _descend(modules, parameters, some, stop, trial, rate, seed, callbacks)
                if done.interrupted:
                    return done
                reached[rate] = done.after
                _set(parameters, start)
            best = min(reached, key=reached.__getitem__)
        return _descend(modules, parameters, fit, stop, tuning, best, seed, callbacks)


def _descend(
    modules: Mapping[str, nn.Module],
    parameters: Sequence[nn.Parameter],
    fit: Passages,
    stop: Passages,
    tuning: Tuning,
    learning_rate: float,
    seed: int,
    callbacks: Sequence[Callback],
) -> Descent:
    generator = torch.Generator()
    parts = min(tuning.checks, len(fit))
    steps = len(fit) // parts

    def shuffle(epoch: int) -> list[int]:
        # A pass over the text is several epochs of the loop, so that it can stop within one.
        generator.manual_seed(seed * _PRIME + epoch // parts)
        order: list[int] = torch.randperm(len(fit), generator=generator).tolist()
        return order[epoch % parts * steps : (epoch % parts + 1) * steps]

    def distance(passages: Passages, number: int) -> Tensor:
        with place_modules(passages.model, modules):
            return passages.compute_distance(number)

    optimizer = RelativeAdam(parameters, learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=tuning.epochs * parts * steps + 1, pct_start=0.1
    )
    return descend(
        lambda number: distance(fit, number),
        parameters,
        shuffle,
        optimizer=optimizer,
        schedule=schedule,
        epochs=tuning.epochs * parts,
        clip=tuning.clip,
        judge=lambda: sum(float(distance(stop, n)) for n in range(len(stop))) / len(stop),
        patience=tuning.patience,
        stage="tune",
        callbacks=callbacks,
    )


def _set(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@contextmanager
def _make_trainable(modules: Mapping[str, nn.Module]) -> Iterator[list[nn.Parameter]]:
    """Give the parameters to tune, which receive gradients inside; afterwards flags are as before."""
    every = {id(p): p for module in modules.values() for p in module.parameters()}
    flags = {key: parameter.requires_grad for key, parameter in every.items()}
    try:
        for module in modules.values():
            if isinstance(module, SymbolicModel):
                if module.surrogate is not None:
                    module.surrogate.trainable(True, maps=True)
            else:
                module.requires_grad_(True)
        yield [parameter for parameter in every.values() if parameter.requires_grad and parameter.numel()]
    finally:
        for key, parameter in every.items():
            parameter.requires_grad_(flags[key])
            parameter.grad = None
