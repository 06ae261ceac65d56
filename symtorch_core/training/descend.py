"""The one training loop: whatever is trained here, in the core or in a plugin, goes down its loss by it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core.errors import FileFormatError
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
from symtorch_core.storage.files import write_whole

_SCHEMA: Final = 2
_TOLD: Final = 250  # times that a training of many steps tells of its progress


@final
@dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, so that one that was stopped goes on as if it had never been.

    Attributes:
        file: its file.
        module: holds everything that changes while training, buffers too.
        key: of everything that decides the training, see :func:`symtorch_core.studies.make_key`; a file of another
            training is refused.
        every: steps between two writes.
    """

    file: Path
    module: nn.Module
    key: str = ""
    every: int = 1000


@final
@dataclass(frozen=True)
class Descent:
    """What a training did.

    Attributes:
        before, after: the judge's loss at first, and of the state that was kept; NaN without a judge.
        epochs: passes that were completed.
        losses: mean loss of the steps of each epoch, shape (epochs,); 0 for an epoch that was not run.
        seconds: of training, however often it was stopped in between.
        interrupted: whether the user stopped it; then the best state so far is in place.
    """

    before: float
    after: float
    epochs: int
    losses: Tensor
    seconds: float
    interrupted: bool = False


def descend(
    cost: Callable[[Any], Tensor],
    parameters: Iterable[Tensor],
    batches: Callable[[int], Sequence[Any]],
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    epochs: int = 1,
    clip: float | None = None,
    judge: Callable[[], float] | None = None,
    patience: int | None = None,
    before_step: Callable[[int], None] | None = None,
    generator: torch.Generator | None = None,
    checkpoint: Checkpoint | None = None,
    stage: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> Descent:
    """Train parameters, in place, by steps down the slope of a loss.

    Args:
        cost: the loss of one batch, a tensor of one number.
        parameters: what ``optimizer`` changes.
        batches: the batches of an epoch, by its number (from 0). Where there is a checkpoint, they must depend on that
            number alone.
        optimizer: any of torch's; one with a line search evaluates the batch several times in a step.
        schedule: of the learning rate, moved on after each step.
        epochs: passes, at most.
        clip: the gradient's largest norm; a step whose gradient is not finite is then left out.
        judge: a held-out loss, asked before the first epoch and after each, without gradients. The state of the lowest
            is kept, which may be the first. None keeps the last state.
        patience: epochs without a lower one after which to stop; None for never.
        before_step: called with the step's number (from 0).
        generator: that ``cost`` draws from; kept with the checkpoint.
        checkpoint: where to go on from, and what to keep. A training with a judge needs none.
        stage: told to the callbacks, with its progress: by steps, or with a judge by epochs. None tells nothing.
        callbacks: told of the stage.

    Returns:
        What it did. With a judge, Ctrl-C ends the training with the best state; without one it is raised again.

    >>> x = nn.Parameter(torch.tensor(5.0))
    >>> done = descend(lambda batch: (x - 2) ** 2, [x], lambda epoch: [None] * 200,
    ...                optimizer=torch.optim.Adam([x], lr=0.1))
    >>> round(float(x.detach()), 2)
    2.0

    Raises:
        FileFormatError: the checkpoint is another training's, or was written on another kind of device.
    """
    run = _Run(list(parameters), optimizer, schedule, generator, epochs)
    told = () if stage is None else tuple(callbacks)
    name = stage or ""
    first = batches(0)
    steps = len(first) * epochs
    if checkpoint is not None:
        run.restore(checkpoint, steps)
    notify(told, StageStarted(name, epochs if judge else steps))
    if run.step:
        notify(told, StageAdvanced(name, run.step))
    before = lowest = math.nan if judge is None else _ask(judge)
    best, idle, epoch, interrupted = run.state() if judge else [], 0, 0, False
    every, reported = max(1, steps // _TOLD), run.step
    try:
        for epoch in range(run.step // max(1, len(first)), epochs):
            part = first if epoch == 0 else batches(epoch)
            for batch in itertools.islice(part, run.step - epoch * len(first), None):
                if before_step is not None:
                    before_step(run.step)
                loss = run.take(cost, batch, clip, epoch, len(first))
                if checkpoint is not None and run.step % checkpoint.every == 0 and run.step < steps:
                    run.write(checkpoint)
                if judge is None and (run.step % every == 0 or run.step == steps):
                    notify(told, StageAdvanced(name, run.step - reported))
                    notify(told, StageTold(name, f"loss {float(loss):.3g}"))
                    reported = run.step
            if judge is None:
                continue
            now = _ask(judge)
            idle = 0 if now < lowest else idle + 1
            if now < lowest:
                lowest, best = now, run.state()
            notify(told, StageAdvanced(name))
            notify(
                told, StageTold(name, f"held-out loss {now:.6g}, best {lowest:.6g}, at first {before:.6g}")
            )
            if patience is not None and idle >= patience:
                break
        epochs_run = epoch + 1 if epochs else 0
    except KeyboardInterrupt:
        if judge is None:
            raise
        interrupted, epochs_run = True, epoch
        notify(told, Interrupted(1))
    finally:
        if judge is not None:
            run.put_back(best)
    if checkpoint is not None and run.step > run.restored:
        run.write(checkpoint)
    notify(told, StageFinished(name, run.watch.seconds()))
    return Descent(before, lowest, epochs_run, run.losses.cpu(), run.seconds(), interrupted)


def _ask(judge: Callable[[], float]) -> float:
    with torch.no_grad():
        value = float(judge())
    return value if math.isfinite(value) else math.inf


@final
@dataclass
class _Run:
    """What changes as a training goes on."""

    parameters: list[Tensor]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    generator: torch.Generator | None
    epochs: int
    step: int = 0
    restored: int = 0
    earlier: float = 0.0
    watch: Stopwatch = field(default_factory=Stopwatch)
    losses: Tensor = field(init=False)

    def __post_init__(self) -> None:
        device = self.parameters[0].device if self.parameters else None
        self.losses = torch.zeros(self.epochs, device=device)

    def seconds(self) -> float:
        return self.earlier + (self.watch.seconds() if self.step > self.restored else 0.0)

    def take(
        self, cost: Callable[[Any], Tensor], batch: Any, clip: float | None, epoch: int, per: int
    ) -> Any:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            with torch.enable_grad():
                loss = cost(batch)
                # Not backward(): parameters that are not trained keep the gradients they have.
                slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            for parameter, slope in zip(self.parameters, slopes, strict=True):
                parameter.grad = slope
            if clip is not None:
                norm = nn.utils.clip_grad_norm_(self.parameters, clip)
                if not bool(torch.isfinite(norm)):  # a pole met in one batch must not be the end of all
                    self.optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        loss: Any = self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's own examples return the tensor
        self.losses[epoch] += loss / per
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        return loss

    def state(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def put_back(self, state: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state, strict=True):
                parameter.copy_(value)

    def write(self, checkpoint: Checkpoint) -> None:
        state = {
            "schema": _SCHEMA,
            "key": checkpoint.key,
            "step": self.step,
            "seconds": self.seconds(),
            "module": checkpoint.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
            "losses": self.losses,
        }
        with write_whole(checkpoint.file) as unfinished:
            torch.save(state, unfinished)

    def restore(self, checkpoint: Checkpoint, steps: int) -> None:
        file = checkpoint.file
        if not file.exists():
            return
        state = torch.load(file, map_location=self.losses.device, weights_only=True)
        if state.get("schema") != _SCHEMA or state.get("key") != checkpoint.key:
            raise FileFormatError(
                f"{file} is a checkpoint of another training: give another folder, or remove it"
            )
        finished = state["step"] >= steps  # a finished training can be read anywhere
        if self.generator is not None and not finished:
            noise = state["generator"].cpu()
            if noise.shape != self.generator.get_state().shape:
                raise FileFormatError(
                    f"{file} was trained on another kind of device, whose random numbers cannot be gone on with on "
                    f"{self.generator.device}: go on there, or give another folder"
                )
            self.generator.set_state(noise)
        checkpoint.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.step = self.restored = int(state["step"])
        self.earlier = float(state["seconds"])
        self.losses.copy_(state["losses"])
