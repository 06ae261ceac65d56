"""Tuning the modules that stand in a model, so that the model gives what it gave without them.

Equations and what they are compared with are tuned by the same steps: a report that tuned the equations alone would
compare tuning, not equations. The model's own weights stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from symtorch_core import SearchError, SymbolicModel
from symtorch_core.events import (
    Callback,
    Interrupted,
    StageAdvanced,
    StageFinished,
    StageStarted,
    StageTold,
    Stopwatch,
    notify,
)
from symtorch_llm.models import placed
from symtorch_llm.tasks import Task
from symtorch_llm.text import Batch

_STAGE = "tune"
_REMEMBERED_BYTES = 2**30


@final
@dataclass(frozen=True)
class Tuning:
    """How to tune.

    Attributes:
        epochs: passes over the text, at most.
        learning_rate: of Adam at its highest, on a one-cycle schedule.
        clip: the gradient's largest norm.
        patience: passes without a smaller held-out distance after which to stop.
        held_out: share of the batches held out, to stop by.
    """

    epochs: int = 30
    learning_rate: float = 3e-3
    clip: float = 1.0
    patience: int = 6
    held_out: float = 0.125


@final
@dataclass(frozen=True)
class Tuned:
    """What tuning did: the held-out distance before and after, passes run, seconds, and whether the user stopped it."""

    before: float
    after: float
    epochs: int
    seconds: float
    interrupted: bool = False


def tune(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    batches: Sequence[Batch],
    task: Task,
    tuning: Tuning | None = None,
    *,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
) -> Tuned:
    """Tune modules at these paths towards what the model gives as it is; they are changed in place, the model is not.

    Of a wrapped block on equations, the constants and the maps around them are tuned. The best state on held-out
    batches is kept, which may be the first. Ctrl-C ends it with the best so far.

    Args:
        model: as it was, its own modules in place.
        modules: by path.
        batches: of text.
        task: whose distance falls.
        tuning: how.
        seed: of the order of batches, and of which are held out.
        callbacks: told of the stage ``"tune"``.

    Raises:
        SearchError: there are fewer than two batches, or the settings make no sense.
    """
    tuning = tuning or Tuning()
    if len(batches) < 2 or tuning.epochs < 1 or not 0 < tuning.held_out < 1:
        raise SearchError("tuning needs two batches or more, an epoch or more, and held_out between 0 and 1")
    watch = Stopwatch()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batches), generator=generator).tolist()
    held = max(1, round(tuning.held_out * len(batches)))
    train, judged = order[held:], order[:held]
    teacher = _Teacher(model, task, batches)
    with _tunable(modules) as parameters:
        if not parameters:
            return Tuned(math.nan, math.nan, 0, watch.seconds())

        def distance(number: int) -> Tensor:
            wanted = teacher(number)  # before the modules are in place
            with placed(model, modules):
                return task.distance(task.outputs(model, batches[number]), wanted)

        before, after, epochs, interrupted = _descend(
            parameters, distance, train, judged, tuning, generator, callbacks
        )
    return Tuned(before, after, epochs, watch.seconds(), interrupted)


def _descend(
    parameters: Sequence[nn.Parameter],
    distance: Callable[[int], Tensor],
    train: Sequence[int],
    judged: Sequence[int],
    tuning: Tuning,
    generator: torch.Generator,
    callbacks: Sequence[Callback],
) -> tuple[float, float, int, bool]:
    """Held-out distance before and after, epochs run, whether interrupted; the best state is in place."""

    def held_out() -> float:
        with torch.no_grad():
            mean = sum(float(distance(number)) for number in judged) / len(judged)
        return mean if math.isfinite(mean) else math.inf

    optimizer = torch.optim.Adam(parameters, lr=tuning.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, tuning.learning_rate, total_steps=tuning.epochs * len(train) + 1, pct_start=0.1
    )
    watch = Stopwatch()
    before = lowest = held_out()
    best, idle, epoch, interrupted = _state(parameters), 0, 0, False
    notify(callbacks, StageStarted(_STAGE, tuning.epochs))
    try:
        while epoch < tuning.epochs and idle < tuning.patience:
            for position in torch.randperm(len(train), generator=generator).tolist():
                optimizer.zero_grad()
                with torch.enable_grad():
                    distance(train[position]).backward()
                norm = nn.utils.clip_grad_norm_(parameters, tuning.clip)
                if bool(torch.isfinite(norm)):  # a pole met in one batch must not be the end of all
                    optimizer.step()
                schedule.step()
            epoch += 1
            now = held_out()
            idle = 0 if now < lowest else idle + 1
            if now < lowest:
                lowest, best = now, _state(parameters)
            notify(callbacks, StageAdvanced(_STAGE))
            notify(callbacks, StageTold(_STAGE, f"held-out distance {now:.4g}, at first {before:.4g}"))
    except KeyboardInterrupt:
        interrupted = True
        notify(callbacks, Interrupted(1))
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)
    notify(callbacks, StageFinished(_STAGE, watch.seconds()))
    return before, lowest, epoch, interrupted


@final
class _Teacher:
    """What the model gives on each batch as it was, remembered as long as that fits in memory."""

    def __init__(self, model: nn.Module, task: Task, batches: Sequence[Batch]) -> None:
        self._model, self._task, self._batches = model, task, batches
        self._remembered: dict[int, Tensor] = {}
        self._free = _REMEMBERED_BYTES

    def __call__(self, number: int) -> Tensor:
        if number in self._remembered:
            return self._remembered[number]
        with torch.no_grad():
            wanted = self._task.outputs(self._model, self._batches[number])
        size = wanted.numel() * wanted.element_size()
        if size <= self._free:
            self._free -= size
            self._remembered[number] = wanted
        return wanted


@contextmanager
def _tunable(modules: Mapping[str, nn.Module]) -> Iterator[list[nn.Parameter]]:
    """The parameters to tune, receiving gradients inside; flags are as before afterwards."""
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


def _state(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
