"""The training loop of the core and its plugins."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from symtorch_core.errors import FileFormatError
from symtorch_core.events import (
    Callback,
    Event,
    Interrupted,
    StageAdvanced,
    StageFinished,
    StageStarted,
    StageTold,
    Stopwatch,
    notify,
)
from symtorch_core.training.checkpoint import Checkpoint

_REPORTS: Final = 250  # number of progress reports in a training of many steps


@final
@dataclass(frozen=True)
class Descent:
    """Result of a training.

    Attributes:
        before, after: the judge's loss before training and of the state that was kept; NaN without a judge.
        epochs: number of completed passes.
        losses: mean loss of the steps of each epoch, shape (epochs,); 0 for an epoch that was not run.
        seconds: training time, summed over interruptions.
        interrupted: whether the user stopped the training; the best state so far is then in place.
    """

    before: float
    after: float
    epochs: int
    losses: Tensor
    seconds: float
    interrupted: bool = False


@contextmanager
def allow_gradients() -> Iterator[None]:
    """Let gradients be taken inside, whatever the caller's mode: ``no_grad``, ``inference_mode`` or none.

    >>> with torch.inference_mode(), allow_gradients():
    ...     x = torch.ones(1, requires_grad=True)
    ...     torch.autograd.grad((2 * x).sum(), x)
    (tensor([2.]),)
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


@allow_gradients()
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
    """Train parameters in place by gradient descent on a loss.

    Args:
        cost: function from one batch to its loss, a tensor of one number.
        parameters: parameters that ``optimizer`` changes.
        batches: function from an epoch's number (from 0) to its batches. With a checkpoint, they must depend on that
            number only.
        optimizer: any optimizer of torch; one with a line search evaluates the batch several times in a step.
        schedule: schedule of the learning rate, advanced after each step.
        epochs: largest number of passes.
        clip: largest norm of the gradient; a step with a non-finite gradient is then skipped.
        judge: function that returns a held-out loss, called before the first epoch and after each one, without
            gradients. The state of lowest loss is kept, which may be the initial one. None keeps the last state.
        patience: number of epochs without a lower loss after which to stop; None for never.
        before_step: function called with the step's number (from 0).
        generator: random generator used by ``cost``; saved with the checkpoint.
        checkpoint: file to continue from and to write; not needed in a training with a judge.
        stage: name of the stage sent to the callbacks, with progress by steps, or by epochs with a judge. None sends
            nothing.
        callbacks: called with each event of the stage.

    Returns:
        The result. With a judge, Ctrl-C ends the training with the best state; without one it is raised again.

    >>> x = nn.Parameter(torch.tensor(5.0))
    >>> done = descend(lambda batch: (x - 2) ** 2, [x], lambda epoch: [None] * 200,
    ...                optimizer=torch.optim.Adam([x], lr=0.1))
    >>> round(float(x.detach()), 2)
    2.0

    Raises:
        FileFormatError: the checkpoint is damaged, belongs to another training, or was written on another kind of
            device.
        SearchError: another process trains with this checkpoint now.
    """
    with nullcontext() if checkpoint is None else checkpoint.lock():
        run = _Run(list(parameters), optimizer, schedule, generator, epochs)
        first = batches(0)
        per_epoch, steps = len(first), len(first) * epochs
        if checkpoint is not None:
            run.restore(checkpoint, steps)
        progress = _Progress(stage, () if stage is None else tuple(callbacks), steps, run.step)
        progress.start(epochs if judge else steps)
        before = lowest = math.nan if judge is None else _evaluate_judge(judge)
        best, idle, done, interrupted = run.state() if judge else [], 0, 0, False
        try:
            for epoch in range(run.step // max(1, per_epoch), epochs):
                part = first if epoch == 0 else batches(epoch)
                for batch in itertools.islice(part, run.step - epoch * per_epoch, None):
                    if before_step is not None:
                        before_step(run.step)
                    loss = run.take_step(cost, batch, clip, epoch, per_epoch)
                    if checkpoint is not None and run.step % checkpoint.every == 0 and run.step < steps:
                        run.write(checkpoint)
                    if judge is None:
                        progress.report_step(run.step, loss)
                done = epoch + 1
                if judge is None:
                    continue
                now = _evaluate_judge(judge)
                idle = 0 if now < lowest else idle + 1
                if now < lowest:
                    lowest, best = now, run.state()
                progress.report_epoch(now, lowest, before)
                if patience is not None and idle >= patience:
                    break
        except KeyboardInterrupt:
            if judge is None:
                raise
            interrupted = True
            progress.notify(Interrupted(1))
        finally:
            if judge is not None:
                run.reset_parameters(best)
        if checkpoint is not None and run.step > run.restored:
            run.write(checkpoint)
        progress.notify(StageFinished(progress.name, run.watch.seconds()))
        return Descent(before, lowest, done, run.losses.cpu(), run.seconds(), interrupted)


@final
class _Progress:
    """Sends the progress of a training to callbacks: a few hundred times, however many steps it has."""

    def __init__(self, stage: str | None, callbacks: Sequence[Callback], steps: int, done: int) -> None:
        self.name = stage or ""
        self._callbacks = callbacks
        self._steps, self._every, self._reported = steps, max(1, steps // _REPORTS), done

    def notify(self, event: Event) -> None:
        notify(self._callbacks, event)

    def start(self, total: int) -> None:
        self.notify(StageStarted(self.name, total))
        if self._reported:
            self.notify(StageAdvanced(self.name, self._reported))

    def report_step(self, step: int, loss: Any) -> None:
        if step % self._every == 0 or step == self._steps:
            self.notify(StageAdvanced(self.name, step - self._reported))
            self.notify(StageTold(self.name, f"loss {float(loss):.4g}"))
            self._reported = step

    def report_epoch(self, now: float, lowest: float, before: float) -> None:
        self.notify(StageAdvanced(self.name))
        self.notify(
            StageTold(self.name, f"held-out loss {now:.6g}, best {lowest:.6g}, at first {before:.6g}")
        )


def _evaluate_judge(judge: Callable[[], float]) -> float:
    with torch.no_grad():
        value = float(judge())
    return value if math.isfinite(value) else math.inf


@final
@dataclass
class _Run:
    """State of a training."""

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

    def take_step(
        self, cost: Callable[[Any], Tensor], batch: Any, clip: float | None, epoch: int, per: int
    ) -> Any:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            with torch.enable_grad():
                loss = cost(batch)
                # Not backward(): parameters that are not trained keep their gradients.
                slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
            for parameter, slope in zip(self.parameters, slopes, strict=True):
                parameter.grad = slope
            if clip is not None:
                norm = nn.utils.clip_grad_norm_(self.parameters, clip)
                if not bool(torch.isfinite(norm)):  # one batch at a pole must not ruin the parameters
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

    def reset_parameters(self, state: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state, strict=True):
                parameter.copy_(value)

    def write(self, checkpoint: Checkpoint) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds(),
            "module": checkpoint.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
            "losses": self.losses,
        }
        checkpoint.write(state)

    def restore(self, checkpoint: Checkpoint, steps: int) -> None:
        state = checkpoint.read(self.losses.device)
        if state is None:
            return
        finished = state["step"] >= steps  # a finished training can be read anywhere
        if self.generator is not None and not finished:
            noise = state["generator"].cpu()
            if noise.shape != self.generator.get_state().shape:
                raise FileFormatError(
                    f"{checkpoint.file} was trained on another kind of device, whose random numbers cannot be "
                    f"continued on {self.generator.device}: continue on that device, or give another folder"
                )
            self.generator.set_state(noise)
        checkpoint.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        self.step = self.restored = int(state["step"])
        self.earlier = float(state["seconds"])
        self.losses.copy_(state["losses"])
