"""Tuning of modules in the place of MLPs, so that the model's outputs come back to the original ones.

Equations and baselines are tuned by the same steps: a report that tuned the equations alone would compare tunings, not
equations. The model's own weights stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel
from symtorch_core.events import Callback
from symtorch_core.studies import Descent, descend
from symtorch_llm.models.tasks import Task
from symtorch_llm.models.transformer import place_modules
from symtorch_llm.text import Batch

_REMEMBERED_BYTES = 2**30


@final
@dataclass(frozen=True)
class Tuning:
    """Settings of a tuning.

    Attributes:
        epochs: passes over the text, at most.
        learning_rate: of Adam at its highest, on a one-cycle schedule.
        clip: the gradient's largest norm.
        patience: passes without a smaller held-out distance, after which the tuning stops.
        held_out: share of the batches that is held out to decide when to stop.
    """

    epochs: int = 30
    learning_rate: float = 3e-3
    clip: float = 1.0
    patience: int = 6
    held_out: float = 0.125


def tune(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    task: Task,
    tuning: Tuning | None = None,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Descent:
    """Tune modules at these paths, in place, towards the outputs of the model as it is; the model stays as it is.

    Of a wrapped block on equations, the constants and the maps around them are tuned. The best state on held-out
    batches is kept, which may be the first. Ctrl-C ends the tuning with the best state so far.

    Args:
        model: with its own modules in place.
        modules: by path.
        batches: of text.
        task: whose distance is minimised.
        tuning: settings.
        seed: of the order of batches, and of which are held out.
        callbacks: told of the stage ``"tune"``.

    Returns:
        The held-out distance before and after, passes, seconds, and whether the user stopped it.

    Raises:
        SearchError: there are fewer than two batches, or a setting is invalid.
    """
    tuning = tuning or Tuning()
    if len(batches) < 2 or tuning.epochs < 1 or not 0 < tuning.held_out < 1:
        raise SearchError(
            "tuning needs two batches or more, epochs of at least 1, and held_out between 0 and 1"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batches), generator=generator).tolist()
    held = max(1, round(tuning.held_out * len(batches)))
    train, judged = order[held:], order[:held]
    teacher = _Teacher(model, task, batches)
    with _make_trainable(modules) as parameters:
        if not parameters:
            return Descent(math.nan, math.nan, 0, torch.zeros(0), 0.0)

        def distance(number: int) -> Tensor:
            wanted = teacher(number)  # while the original MLPs are in place
            with place_modules(model, modules):
                return task.compute_distance(task.compute_outputs(model, batches[number]), wanted)

        optimizer = torch.optim.Adam(parameters, lr=tuning.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, tuning.learning_rate, total_steps=tuning.epochs * len(train) + 1, pct_start=0.1
        )
        return descend(
            distance,
            parameters,
            lambda epoch: [
                train[place] for place in torch.randperm(len(train), generator=generator).tolist()
            ],
            optimizer=optimizer,
            schedule=schedule,
            epochs=tuning.epochs,
            clip=tuning.clip,
            judge=lambda: sum(float(distance(number)) for number in judged) / len(judged),
            patience=tuning.patience,
            stage="tune",
            callbacks=callbacks,
        )


@final
class _Teacher:
    """Outputs of the original model on each batch, remembered as far as memory allows."""

    def __init__(self, model: nn.Module, task: Task, batches: Sequence[Batch]) -> None:
        self._model, self._task, self._batches = model, task, batches
        self._remembered: dict[int, Tensor] = {}
        self._free = _REMEMBERED_BYTES

    def __call__(self, number: int) -> Tensor:
        if number in self._remembered:
            return self._remembered[number]
        with torch.no_grad():
            wanted = self._task.compute_outputs(self._model, self._batches[number])
        size = wanted.numel() * wanted.element_size()
        if size <= self._free:
            self._free -= size
            self._remembered[number] = wanted
        return wanted


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
